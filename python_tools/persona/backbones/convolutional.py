"""What convolutional classifiers share: stages, their mean over places, and two linear layers.

    logits = W₂ σ(W₁ p + b₁) + b₂,   p = mean over places of x_S,   x_s = stage_s(x_{s−1})

x₀ is the input. A device pools the means and deviations of x₀ and the first stages, p, and the
logits. The two linear layers are the slots.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from persona.backbones.base import Backbone

OBSERVED_STAGES = 2
"""Means and deviations are told of the input and of the outputs of as many stages."""


def channel_statistics(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps [n, c, *places] -> the means [n, c] of all, then the deviations [n, c] of all."""
    means = [_mean_over_places(m) for m in maps]
    deviations = [
        _mean_over_places((m - mean) ** 2).sqrt() for m, mean in zip(maps, means, strict=True)
    ]
    return [statistic.flatten(1) for statistic in (*means, *deviations)]


def _mean_over_places(x: Tensor) -> Tensor:
    """[n, c, *places] -> [n, c, 1, …]; the places stay axes, for XNNPACK in 8 bits mixes channels
    up where they are flattened into one.
    """
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


class StagedTrunk(nn.Module):
    """Inputs [n, channels, *places] -> the mean of the last stage's output over places [n, c].

    pool: the mean over places [n, c, 1, …], an `nn.AdaptiveAvgPool` of 1 for that many axes.
    """

    def __init__(self, stages: Iterable[nn.Module], pool: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.pool = pool

    def first_maps(self, x: Tensor) -> list[Tensor]:
        """The outputs of the first stages [n, c, *places]."""
        maps = []
        for stage in self.stages[:OBSERVED_STAGES]:
            x = stage(x)
            maps.append(x)
        return maps

    def pooled(self, x: Tensor) -> Tensor:
        """The output of the first stages -> the mean of the last one's output over places."""
        for stage in self.stages[OBSERVED_STAGES:]:
            x = stage(x)
        pooled: Tensor = self.pool(x).flatten(1)
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(self.first_maps(x)[-1])


class ConvolutionalClassifier(Backbone):
    """A trunk of stages, and a head of two linear layers in an `nn.Sequential`."""

    task = "classification"
    trunk: StagedTrunk
    head: nn.Sequential

    def features(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Statistics of the input and the first stages, a summary of the trunk's output, logits.

        The posterior is softmax(logits).
        """
        (x,) = inputs
        maps = self.trunk.first_maps(x)
        pooled = self.trunk.pooled(maps[-1])
        logits = self.head(pooled)
        statistics = channel_statistics([x, *maps])
        features = torch.cat([*statistics, self.summary(pooled), logits], dim=1)
        return features, logits.softmax(1)

    def summary(self, pooled: Tensor) -> Tensor:
        """What the features hold of the trunk's output [n, c]: all of it."""
        return pooled

    def default_slots(self) -> dict[str, dict[str, Any]]:
        return {
            f"head.{name}": {"kind": "dense", "bound": 0.5, "bias_bound": 3.0}
            for name, layer in self.head.named_children()
            if isinstance(layer, nn.Linear)
        }


def require(condition: bool, expected: str, **settings: int | float) -> None:
    """Raise ValueError, with what was expected and the settings that came, unless `condition`."""
    if not condition:
        came = ", ".join(f"{name} = {value}" for name, value in settings.items())
        raise ValueError(f"{expected}, got {came}")
