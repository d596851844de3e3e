"""What holds for every convolutional classifier: its features, its frozen statistics, its slots."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from persona.backbones import backbones
from persona.backbones.convolutional import ConvolutionalClassifier
from persona.method.slots import applied, base_tensors, edited_forward, make_slot

CLASSES = 5
SETTINGS = {
    "conv-net": {"channels": 3, "size": 12, "width": 4, "hidden": 12},
    "sensor-net": {"channels": 6, "length": 32, "width": 4, "hidden": 12},
    "mobilenet-v3-small": {"channels": 3, "size": 32, "width": 0.25},
}
AFFINE = "trunk.stages.1"
"""A module of the second stage of each: its first normalisation is edited."""


@pytest.fixture(params=SETTINGS)
def name(request):
    return request.param


@pytest.fixture
def model(name) -> ConvolutionalClassifier:
    """A model whose normalisation has statistics, as after training."""
    torch.manual_seed(0)
    model = backbones[name](**SETTINGS[name], classes=CLASSES)
    layers = norms(model).values()
    decays = [layer.momentum for layer in layers]
    with torch.no_grad():
        for layer in layers:
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(std=0.2)
            layer.momentum = 1.0
        model.train()(inputs(model, 32, seed=9))
    for layer, decay in zip(layers, decays, strict=True):
        layer.momentum = decay
    return model.eval()


def norms(model: nn.Module) -> dict[str, nn.Module]:
    kinds = nn.BatchNorm1d | nn.BatchNorm2d
    return {name: m for name, m in model.named_modules() if isinstance(m, kinds)}


def inputs(model: ConvolutionalClassifier, count: int, seed: int = 0) -> Tensor:
    (spec,) = model.input_specs()
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *spec.shape[1:], generator=generator)


def test_it_takes_what_it_says_and_gives_a_logit_for_each_class(model):
    (x,) = model.example_inputs()
    assert x.shape == model.input_specs()[0].shape
    assert model(x).shape == (1, CLASSES)


def test_forward_is_head_after_trunk(model):
    x = inputs(model, 3)
    torch.testing.assert_close(model(x), model.head(model.trunk(x)), rtol=0, atol=0)


def test_features_are_statistics_of_what_the_stages_gave(model):
    x = inputs(model, 3)
    seen = [x]
    hooks = [
        stage.register_forward_hook(lambda _m, _i, y: seen.append(y))
        for stage in model.trunk.stages
    ]
    logits = model(x)
    for hook in hooks:
        hook.remove()
    maps = [m.detach().numpy().reshape(3, m.shape[1], -1) for m in seen]
    pooled = maps[-1].mean(2)
    if type(model).__name__ == "MobileNetV3Small":
        pooled = np.stack([pooled[:, i : i + 6].mean(1) for i in range(0, pooled.shape[1], 6)], 1)
    told = [*(m.mean(2) for m in maps[:3]), *(m.std(2) for m in maps[:3]), pooled]
    expected = np.concatenate([*told, logits.detach().numpy()], 1)
    features, posterior = model.features(x)
    np.testing.assert_allclose(features.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features[:, -CLASSES:], logits)
    torch.testing.assert_close(posterior, logits.softmax(1))


def test_a_flat_input_has_finite_features(model):
    features, posterior = model.features(torch.zeros_like(inputs(model, 1)))
    assert features.isfinite().all()
    assert posterior.isfinite().all()


def test_samples_of_a_batch_do_not_see_each_other_and_change_nothing(model):
    state = copy.deepcopy(model.state_dict())
    x = inputs(model, 4)
    alone = torch.cat([model(one[None]) for one in x])
    torch.testing.assert_close(model(x), alone, rtol=1e-4, atol=1e-5)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_every_convolution_has_a_normalisation_and_it_learns_from_batches(model):
    before = {name: layer.running_var.clone() for name, layer in norms(model).items()}
    model.train()(inputs(model, 8) + 1.0)
    assert before
    for name, layer in norms(model).items():
        assert (layer.running_var - before[name]).abs().max() > 0
    biased = {
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv1d | nn.Conv2d) and m.bias is not None
    }
    assert all(".gate." in name for name in biased), "only squeeze-and-excite has plain ones"


def test_gradients_reach_every_parameter(model):
    targets = torch.arange(16) % CLASSES
    nn.functional.cross_entropy(model.train()(inputs(model, 16)), targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_default_slots_are_both_layers_of_the_head(model):
    slots = [make_slot(model, n, **s) for n, s in model.default_slots().items()]
    linear = {n: m for n, m in model.head.named_children() if isinstance(m, nn.Linear)}
    assert [slot.name for slot in slots] == [f"head.{n}" for n in linear]
    assert [(s.out, s.in_) for s in slots] == [tuple(m.weight.shape) for m in linear.values()]
    assert slots[-1].out == CLASSES


def test_an_affine_edit_of_a_normalisation_scales_and_shifts_what_it_gives(model):
    name = next(n for n in norms(model) if n.startswith(AFFINE))
    layer = model.get_submodule(name)
    slot = make_slot(model, name, "affine")
    generator = torch.Generator().manual_seed(1)
    scale, shift = 0.3 * torch.randn(2, slot.out, generator=generator)
    x = inputs(model, 3)
    before = model(x)
    with applied(model, (slot,), {f"{name}.scale": scale, f"{name}.shift": shift}):
        edited = model(x)
    across = (1, -1, *[1] * (x.dim() - 2))
    hook = layer.register_forward_hook(
        lambda _m, _i, y: y * (1 + scale).reshape(across) + shift.reshape(across)
    )
    torch.testing.assert_close(edited, model(x), rtol=1e-4, atol=1e-5)
    hook.remove()
    assert (edited - before).abs().max() > 1e-3
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)


def test_devices_with_their_own_edits_answer_as_one_by_one(model):
    affine = next(n for n in norms(model) if n.startswith(AFFINE))
    slots = (
        make_slot(model, affine, "affine"),
        *(make_slot(model, n, **s) for n, s in model.default_slots().items()),
    )
    generator = torch.Generator().manual_seed(3)
    change = {
        f"{slot.name}.{suffix}": 0.3 * torch.randn(2, *shape, generator=generator)
        for slot in slots
        for suffix, shape in slot.tensors().items()
    }
    assert change.keys() == base_tensors(model, slots).keys()
    x = inputs(model, 6).unflatten(0, (2, 3))
    together = edited_forward(model, slots, change, (x,))
    for device in range(2):
        own = {key: value[device] for key, value in change.items()}
        with applied(model, slots, own):
            torch.testing.assert_close(together[device], model(x[device]), rtol=1e-4, atol=1e-4)


def test_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=r"1 or more, got .*classes = 0"):
        backbones[name](**SETTINGS[name], classes=0)
