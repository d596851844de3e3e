"""A small convolutional network for small images; the demo's backbone."""

from typing import Any

import torch
from torch import Tensor, nn

from persona.backbones.base import Backbone, InputSpec, backbones
from persona.backbones.convolutional import channel_statistics


class _Trunk(nn.Module):
    """Images [n, channels, size, size] -> features [n, 2 · width] after three convolutions."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.third = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(), nn.Flatten()
        )
        self.project = nn.Linear(2 * width * ((size + 1) // 2) ** 2, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.project(self.third(self.second(self.first(x)))))


@backbones.register("image-net")
class ImageNet(Backbone):
    """Three 3×3 convolutions and two linear layers, for images from 8×8."""

    task = "classification"
    trunk: _Trunk

    def __init__(
        self, channels: int = 1, size: int = 8, classes: int = 10, width: int = 32, hidden: int = 32
    ) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        self.trunk = _Trunk(channels, size, width)
        self.head = nn.Sequential(
            nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("image", "float32", (1, *self.shape)),)

    def features(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Channel means and deviations of the first layers, the trunk's output, and the logits."""
        (image,) = inputs
        first = self.trunk.first(image)
        second = self.trunk.second(first)
        hidden = torch.relu(self.trunk.project(self.trunk.third(second)))
        logits = self.head(hidden)
        statistics = channel_statistics([image, first, second])
        return torch.cat([*statistics, hidden, logits], dim=1), logits.softmax(1)

    def default_slots(self) -> dict[str, dict[str, Any]]:
        return {
            "head.0": {"kind": "dense", "bound": 0.5, "bias_bound": 3.0},
            "head.2": {"kind": "dense", "bound": 0.5, "bias_bound": 3.0},
        }
