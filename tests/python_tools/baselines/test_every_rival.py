"""What holds for every rival, whatever it does."""

import copy
from dataclasses import replace

import pytest
import torch

from persona.baselines import rivals
from persona.baselines.base import Setting
from persona.training.devices import Fleet

from .conftest import prepared, unseen

CLASSIFIERS = {
    "apg",
    "batch-norm-statistics",
    "constant-edit",
    "duet-as-released",
    "duet-repaired",
    "fine-tuning",
    "lame",
    "nearest-centre",
    "oracle-prototype",
    "prior-correction",
    "static-larger",
    "static-same-budget",
    "t3a",
    "tent",
}
RANKERS = {
    "apg",
    "cloud-only",
    "constant-edit",
    "duet-as-released",
    "duet-repaired",
    "fine-tuning",
    "late-fusion",
    "nearest-centre",
    "oracle-prototype",
    "static-larger",
    "static-same-budget",
}
ORACLES = {"oracle-prototype"}
MOVERS = CLASSIFIERS - {"static-larger"} | {"static-gravity-aligned"}
CASES = [
    *(("images", name) for name in sorted(CLASSIFIERS)),
    *(("rankings", name) for name in sorted(RANKERS)),
    ("motions", "static-gravity-aligned"),
]


@pytest.fixture
def setting(request, kind) -> Setting:
    return request.getfixturevalue(kind)


@pytest.mark.parametrize(
    ("kind", "expected"), [("images", CLASSIFIERS), ("rankings", RANKERS), ("motions", MOVERS)]
)
def test_each_task_has_the_rivals_that_can_serve_it(setting, expected):
    assert {name for name in rivals if rivals[name]().applies(setting)} == expected


@pytest.mark.parametrize(("kind", "name"), [c for c in CASES if c[1] not in ORACLES])
def test_a_rival_leaves_the_backbone_and_ignores_the_answers(setting, name):
    """Bit for bit the same backbone; the same outputs again, and for other or no right answers."""
    before = copy.deepcopy(setting.backbone.state_dict())
    fleet = unseen(setting)
    found = prepared(name, setting).outputs(setting, fleet)
    again = prepared(name, setting)
    permuted = Fleet(
        tuple(replace(d, targets=d.targets[::-1].copy()) for d in fleet.devices),
        replace(fleet.tensors, targets=fleet.tensors.targets.flip(1)),
    )
    assert found.shape[:2] == fleet.tensors.targets.shape
    assert found.isfinite().all()
    assert torch.equal(again.outputs(setting, permuted), found)
    after = setting.backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_a_device_is_answered_does_not_depend_on_its_company(setting, name):
    fleet = unseen(setting)
    rival = prepared(name, setting)
    some = [6, 2]
    few = Fleet(tuple(fleet.devices[i] for i in some), fleet.tensors.subset(torch.tensor(some)))
    together = rival.outputs(setting, fleet)[some]
    assert torch.allclose(rival.outputs(setting, few), together, atol=1e-4)


@pytest.mark.parametrize("name", sorted({n for _, n in CASES} - {"fine-tuning", *ORACLES}))
def test_only_upper_bounds_read_labels(name):
    assert not rivals[name].uses_labels
