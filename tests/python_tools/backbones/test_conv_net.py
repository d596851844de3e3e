"""The small image network: its family of widths, its sizes, and that it learns."""

import pytest
import torch
from torch import nn

from persona.backbones.conv_net import ConvNet


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("width", "size"), [(8, 32), (16, 32), (32, 28)])
def test_parameters_and_multiplications_are_those_of_the_described_layers(width, size):
    w, half, quarter = width, -(-size // 2), -(-size // 4)
    pairs = [(3, w, size), (w, 2 * w, half), (2 * w, 2 * w, half)]
    pairs += [(2 * w, 4 * w, quarter), (4 * w, 4 * w, quarter)]
    model = ConvNet(channels=3, size=size, classes=10, width=w, hidden=64).eval()
    weights = sum(9 * i * o + 2 * o for i, o, _ in pairs) + (4 * w + 1) * 64 + 65 * 10
    assert count(model) == weights
    done = 0

    def tally(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal done
        done += layer.weight[0].numel() * output[0].numel()

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(tally)
    model(*model.example_inputs())
    assert done == sum(9 * i * o * s * s for i, o, s in pairs) + 4 * w * 64 + 640


def test_the_width_of_features_is_as_described():
    for width in (8, 16):
        model = ConvNet(channels=1, size=28, classes=10, width=width).eval()
        features, posterior = model.features(*model.example_inputs())
        assert features.shape == (1, 2 + 10 * width + 10)
        assert posterior.shape == (1, 10)


def test_images_that_are_too_small_are_refused():
    assert ConvNet(size=8).eval()(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
    with pytest.raises(ValueError, match="8×8 or larger, got size = 7"):
        ConvNet(size=7)


def test_it_tells_upright_from_lying_stripes_wherever_they_are():
    torch.manual_seed(0)
    model = ConvNet(channels=1, size=16, classes=2, width=4, hidden=8)
    generator = torch.Generator().manual_seed(1)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 2, (64,), generator=generator)
        phase = 6.28 * torch.rand(64, 1, 1, generator=generator)
        waves = torch.sin(torch.arange(16) * 1.5 + phase).expand(64, 16, 16)
        images = torch.where(labels[:, None, None] == 1, waves, waves.transpose(1, 2))
        noise = 0.5 * torch.randn(64, 16, 16, generator=generator)
        return (images + noise).unsqueeze(1), labels

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        images, labels = batch()
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, labels = batch()
    assert (model.eval()(images).argmax(1) == labels).float().mean() > 0.95
