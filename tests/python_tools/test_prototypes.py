"""The prototype bank: the nearest group edit, what is left beside it, and exact F16 values."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from persona.formats.edit import quantise
from persona.formats.slots import SlotSpec
from persona.method.personalise import Personaliser
from persona.method.prototypes import PrototypeBank
from persona.method.slots import Edit, compose, edited_forward, make_slot
from persona.training.config import PrototypeConfig
from persona.training.devices import DeviceTensors, edited_part, to_tensors
from persona.training.pipeline import build_adapter
from persona.training.stages import train_adapter, train_prototypes

GROUPS, DEVICES = 5, 40


def silent(_done: int, _all: int) -> None:
    pass


def slots_of(*kinds: str) -> tuple[SlotSpec, ...]:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5), nn.Linear(5, 3))
    return tuple(make_slot(model, str(i), kind, rank=2) for i, kind in enumerate(kinds))


def random_edit(slots: tuple[SlotSpec, ...], count: int, size: float = 1.0, seed: int = 0) -> Edit:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{s.name}.{x}": size * s.limits()[x] * torch.randn(count, *shape, generator=generator)
        for s in slots
        for x, shape in s.tensors().items()
    }


def bank_of(slots: tuple[SlotSpec, ...], size: float = 1.0) -> PrototypeBank:
    bank = PrototypeBank(slots, GROUPS, 4)
    edits = random_edit(slots, GROUPS, size, seed=9)
    for k in range(GROUPS):
        bank.set_group(k, {name: value[k] for name, value in edits.items()})
    return bank


def materialised(slots: tuple[SlotSpec, ...], edit: Edit, device: int) -> np.ndarray:
    """All that an edit changes, as one vector in double precision."""
    parts = []
    for slot in slots:
        own = {
            x: edit[f"{slot.name}.{x}"][device].detach().double().numpy() for x in slot.tensors()
        }
        if "a" in own:
            own["weight"] = own.pop("b") @ own.pop("a")
        parts += [value.ravel() for value in own.values()]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    "kinds",
    [("dense", "dense"), ("low-rank", "low-rank"), ("affine",), ("low-rank", "affine", "dense")],
    ids=str,
)
def test_a_device_belongs_to_the_prototype_that_its_edit_differs_least_from(kinds):
    slots = slots_of(*kinds)
    bank, edit = bank_of(slots, 0.4), random_edit(slots, DEVICES, 0.4)
    groups = bank.edits()
    distances = np.array(
        [
            [
                np.linalg.norm(materialised(slots, edit, d) - materialised(slots, groups, k))
                for k in range(GROUPS)
            ]
            for d in range(DEVICES)
        ]
    )
    found = bank.assign(edit).numpy()
    np.testing.assert_array_equal(found, distances.argmin(1))
    assert len(set(found)) > 1


def test_what_two_factors_have_in_common_counts_and_not_how_they_are_scaled():
    """(b·2, a/2) is the same change as (b, a), though its factors are far away."""
    slots = slots_of("low-rank")
    bank = PrototypeBank(slots, 2, 4)
    edit = random_edit(slots, 2, 0.3)
    for k in range(2):
        bank.set_group(k, {name: value[k] for name, value in edit.items()})
    rescaled = edit | {"0.a": edit["0.a"] / 2, "0.b": edit["0.b"] * 2}
    assert bank.assign(rescaled).tolist() == [0, 1]


def test_prototype_and_what_is_left_make_the_whole_edit_where_bounds_allow():
    slots = slots_of("dense", "affine")
    bank, edit = bank_of(slots, 0.1), random_edit(slots, DEVICES, 0.1)
    chosen = bank.assign(edit)
    whole = compose(slots, bank.chosen(chosen), bank.relative(edit, chosen))
    for name, value in edit.items():
        torch.testing.assert_close(whole[name], value, rtol=0, atol=1e-6)


def test_what_is_left_is_within_bounds_also_where_the_difference_is_not():
    slots = slots_of("dense", "low-rank", "affine")
    bank, edit = bank_of(slots, 5.0), random_edit(slots, DEVICES, 5.0)
    chosen = torch.arange(DEVICES) % GROUPS
    rest, groups = bank.relative(edit, chosen), bank.edits()
    for slot in slots:
        for suffix, limit in slot.limits().items():
            name = f"{slot.name}.{suffix}"
            difference = edit[name] if suffix == "b" else edit[name] - groups[name][chosen]
            expected = np.clip(difference.detach().numpy(), -limit, limit)
            np.testing.assert_array_equal(rest[name].detach().numpy(), expected)


def test_chosen_group_edits_are_those_of_each_device():
    slots = slots_of("dense", "low-rank")
    bank = bank_of(slots)
    chosen = bank.chosen(torch.tensor([3, 0, 3]))
    for name, value in bank.edits().items():
        assert torch.equal(chosen[name], torch.stack([value[3], value[0], value[3]]))


def test_rounded_group_edits_are_exactly_half_precision_and_within_bounds():
    """Bounds that F16 cannot hold: 0.3 lies between two of its values."""
    slots = tuple(
        replace(s, bound=0.3, bias_bound=1.1) for s in slots_of("dense", "low-rank", "affine")
    )
    bank = bank_of(slots, 2.0)
    before = {name: value.detach().numpy() for name, value in bank.edits().items()}
    bank.round_to_half()
    for slot in slots:
        for suffix, limit in slot.limits().items():
            name = f"{slot.name}.{suffix}"
            value = bank.edits()[name].detach().numpy()
            np.testing.assert_array_equal(value, value.astype(np.float16).astype(np.float32))
            assert np.abs(value).max() <= np.float32(limit)
            step = np.spacing(np.abs(before[name]).astype(np.float16)).astype(np.float32)
            assert (np.abs(value - before[name]) <= step).all(), name
    again = {name: value.detach().clone() for name, value in bank.edits().items()}
    bank.round_to_half()
    assert all(torch.equal(value, again[name]) for name, value in bank.edits().items())


def test_a_trained_bank_ships_as_it_was_evaluated(trained):
    """The encoder of bundles rounds with `quantise`: it finds nothing left to round."""
    for k in range(trained.bank.count):
        group = {n: v[k].detach().numpy() for n, v in trained.bank.edits().items()}
        for name, value in quantise(trained.slots, group).items():
            np.testing.assert_array_equal(value.astype(np.float32), group[name])


@pytest.fixture(scope="module")
def devices(trained, data) -> tuple[DeviceTensors, DeviceTensors]:
    return tuple(
        to_tensors(trained.backbone, trained.slots, trained.observation, data.devices(split, n, 31))
        for split, n in (("adapter", 60), ("validation", 20))
    )


def bank_for(trained, devices, kind: str) -> tuple[Personaliser, PrototypeBank]:
    """Adapter and bank after training, and the bank as clustering alone left it."""
    torch.manual_seed(6)
    config = replace(trained.config.adapter, steps=30)
    slots = tuple(make_slot(trained.backbone, n, kind, rank=2) for n in ("head.0", "head.2"))
    adapter = build_adapter(trained.backbone, slots, trained.observation, config)
    adapter.encoder.calibrate(devices[0].vectors)
    module, _ = edited_part(trained.backbone, slots)
    train_adapter(adapter, module, *devices, config, 0, silent)
    banks = []
    for rate in (0.0, 1e-2):
        bank = PrototypeBank(slots, 3, 2 * config.latent)
        settings = PrototypeConfig(3, steps=20, batch=32, learning_rate=rate)
        train_prototypes(bank, adapter, module, *devices, settings, 0, silent)
        banks.append(bank)
    return Personaliser(adapter, banks[1]).eval(), banks[0]


@pytest.mark.parametrize("kind", ["dense", "low-rank", "affine"])
def test_every_group_edit_is_trained_and_the_shared_factors_stay_the_adapters(
    trained, devices, kind
):
    personaliser, before = bank_for(trained, devices, kind)
    for name, value in personaliser.bank.edits().items():
        for k in range(3):
            moved = (value[k] - before.edits()[name][k]).abs().max()
            assert moved == 0 if name.endswith(".b") else moved > 1e-3, (name, k)
    assert personaliser.bank.centres.any()
    assert torch.equal(personaliser.bank.centres, before.centres)


def test_prototype_and_low_rank_edit_make_the_whole_edit_on_the_device(trained, devices):
    """b·a_k + b·(a − a_k) = b·a, which holds only while all share one b.

    A bias that is further from its group's than its bound stays at the bound.
    """
    personaliser, _ = bank_for(trained, devices, "low-rank")
    personaliser.bank.round_to_half()
    slots = personaliser.adapter.slots
    observations = devices[1].observations
    with torch.no_grad():
        whole, _ = personaliser.adapter(observations)
        made = personaliser(observations)
        change = personaliser.change(made.prototype, made.edit)
        group = personaliser.bank.chosen(made.prototype)
    for slot in slots:
        name, limit = f"{slot.name}.bias", slot.limits()["bias"]
        whole[name] = group[name] + (whole[name] - group[name]).clamp(-limit, limit)
    for d in range(len(observations)):
        expected = materialised(slots, whole, d)
        found = materialised(slots, change, d)
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_group_edits_begin_as_the_mean_of_their_members(trained, devices):
    personaliser, before = bank_for(trained, devices, "dense")
    with torch.no_grad():
        edit, codes = personaliser.adapter(devices[0].observations)
    flat = codes.flatten(1).numpy()
    centres = before.centres.numpy()
    members = ((flat[:, None] - centres) ** 2).sum(2).argmin(1)
    for k in range(3):
        np.testing.assert_allclose(flat[members == k].mean(0), centres[k], atol=1e-4)
        for name, value in before.edits().items():
            mean = edit[name].numpy()[members == k].mean(0)
            np.testing.assert_allclose(value[k].detach().numpy(), mean, atol=1e-5)


def test_more_groups_than_different_devices_leave_the_rest_at_the_base(trained, devices):
    """Two devices, many times over, and three groups: no group may become NaN."""
    train = devices[0].subset(torch.arange(24) % 2)
    module, _ = edited_part(trained.backbone, trained.slots)
    bank = PrototypeBank(trained.slots, 3, trained.bank.centres.shape[1])
    settings = PrototypeConfig(3, steps=4, learning_rate=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_prototypes(bank, trained.adapter, module, train, devices[1], settings, 0, silent)
    assert all(torch.isfinite(value).all() for value in bank.edits().values())
    empty = [k for k in range(3) if not any(v[k].any() for v in bank.edits().values())]
    assert len(empty) == 1


def test_a_personaliser_answers_with_prototype_edit_and_codes(trained, unseen):
    personaliser = Personaliser(trained.adapter, trained.bank).eval()
    with torch.no_grad():
        made = personaliser(unseen.observations)
        whole, codes = trained.adapter(unseen.observations)
    assert torch.equal(made.codes, codes)
    assert torch.equal(made.prototype, trained.bank.assign(whole))
    for slot in trained.slots:
        for suffix, limit in slot.limits().items():
            assert made.edit[f"{slot.name}.{suffix}"].abs().max() <= limit
    change = personaliser.change(made.prototype, made.edit)
    for name, value in whole.items():
        torch.testing.assert_close(change[name], value, rtol=0, atol=1e-5)


def test_the_probe_is_each_devices_answer_to_one_input(trained, unseen):
    personaliser = Personaliser(trained.adapter, trained.bank).eval()
    inputs = trained.backbone.example_inputs(3)
    with torch.no_grad():
        made = personaliser(unseen.observations)
        found = personaliser.probe(trained.backbone, made.prototype, made.edit, inputs)
        change = personaliser.change(made.prototype, made.edit)
        for d in range(len(unseen)):
            one = {name: value[d : d + 1] for name, value in change.items()}
            alone = edited_forward(
                trained.backbone, trained.slots, one, tuple(x[None] for x in inputs)
            )
            torch.testing.assert_close(found[d], alone[0], rtol=1e-5, atol=1e-5)
    assert found.shape == (len(unseen), 1, 10)
