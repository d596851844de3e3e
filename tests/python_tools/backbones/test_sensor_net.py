"""The sensor network: its layers, its windows, and that it learns what repeats in time."""

import pytest
import torch
from torch import nn

from persona.backbones.sensor_net import SensorNet


@pytest.mark.parametrize("width", [8, 16])
def test_parameters_are_those_of_the_described_layers(width):
    w = width
    convolutions = [(6, w, 9), (w, 2 * w, 5), (2 * w, 4 * w, 5), (4 * w, 4 * w, 3)]
    expected = sum(k * i * o + 2 * o for i, o, k in convolutions) + (4 * w + 1) * 32 + 33 * 6
    assert sum(p.numel() for p in SensorNet(width=w).parameters()) == expected


def test_stages_halve_time_thrice():
    model = SensorNet(channels=6, length=128, width=8).eval()
    x, lengths = torch.randn(1, 6, 128), []
    for stage in model.trunk.stages:
        x = stage(x)
        lengths.append(x.shape[2])
    assert lengths == [64, 32, 16, 16]


def test_the_width_of_features_is_as_described():
    model = SensorNet(channels=6, length=128, classes=6, width=16).eval()
    features, posterior = model.features(*model.example_inputs())
    assert features.shape == (1, 2 * 6 + 10 * 16 + 6)
    assert posterior.shape == (1, 6)


def test_windows_that_are_too_short_are_refused():
    assert SensorNet(length=16).eval()(torch.zeros(1, 6, 16)).shape == (1, 6)
    with pytest.raises(ValueError, match="16 samples or more, got length = 15"):
        SensorNet(length=15)


def test_it_tells_slow_from_fast_motion_at_any_phase():
    torch.manual_seed(0)
    model = SensorNet(channels=3, length=64, classes=2, width=4, hidden=8)
    generator = torch.Generator().manual_seed(1)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 2, (64,), generator=generator)
        phase = 6.28 * torch.rand(64, 3, 1, generator=generator)
        pace = (0.4 + 0.3 * labels)[:, None, None]
        waves = torch.sin(torch.arange(64) * pace + phase)
        return waves + 0.3 * torch.randn(64, 3, 64, generator=generator), labels

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        windows, labels = batch()
        loss = nn.functional.cross_entropy(model(windows), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    windows, labels = batch()
    assert (model.eval()(windows).argmax(1) == labels).float().mean() > 0.95
