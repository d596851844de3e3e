"""MobileNetV3-small is the published one, and smaller images keep a map worth averaging."""

import pytest
import torch
from torch import nn

from persona.backbones.mobilenet_v3_small import MobileNetV3Small


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def multiplications(model: MobileNetV3Small) -> int:
    done = 0

    def tally(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal done
        done += layer.weight[0].numel() * output[0].numel()

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(tally)
    with torch.no_grad():
        model.eval()(*model.example_inputs())
    return done


def last_map(model: MobileNetV3Small) -> tuple[int, ...]:
    seen: list[tuple[int, ...]] = []
    model.trunk.stages[-1].register_forward_hook(lambda _m, _i, y: seen.append(tuple(y.shape[1:])))
    with torch.no_grad():
        model.eval()(*model.example_inputs())
    return seen[0]


def test_its_parameters_are_as_many_as_published():
    # 2.5 M in table 3 of the paper; torchvision counts 2,542,856 in the same layers.
    assert parameters(MobileNetV3Small()) == 2_542_856


def test_with_a_multiplier_below_one_too():
    # Table 3: 2.0 M at 0.75.
    assert round(parameters(MobileNetV3Small(width=0.75)) / 1e6, 1) == 2.0


def test_its_multiplications_are_as_many_as_published():
    # Table 3: 56 M at 224×224.
    assert 56e6 <= multiplications(MobileNetV3Small()) < 57e6


def test_its_maps_are_those_of_table_2():
    model = MobileNetV3Small(classes=10).eval()
    (x,) = model.example_inputs()
    seen = []
    with torch.no_grad():
        for stage in model.trunk.stages:
            x = stage(x)
            seen.append((x.shape[2], x.shape[1]))
    places = [112, 56, 28, 28, *[14] * 5, *[7] * 4]
    channels = [16, 16, 24, 24, 40, 40, 40, 48, 48, 96, 96, 96, 576]
    assert seen == list(zip(places, channels, strict=True))


@pytest.mark.parametrize(
    ("size", "side"), [(32, 4), (33, 5), (63, 8), (64, 4), (96, 6), (127, 8), (128, 4), (160, 5)]
)
def test_smaller_images_keep_a_last_map_of_four_by_four_or_more(size, side):
    model = MobileNetV3Small(size=size, classes=4, width=0.25)
    assert last_map(model)[1:] == (side, side)


def test_images_of_every_size_have_the_same_parameters():
    one, other = (MobileNetV3Small(size=s, classes=4).state_dict() for s in (32, 224))
    assert {n: v.shape for n, v in one.items()} == {n: v.shape for n, v in other.items()}


def test_features_are_176_numbers_for_ten_classes_in_colour():
    model = MobileNetV3Small(size=32, classes=10).eval()
    features, posterior = model.features(*model.example_inputs())
    assert features.shape == (1, 2 * (3 + 16 + 16) + 96 + 10)
    assert posterior.shape == (1, 10)


def test_activations_are_those_of_the_paper():
    model = MobileNetV3Small(classes=4)
    x = torch.linspace(-5, 5, 41)
    swish = model.trunk.stages[0].activation(x)
    torch.testing.assert_close(swish, x * (x + 3).clamp(0, 6) / 6)
    gate = model.trunk.stages[1].layers[1].gate[-1](x)
    torch.testing.assert_close(gate, (x + 3).clamp(0, 6) / 6)


def test_each_bottleneck_activates_and_excites_as_in_table_2():
    def has(kind: type[nn.Module], bottleneck: nn.Module) -> bool:
        return any(isinstance(layer, kind) for layer in bottleneck.modules())

    bottlenecks = MobileNetV3Small(classes=4).trunk.stages[1:-1]
    assert [has(nn.Hardswish, b) for b in bottlenecks] == [False] * 3 + [True] * 8
    assert [has(nn.Hardsigmoid, b) for b in bottlenecks] == [True, False, False] + [True] * 8


def test_residuals_are_where_input_and_output_have_one_shape():
    model = MobileNetV3Small(classes=4)
    bottlenecks = model.trunk.stages[1:-1]
    assert [b.residual for b in bottlenecks] == [
        bool(int(flag))
        for flag in "00101101011"  # table 2: stride 1 and equal channels
    ]
    fifth = bottlenecks[4].eval()
    x = torch.randn(1, 40, 7, 7)
    torch.testing.assert_close(fifth(x) - x, fifth.layers(x))


@pytest.mark.parametrize("size", [31, 225])
def test_sizes_outside_the_range_are_refused(size):
    with pytest.raises(ValueError, match=f"from 32×32 to 224×224, got size = {size}"):
        MobileNetV3Small(size=size)


def test_a_multiplier_of_nothing_is_refused():
    with pytest.raises(ValueError, match="multiplier must be above 0, got width = 0"):
        MobileNetV3Small(width=0)
