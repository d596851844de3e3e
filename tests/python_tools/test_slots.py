"""Slots on any module by name: edits do what they say, and taking them away leaves no trace."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from persona.formats import slots as wire
from persona.formats.slots import SlotKind, SlotSpec
from persona.method.slots import (
    Edit,
    SlotError,
    applied,
    base_tensors,
    clip,
    compose,
    edited_forward,
    effective_parameters,
    make_slot,
)


class Mixed(nn.Module):
    """One layer of each sort that a slot may sit on, with statistics as after training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3)
        self.batch = nn.BatchNorm2d(6)
        self.layer = nn.LayerNorm(6)
        self.first = nn.Linear(6, 8)
        self.last = nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.tanh(self.batch(self.conv(x))).mean((2, 3))
        return self.last(torch.tanh(self.first(self.layer(pooled))))


@pytest.fixture
def model() -> Mixed:
    torch.manual_seed(0)
    model = Mixed()
    with torch.no_grad():
        for tensor in (*model.parameters(), model.batch.running_mean):
            tensor.add_(0.3 * torch.randn_like(tensor))
    return model.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(3))


PLACES = {
    "dense on Linear": ("first", "dense"),
    "dense without bias": ("last", "dense"),
    "low-rank on Linear": ("first", "low-rank"),
    "low-rank without bias": ("last", "low-rank"),
    "affine on Linear": ("first", "affine"),
    "affine on Conv2d": ("conv", "affine"),
    "affine on BatchNorm2d": ("batch", "affine"),
    "affine on LayerNorm": ("layer", "affine"),
}
place = pytest.mark.parametrize(("name", "kind"), PLACES.values(), ids=PLACES)
EACH_KIND = (("conv", "affine"), ("layer", "affine"), ("first", "low-rank"), ("last", "dense"))


def all_kinds(model: nn.Module) -> tuple[SlotSpec, ...]:
    return tuple(make_slot(model, name, kind, rank=2) for name, kind in EACH_KIND)


def random_edit(slots: tuple[SlotSpec, ...], *axes: int, seed: int = 0) -> Edit:
    """Values all over the allowed range."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{s.name}.{x}": s.limits()[x] * (2 * torch.rand(*axes, *shape, generator=generator) - 1)
        for s in slots
        for x, shape in s.tensors().items()
    }


def zeros(slots: tuple[SlotSpec, ...]) -> Edit:
    return {name: torch.from_numpy(value) for name, value in wire.zero_edit(slots).items()}


def edited_by_hand(model: nn.Module, slots: tuple[SlotSpec, ...], edit: Edit) -> nn.Module:
    """A copy whose parameters are written value by value from the definition."""
    model = copy.deepcopy(model)
    for slot in slots:
        layer = model.get_submodule(slot.name)
        values = {x: edit[f"{slot.name}.{x}"].double().numpy() for x in slot.tensors()}
        weight = layer.weight.detach().double().numpy().copy()
        bias = None if layer.bias is None else layer.bias.detach().double().numpy().copy()
        for row in range(slot.out):
            if slot.kind is SlotKind.DENSE:
                weight[row] += values["weight"][row]
            elif slot.kind is SlotKind.LOW_RANK:
                for r in range(values["a"].shape[0]):
                    weight[row] += values["b"][row, r] * values["a"][r]
            else:
                weight[row] *= 1 + values["scale"][row]
                bias[row] = bias[row] * (1 + values["scale"][row]) + values["shift"][row]
            if "bias" in values:
                bias[row] += values["bias"][row]
        layer.weight.data = torch.from_numpy(weight).float()
        if bias is not None:
            layer.bias.data = torch.from_numpy(bias).float()
    return model


@place
def test_a_slot_is_described_from_the_layer_of_that_name(model, name, kind):
    slot = make_slot(model, name, kind, rank=2, bound=0.25, bias_bound=1.5)
    layer = model.get_submodule(name)
    assert (slot.name, slot.kind, slot.out) == (name, kind, layer.weight.shape[0])
    assert slot.in_ == (0 if kind == "affine" else layer.weight.shape[1])
    assert slot.rank == (2 if kind == "low-rank" else 0)
    assert slot.bias == (kind != "affine" and layer.bias is not None)
    assert slot.bound == 0.25
    assert slot.bias_bound == (0.0 if layer.bias is None else 1.5)


@pytest.mark.parametrize("kind", ["dense", "low-rank"])
def test_an_unknown_name_is_answered_with_the_names_that_fit(model, kind):
    with pytest.raises(SlotError, match=rf"'head'; layers for {kind} slots are: first, last$"):
        make_slot(model, "head", kind)


def test_an_affine_slot_may_sit_on_every_layer_with_weight_and_bias(model):
    with pytest.raises(SlotError, match=r"affine slots are: conv, batch, layer, first$"):
        make_slot(model, "head", "affine")
    with pytest.raises(SlotError, match=r"affine slots are: none$"):
        make_slot(nn.Sequential(nn.ReLU()), "head", "affine")


@pytest.mark.parametrize("kind", ["dense", "low-rank"])
def test_only_a_linear_layer_takes_whole_or_low_rank_changes(model, kind):
    with pytest.raises(SlotError, match=rf"{kind} slot 'conv' needs nn.Linear, got Conv2d.*affine"):
        make_slot(model, "conv", kind)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(3, 3, bias=False),
        nn.BatchNorm1d(3, affine=False),
        nn.ReLU(),
        nn.LayerNorm((3, 3)),
        nn.ConvTranspose2d(3, 3, 2),
        nn.ConvTranspose2d(3, 4, 2),
        nn.Embedding(3, 3),
    ],
    ids=str,
)
def test_a_layer_whose_rows_are_no_channels_cannot_be_affine(layer):
    with pytest.raises(SlotError, match="affine slot '0' needs a layer with weight and bias"):
        make_slot(nn.Sequential(layer), "0", "affine")


@pytest.mark.parametrize(
    "numbers", [{"rank": 0}, {"bound": 0.0}, {"bound": -0.5}, {"bias_bound": -1.0}], ids=str
)
def test_numbers_that_no_bundle_can_hold_are_refused_at_once(model, numbers):
    with pytest.raises(SlotError, match=r"slot 'first': bound must be above 0.*got"):
        make_slot(model, "first", "low-rank", **numbers)


@pytest.mark.parametrize("kind", ["dense", "low-rank", "affine"])
def test_a_layer_that_shares_its_parameters_cannot_be_a_slot(model, kind):
    model.again = model.first
    model.tied = nn.Linear(8, 5, bias=False)
    model.tied.weight = model.last.weight
    for name, other in {"first": "again", "again": "first"}.items():
        with pytest.raises(SlotError, match=f"'{name}' shares its parameters with '{other}'"):
            make_slot(model, name, kind)
    if kind != "affine":
        with pytest.raises(SlotError, match="'last' shares its parameters with 'tied'"):
            make_slot(model, "last", kind)
    assert make_slot(model, "layer", "affine").out == 6


@place
def test_an_edit_of_zeros_leaves_the_output_bit_equal(model, x, name, kind):
    slots = (make_slot(model, name, kind),)
    base = model(x)
    with applied(model, slots, zeros(slots)):
        assert torch.equal(model(x), base)
    with applied(model, slots, compose(slots, zeros(slots), zeros(slots))):
        assert torch.equal(model(x), base)


@place
def test_an_applied_edit_is_the_change_written_out_by_hand(model, x, name, kind):
    slots = (make_slot(model, name, kind, rank=2),)
    edit = random_edit(slots)
    expected = edited_by_hand(model, slots, edit)(x)
    base = model(x)
    with applied(model, slots, edit) as same, torch.no_grad():
        assert same is model
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
        assert (model(x) - base).abs().max() > 1e-2


@place
@pytest.mark.parametrize("trouble", [None, RuntimeError, KeyboardInterrupt])
def test_leaving_restores_the_base_bit_for_bit_also_when_the_block_raises(
    model, x, name, kind, trouble
):
    slots = (make_slot(model, name, kind),)
    state, base = copy.deepcopy(model.state_dict()), model(x)

    def use() -> None:
        with applied(model, slots, random_edit(slots)):
            assert not torch.equal(model(x), base)
            if trouble is not None:
                raise trouble

    if trouble is None:
        use()
    else:
        with pytest.raises(trouble):
            use()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(x), base)


def test_an_edit_that_does_not_fit_leaves_the_base_as_it_was(model):
    slots = all_kinds(model)
    edit = random_edit(slots) | {"last.weight": torch.ones(3, 5, 8)}
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError), applied(model, slots, edit):
        pass
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_gradients_still_reach_the_module_after_an_edit(model, x):
    slots = all_kinds(model)
    with applied(model, slots, random_edit(slots)):
        pass
    model(x).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("devices", [1, 5])
def test_many_devices_at_once_equal_a_loop_of_modules_edited_by_hand(model, devices):
    slots = all_kinds(model)
    edit = random_edit(slots, devices)
    inputs = torch.randn(devices, 3, 2, 6, 6)
    together = edited_forward(model, slots, edit, (inputs,))
    assert together.shape == (devices, 3, 5)
    for d in range(devices):
        own = edited_by_hand(model, slots, {name: value[d] for name, value in edit.items()})
        torch.testing.assert_close(together[d], own(inputs[d]), rtol=1e-5, atol=1e-5)


def test_the_loss_of_many_devices_has_the_gradient_of_each_alone(model):
    """Central differences in double precision, one value of each tensor."""
    model = model.double()
    slots = all_kinds(model)
    edit = {n: v.double().requires_grad_() for n, v in random_edit(slots, 2).items()}
    inputs = (torch.randn(2, 3, 2, 6, 6, dtype=torch.float64),)

    def loss(change: Edit) -> Tensor:
        return edited_forward(model, slots, change, inputs).square().sum()

    model.requires_grad_(False)
    loss(edit).backward()
    for name, value in edit.items():
        step = torch.zeros_like(value).flatten()
        step[-1] = 1e-6
        plain = {n: v.detach() for n, v in edit.items()}
        up = loss(plain | {name: plain[name] + step.view_as(value)})
        down = loss(plain | {name: plain[name] - step.view_as(value)})
        slope = (up - down).item() / 2e-6
        assert value.grad.flatten()[-1].item() == pytest.approx(slope, rel=1e-4, abs=1e-6), name


def as_arrays(edit: Edit) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in edit.items()}


def test_a_sum_of_edits_is_the_sum_that_devices_make(model):
    slots = all_kinds(model)
    prototype, edit = random_edit(slots, seed=1), random_edit(slots, seed=2)
    expected = wire.sum_changes(slots, as_arrays(prototype), as_arrays(edit))
    found = compose(slots, prototype, edit)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), value)


def test_a_sum_of_edits_is_made_device_by_device(model):
    slots = all_kinds(model)
    one, other = random_edit(slots, 3, seed=1), random_edit(slots, 3, seed=2)
    together = compose(slots, one, other)
    for d in range(3):
        alone = compose(
            slots, {n: v[d] for n, v in one.items()}, {n: v[d] for n, v in other.items()}
        )
        assert all(torch.equal(together[n][d], v) for n, v in alone.items())


def test_effective_parameters_are_those_that_devices_compute(model):
    """`persona.formats.slots.effective` is what phones run: NumPy, without torch."""
    slots = all_kinds(model)
    prototype, edit = random_edit(slots, seed=1), random_edit(slots, seed=2)
    held = wire.effective(
        slots, as_arrays(base_tensors(model, slots)), as_arrays(prototype), as_arrays(edit)
    )
    found = effective_parameters(model, slots, compose(slots, prototype, edit))
    base = {name: value.detach().numpy() for name, value in model.named_parameters()}
    expected = {
        "conv.weight": base["conv.weight"] * held["conv.scale"][:, None, None, None],
        "conv.bias": base["conv.bias"] * held["conv.scale"] + held["conv.shift"],
        "layer.weight": base["layer.weight"] * held["layer.scale"],
        "layer.bias": base["layer.bias"] * held["layer.scale"] + held["layer.shift"],
        "first.weight": base["first.weight"] + held["first.b"] @ held["first.a"],
        "first.bias": held["first.bias"],
        "last.weight": held["last.weight"],
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].detach().numpy(), value, rtol=1e-6, atol=1e-6)


def test_clipping_is_numpys_to_the_bound_of_each_tensor(model):
    slots = all_kinds(model)
    edit = {name: 3 * value for name, value in random_edit(slots).items()}
    found = clip(slots, edit)
    for slot in slots:
        for suffix, limit in slot.limits().items():
            name = f"{slot.name}.{suffix}"
            np.testing.assert_array_equal(found[name], np.clip(edit[name].numpy(), -limit, limit))
            assert found[name].abs().max() == np.float32(limit)


@settings(max_examples=60, deadline=None)
@given(
    rank=st.integers(1, 7),
    bound=st.floats(1e-3, 10),
    size=st.floats(0, 100),
    seed=st.integers(0, 99),
)
def test_no_low_rank_change_exceeds_its_bound(rank, bound, size, seed):
    slot = SlotSpec("slot", SlotKind.LOW_RANK, 4, 3, rank, False, bound, 0.0)
    generator = torch.Generator().manual_seed(seed)
    raw = {
        f"slot.{x}": size * torch.randn(shape, generator=generator)
        for x, shape in slot.tensors().items()
    }
    found = {name: value.double() for name, value in clip((slot,), raw).items()}
    largest = (found["slot.b"] @ found["slot.a"]).abs().max().item()
    assert largest <= bound * (1 + 2**-23)


def test_what_a_program_holds_before_any_edit_is_the_base(model):
    slots = all_kinds(model)
    base = base_tensors(model, slots)
    assert {n: tuple(v.shape) for n, v in base.items()} == {
        f"{s.name}.{x}": shape for s in slots for x, shape in s.feeds().items()
    }
    assert torch.equal(base["last.weight"], model.last.weight)
    assert torch.equal(base["first.bias"], model.first.bias)
    assert torch.equal(base["conv.scale"], torch.ones(6))
    assert not any(base[name].any() for name in ("first.a", "first.b", "conv.shift"))
    base["last.weight"].zero_()
    assert model.last.weight.any(), "the tensors are copies"
