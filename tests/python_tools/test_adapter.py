"""The adapter: all of it is trained, devices differ, and codes depend on what they should."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor, nn

from persona.backbones import Backbone
from persona.backbones.sasrec import SASRec
from persona.formats.observation import ItemsSpec, ObservationSpec
from persona.formats.slots import SlotSpec
from persona.method.adapter import CrossLayerTransfer, PriorSeed, SlotGenerator
from persona.method.encoders import PooledEncoder
from persona.method.slots import make_slot
from persona.training.config import AdapterConfig
from persona.training.devices import DeviceTensors, edited_part, losses, to_tensors
from persona.training.pipeline import Trained, build_adapter
from persona.training.stages import train_adapter

SIZES = AdapterConfig(latent=6, hidden=16, dropout=0.0, steps=6, batch=16, weight_decay=0.0)
LATENT = SIZES.latent


def image_slots(backbone: Backbone, kind: str) -> tuple[SlotSpec, ...]:
    return tuple(make_slot(backbone, name, kind, rank=2) for name in ("head.0", "head.2"))


@pytest.fixture(scope="module")
def image_devices(trained: Trained, data) -> DeviceTensors:
    devices = data.devices("adapter", 32, 77)
    return to_tensors(trained.backbone, trained.slots, trained.observation, devices)


def ranking_devices(backbone: SASRec, count: int = 24) -> tuple[ObservationSpec, DeviceTensors]:
    generator = torch.Generator().manual_seed(2)

    def items(*shape: int) -> Tensor:
        return torch.randint(1, 31, shape, generator=generator)

    histories = items(count, 8)
    histories[: count // 2, :5] = 0
    with torch.no_grad():
        hidden = backbone.trunk(items(count * 4, 6), items(count * 4, 10))
    return ItemsSpec("items", 30, 1, 8), DeviceTensors(
        observations=histories,
        vectors=torch.zeros(count, 31),
        hidden=tuple(h.unflatten(0, (count, 4)) for h in hidden),
        targets=torch.randint(0, 10, (count, 4), generator=generator),
    )


@pytest.fixture(params=["pooled", "items"])
def situation(request, trained: Trained, image_devices):
    """Backbone, linear layers to edit, observation and devices for each sort of encoder."""
    if request.param == "pooled":
        return trained.backbone, ("head.0", "head.2"), trained.observation, image_devices
    torch.manual_seed(1)
    backbone = SASRec(30, length=6, dim=8).eval().requires_grad_(False)
    linear = tuple(backbone.default_slots()) * 2
    return backbone, linear[:2], *ranking_devices(backbone)


@pytest.mark.parametrize("cross_layer", [True, False], ids=["cross-layer", "independent"])
@pytest.mark.parametrize("kind", ["dense", "low-rank", "affine"])
def test_every_tensor_of_the_adapter_is_trained(situation, kind, cross_layer):
    backbone, names, spec, devices = situation
    slots = tuple(make_slot(backbone, n, kind, rank=2) for n in dict.fromkeys(names))
    config = replace(SIZES, cross_layer=cross_layer)
    torch.manual_seed(3)
    adapter = build_adapter(backbone, slots, spec, config)
    if isinstance(adapter.encoder, PooledEncoder):
        adapter.encoder.calibrate(devices.vectors)
    before = {name: value.detach().clone() for name, value in adapter.named_parameters()}
    parts = {name.partition(".")[0] for name in before}
    assert parts >= {"encoder", "transfer", "generators"}
    assert ("transfer.cell.weight_hh" in before) == cross_layer
    module, _ = edited_part(backbone, slots)
    frozen = {name: value.clone() for name, value in backbone.state_dict().items()}
    train_adapter(adapter, module, devices, devices, config, 0, lambda _done, _all: None)

    still = [n for n, v in adapter.named_parameters() if torch.equal(v, before[n])]
    assert not still, f"{still} did not move"
    unmoved = [n for n, v in adapter.named_parameters() if v.grad is None or not v.grad.any()]
    assert not unmoved, f"{unmoved} have no gradient"
    assert all(torch.equal(value, frozen[n]) for n, value in backbone.state_dict().items())
    assert not any(value.requires_grad for value in backbone.parameters())


def test_no_tensor_hides_from_the_optimiser(trained: Trained):
    """Everything that the forward pass reads is a parameter or a buffer of the module."""
    adapter = trained.adapter
    known = {id(t) for t in (*adapter.parameters(), *adapter.buffers())}
    for module in adapter.modules():
        found = [value for value in vars(module).values() if isinstance(value, list | tuple | dict)]
        inside = [x for f in found for x in (f.values() if isinstance(f, dict) else f)]
        assert all(id(x) in known for x in inside if isinstance(x, Tensor))
        hidden = [x for x in inside if isinstance(x, nn.Module) and x not in module.children()]
        assert not hidden


def test_each_slot_has_a_generator_and_code_network_of_its_own(trained: Trained):
    adapter = trained.adapter
    count = len(trained.slots)
    for modules in (adapter.generators, adapter.transfer.codes, adapter.transfer.norms):
        assert len({id(m) for m in modules}) == count


def test_edits_differ_between_devices_after_training(trained: Trained, unseen):
    """Collapse to one edit for all is the trap of this method."""
    with torch.no_grad():
        edit, codes = trained.adapter(unseen.observations)
    assert codes.std(0).mean() > 0.1
    flat = torch.cat([value.flatten(1) for value in edit.values()], 1)
    assert flat.std(0).square().mean().sqrt() > 0.1 * flat.square().mean().sqrt()
    assert torch.pdist(flat).min() > 1e-3


def test_the_edit_of_a_device_is_its_own_in_any_order_and_company(trained: Trained, unseen):
    order = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        edit, codes = trained.adapter(unseen.observations)
        shuffled, shuffled_codes = trained.adapter(unseen.observations[order])
        alone, _ = trained.adapter(unseen.observations[:1])
    torch.testing.assert_close(shuffled_codes, codes[order])
    for name, value in edit.items():
        torch.testing.assert_close(shuffled[name], value[order], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(alone[name], value[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "low-rank", "affine"])
def test_no_edit_leaves_its_bounds(trained: Trained, unseen, kind):
    slots = image_slots(trained.backbone, kind)
    config = replace(SIZES, output_std=20.0)
    adapter = build_adapter(trained.backbone, slots, trained.observation, config).eval()
    edit, _ = adapter(unseen.observations)
    assert set(edit) == {f"{s.name}.{x}" for s in slots for x in s.tensors()}
    for slot in slots:
        for suffix, shape in slot.tensors().items():
            value = edit[f"{slot.name}.{suffix}"]
            assert value.shape == (len(unseen), *shape)
            assert value.abs().max() <= slot.limits()[suffix]
        if kind == "low-rank":
            product = edit[f"{slot.name}.b"].double() @ edit[f"{slot.name}.a"].double()
            assert product.abs().max() <= slot.bound * (1 + 2**-23)


def test_a_new_adapter_begins_with_small_edits_that_differ(trained: Trained, unseen):
    config = replace(SIZES, prior_seed=False)
    adapter = build_adapter(trained.backbone, trained.slots, trained.observation, config).eval()
    edit, _ = adapter(unseen.observations)
    for value in edit.values():
        assert 0 < value.abs().max() < 0.15
        assert value.std(0).max() > 0


def test_a_low_rank_slot_has_one_factor_for_all_devices_and_one_for_each(trained, unseen):
    slots = image_slots(trained.backbone, "low-rank")
    adapter = build_adapter(trained.backbone, slots, trained.observation, SIZES).eval()
    edit, _ = adapter(unseen.observations)
    assert torch.equal(edit["head.0.b"], edit["head.0.b"][:1].expand_as(edit["head.0.b"]))
    assert edit["head.0.a"].std(0).min() > 0


@pytest.fixture
def transfers() -> dict[bool, CrossLayerTransfer]:
    """With and without knowledge transfer, normalised as after some training."""
    torch.manual_seed(5)
    found = {on: CrossLayerTransfer(3, LATENT, enabled=on) for on in (True, False)}
    for transfer in found.values():
        for _ in range(10):
            transfer(torch.randn(20, LATENT))
        transfer.eval()
    return found


def test_codes_follow_the_papers_recurrence(transfers):
    """h_l = GRU(z₀, h_{l−1}), z_l = tanh(MLP_l(h_l)), with the gates written out in NumPy."""
    transfer = transfers[True]
    z0 = torch.randn(4, LATENT)
    p = {n: v.detach().double().numpy() for n, v in transfer.cell.named_parameters()}

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    x, h = z0.double().numpy(), np.zeros((4, LATENT))
    for index, code in enumerate(transfer.codes):
        own = np.split(x @ p["weight_ih"].T + p["bias_ih"], 3, 1)
        past = np.split(h @ p["weight_hh"].T + p["bias_hh"], 3, 1)
        reset, update = sigmoid(own[0] + past[0]), sigmoid(own[1] + past[1])
        h = (1 - update) * np.tanh(own[2] + reset * past[2]) + update * h
        norm = transfer.norms[index]
        scaled = (h - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + norm.eps)
        expected = np.tanh(code.double()(torch.from_numpy(scaled)).detach().numpy())
        code.float()
        np.testing.assert_allclose(transfer(z0)[:, index].detach(), expected, atol=1e-5)


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_a_code_knows_the_hidden_codes_before_it_and_none_after(transfers, slot):
    """Blocking one step of the recurrence changes the codes from there on."""
    transfer = transfers[True]
    z0 = torch.randn(3, LATENT)
    codes, calls = transfer(z0), []

    def block(_module, _inputs, output: Tensor) -> Tensor:
        calls.append(None)
        return torch.zeros_like(output) if len(calls) == slot + 1 else output

    with transfer.cell.register_forward_hook(block):
        blocked = transfer(z0)
    for index in range(3):
        assert torch.equal(blocked[:, index], codes[:, index]) == (index < slot)


def test_without_transfer_a_code_depends_on_the_window_code_alone(transfers):
    """Gradients: only z₀, and only the slot's own network, has a part in a slot's code."""
    transfer = transfers[False]
    assert transfer.cell is None
    z0 = torch.randn(3, LATENT, requires_grad=True)
    for index in range(3):
        transfer.zero_grad()
        z0.grad = None
        transfer(z0)[:, index].square().sum().backward()
        assert z0.grad.abs().sum(1).min() > 0
        reached = {n.split(".")[1] for n, p in transfer.named_parameters() if p.grad.any()}
        assert reached == {str(index)}


def test_without_transfer_slots_of_equal_networks_have_equal_codes(transfers):
    for on, transfer in transfers.items():
        for part in (transfer.codes, transfer.norms):
            for other in part[1:]:
                other.load_state_dict(part[0].state_dict())
        codes = transfer(torch.randn(3, LATENT))
        assert torch.equal(codes[:, 0], codes[:, 2]) == (not on)


def test_prior_correction_adds_half_the_log_ratio_at_first_and_its_share_is_learned():
    mass = (0.5, 0.3, 0.2)
    seed = PriorSeed("head.bias", slice(2, 5), mass)
    vectors = torch.tensor([[9.0, 9.0, 0.2, 0.3, 0.5, 9.0], [9.0, 9.0, 0.0, 0.9, 0.1, 9.0]])
    raw = {"head.bias": torch.ones(2, 3)}
    seed(vectors, raw)
    prior = np.maximum(vectors[:, 2:5].numpy(), 1e-4)
    expected = 1 + 0.5 * np.log(prior / np.array(mass))
    np.testing.assert_allclose(raw["head.bias"].detach(), expected, rtol=1e-5)
    raw["head.bias"].sum().backward()
    assert seed.gate.grad is not None
    assert seed.gate.grad != 0


def test_the_prior_is_read_where_the_observation_holds_it(trained: Trained):
    """The columns of the vector are those of `class_prior`."""
    spec = trained.observation
    prior = trained.adapter.prior
    assert prior is not None
    vector = np.arange(spec.width)
    names = np.split(vector, np.cumsum([spec.features, spec.features, spec.classes, spec.classes]))
    np.testing.assert_array_equal(vector[prior.columns], names[3])
    np.testing.assert_allclose(prior.log_trained.exp(), spec.training_mass, rtol=1e-5)
    assert prior.bias_name == "head.2.bias"


def test_there_is_no_prior_correction_where_it_cannot_be_or_is_switched_off(trained: Trained):
    def prior(slots: tuple[SlotSpec, ...], on: bool = True) -> PriorSeed | None:
        config = replace(SIZES, prior_seed=on)
        return build_adapter(trained.backbone, slots, trained.observation, config).prior

    slots = trained.slots
    assert prior(slots) is not None
    assert prior(slots, on=False) is None
    assert prior(slots[:1]) is None, "the slot has no bias for every class"
    affine = make_slot(trained.backbone, "head.2", "affine")
    assert prior((affine,)).bias_name == "head.2.shift"
    without_bias = replace(slots[-1], bias=False, bias_bound=0.0)
    assert prior((without_bias,)) is None


def test_a_generators_tensors_have_the_shapes_of_the_slot(trained: Trained):
    slot = make_slot(trained.backbone, "head.0", "low-rank", rank=3)
    raw = SlotGenerator(slot, LATENT, 0.01)(torch.randn(5, LATENT))
    assert {x: tuple(v.shape[1:]) for x, v in raw.items()} == slot.tensors()
    assert len(raw["a"]) == len(raw["b"]) == 5


def test_edits_help_devices_that_training_never_saw(trained: Trained, data):
    """With habits to learn from 20 samples, an edit lowers the loss; another device's raises it."""
    devices = data.devices("test", 100, 9)
    tensors = to_tensors(trained.backbone, trained.slots, trained.observation, devices)
    module, _ = edited_part(trained.backbone, trained.slots)
    with torch.no_grad():
        edit, _ = trained.adapter(tensors.observations)
        nothing = {name: torch.zeros_like(value) for name, value in edit.items()}
        static, own, other = (
            losses(module, trained.slots, change, tensors)
            for change in (nothing, edit, {n: v.roll(1, 0) for n, v in edit.items()})
        )
    gain = static - own
    assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5
    assert other.mean() > static.mean()


# -- The equations once more, written out with NumPy for one device after the other


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return x * (1 + special.erf(x / np.sqrt(2))) / 2


def affine(state, name: str, x):
    return state[f"{name}.weight"] @ x + state.get(f"{name}.bias", 0.0)


def normal(state, name: str, x):
    """Batch normalisation without an affine part, as it runs after training."""
    return (x - state[f"{name}.running_mean"]) / np.sqrt(state[f"{name}.running_var"] + 1e-5)


def gru_step(state, name: str, x, h):
    """Cho et al. (2014), with the gates in PyTorch's order: reset, update, new."""
    from_x = np.split(state[f"{name}.weight_ih"] @ x + state[f"{name}.bias_ih"], 3)
    from_h = np.split(state[f"{name}.weight_hh"] @ h + state[f"{name}.bias_hh"], 3)
    reset, update = (sigmoid(from_x[i] + from_h[i]) for i in range(2))
    new = np.tanh(from_x[2] + reset * from_h[2])
    return (1 - update) * new + update * h


def written_out(trained: Trained, vector: np.ndarray) -> dict[str, np.ndarray]:
    """The whole edit of one device from its pooled observation."""
    state = {n: v.double().numpy() for n, v in trained.adapter.state_dict().items()}
    spec = trained.observation
    x = np.clip((vector - state["encoder.mean"]) / state["encoder.deviation"], -6, 6)
    hidden = gelu(affine(state, "encoder.net.0", x))
    z0 = normal(state, "encoder.net.4", affine(state, "encoder.net.3", hidden))
    strength = sigmoid(affine(state, "strength.net.2", gelu(affine(state, "strength.net.0", z0))))[
        0
    ]
    edit, h = {}, np.zeros_like(z0)
    for i, slot in enumerate(trained.slots):
        h = gru_step(state, "transfer.cell", z0, h)
        code = affine(state, f"transfer.codes.{i}.0", normal(state, f"transfer.norms.{i}", h))
        z = np.tanh(affine(state, f"transfer.codes.{i}.2", gelu(code)))
        for suffix, shape in slot.tensors().items():
            made = affine(state, f"generators.{i}.heads.{suffix}", z).reshape(shape)
            edit[f"{slot.name}.{suffix}"] = made
    prior = np.maximum(vector[spec.prior_columns], 1e-4)
    last = f"{trained.slots[-1].name}.bias"
    edit[last] = edit[last] + sigmoid(state["prior.gate"]) * np.log(
        prior / np.array(spec.training_mass)
    )
    limits = {f"{s.name}.{x}": limit for s in trained.slots for x, limit in s.limits().items()}
    return {n: np.clip(strength * v, -limits[n], limits[n]) for n, v in edit.items()}


def test_an_edit_is_what_the_equations_written_out_give(trained: Trained, unseen):
    with torch.no_grad():
        edits, _ = trained.adapter.eval()(unseen.observations)
    for device, vector in enumerate(unseen.observations.double().numpy()):
        for name, expected in written_out(trained, vector).items():
            np.testing.assert_allclose(edits[name][device], expected, rtol=1e-3, atol=2e-5)
