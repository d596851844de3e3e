"""The oracle bounds what any assignment of prototypes can reach, and says that it is a bound."""

from dataclasses import replace

import pytest
import torch

from persona.baselines.base import Setting
from persona.evaluation.metrics import score
from persona.evaluation.protocol import examine
from persona.training.devices import Fleet
from persona.training.stages import DeviceRule

from .conftest import prepared, unseen


@pytest.fixture(params=["images", "rankings"])
def setting(request) -> Setting:
    """With group edits that differ: those of the fixtures were never trained."""
    found = request.getfixturevalue(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(8)
        for value in found.personaliser.bank.raw.values():
            value.data.normal_()
    return found


def scored(setting: Setting, fleet: Fleet, said: torch.Tensor) -> torch.Tensor:
    return score(setting.task, said, fleet.tensors.targets)


def test_each_device_has_the_best_that_any_prototype_scores(setting):
    fleet = unseen(setting)
    found = scored(setting, fleet, prepared("oracle-prototype", setting).outputs(setting, fleet))
    bank = setting.personaliser.bank
    for d, device in enumerate(fleet.devices):
        alone = setting.fleet([device])
        best = max(
            float(
                scored(
                    setting,
                    alone,
                    setting.outputs(
                        {name: value[k : k + 1] for name, value in bank.edits().items()},
                        alone.tensors,
                    ),
                )
            )
            for k in range(bank.count)
        )
        assert float(found[d]) == pytest.approx(best, abs=1e-6)


def test_other_answers_make_it_choose_otherwise(setting):
    fleet = unseen(setting)
    rival = prepared("oracle-prototype", setting)
    found = rival.outputs(setting, fleet)
    flipped = replace(fleet.tensors, targets=fleet.tensors.targets.flip(1))
    other = rival.outputs(setting, Fleet(fleet.devices, flipped))
    assert not torch.equal(other, found)


def test_a_table_calls_it_an_upper_bound(images):
    fleet = unseen(images)
    width = fleet.tensors.vectors.shape[1]
    rule = DeviceRule(torch.zeros(width), torch.ones(width), torch.zeros(2, width), torch.zeros(2))
    rival = prepared("oracle-prototype", images)
    assert examine(images, rule, fleet, {"oracle-prototype": rival}).upper_bounds == (
        "oracle-prototype",
    )
