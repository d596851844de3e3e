"""Rivals that learn to make edits: what they make, and what of them is trained."""

import pytest
import torch

from persona.baselines import rivals
from persona.baselines.apg import FactorisedSlot
from persona.baselines.base import Setting
from persona.method.slots import make_slot

from .conftest import prepared, unseen


def states(name: str, setting: Setting) -> tuple[dict, dict]:
    """The generator's parameters before and after training."""
    rival = rivals[name]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        before = dict(rival.generator(setting).named_parameters())
    return before, dict(prepared(name, setting).trained.named_parameters())


def test_duet_as_released_never_trains_its_generators(images: Setting):
    before, after = states("duet-as-released", images)
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert frozen == {name for name in before if name.startswith("generators.")}
    assert frozen


@pytest.mark.parametrize("name", ["duet-repaired", "apg", "static-same-budget"])
@pytest.mark.parametrize("kind", ["images", "rankings"])
def test_the_others_train_everything(request, name, kind):
    before, after = states(name, request.getfixturevalue(kind))
    assert [key for key in before if torch.equal(before[key], after[key])] == []


def test_one_mlp_serves_all_slots_of_duet_as_released_and_each_its_own_in_the_repaired(images):
    counts = {
        name: len(rivals[name]().generator(images).codes)
        for name in ("duet-as-released", "duet-repaired")
    }
    assert counts == {"duet-as-released": 1, "duet-repaired": len(images.slots)}


@pytest.mark.parametrize("kind", ["dense", "low-rank"])
def test_an_apg_edit_is_u_s_v_with_only_s_made_for_the_device(images: Setting, kind):
    torch.manual_seed(1)
    slot = make_slot(images.backbone, "head.0", kind, rank=3)
    generator = FactorisedSlot(slot, 6, 0.5)
    z = torch.randn(4, 6)
    change = generator(z)
    u, v = generator.u_left @ generator.u_right, generator.v_left @ generator.v_right
    k = u.shape[1]
    for device in range(4):
        core = generator.core.weight @ z[device] + generator.core.bias
        s = torch.stack([core[i * k : (i + 1) * k] for i in range(k)])
        weight = (
            change["weight"][device]
            if kind == "dense"
            else change["b"][device] @ change["a"][device]
        )
        assert torch.allclose(weight, u @ s @ v, atol=1e-5)
        assert {x: tuple(t[device].shape) for x, t in change.items()} == slot.tensors()


def test_static_same_budget_gives_every_device_the_same_edit(images: Setting):
    rival = prepared("static-same-budget", images)
    edit = rival.trained(unseen(images).tensors.observations)
    assert all(torch.equal(value, value[:1].expand_as(value)) for value in edit.values())
    assert any(value.abs().sum() > 0 for value in edit.values())
