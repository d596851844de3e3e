"""MobileNetV3-small, whole and in PyTorch alone, for square images from 32×32 to 224×224.

Source: Howard et al., Searching for MobileNetV3 (arXiv 1905.02244): table 2 (layers), section 5.2
(hard-swish) and 5.3 (squeeze-and-excite of a quarter of the expansion), batch normalisation with
decay .99. The paper's five strides suit 224×224; where images are smaller, the first strides are 1,
as many as it takes for the last map to be 4×4 or larger (two for 32×32, one for 64×64 or 96×96).
"""

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from persona.backbones.base import InputSpec, backbones
from persona.backbones.convolutional import ConvolutionalClassifier, StagedTrunk, require

_SUMMARISED = 6
"""Neighbouring channels of the trunk's output that the features hold one mean of."""

_SMALLEST_MAP = 4


class _Row(NamedTuple):
    """A bottleneck of table 2: kernel, expansion, channels out, squeeze-and-excite, hard-swish."""

    kernel: int
    expanded: int
    out: int
    excite: bool
    hard_swish: bool
    stride: int


_TABLE = (
    _Row(3, 16, 16, True, False, 2),
    _Row(3, 72, 24, False, False, 2),
    _Row(3, 88, 24, False, False, 1),
    _Row(5, 96, 40, True, True, 2),
    _Row(5, 240, 40, True, True, 1),
    _Row(5, 240, 40, True, True, 1),
    _Row(5, 120, 48, True, True, 1),
    _Row(5, 144, 48, True, True, 1),
    _Row(5, 288, 96, True, True, 2),
    _Row(5, 576, 96, True, True, 1),
    _Row(5, 576, 96, True, True, 1),
)


def _rounded(channels: float) -> int:
    """To a multiple of 8, never more than a tenth below what was asked for."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _strides(size: int) -> list[int]:
    """Strides of the first convolution and of the bottlenecks, for images of this size."""
    strides = [2, *(row.stride for row in _TABLE)]
    twos = [place for place, stride in enumerate(strides) if stride == 2]
    kept = 0
    while kept < len(twos) and size >= _SMALLEST_MAP * 2 ** (kept + 1):
        kept += 1
    for place in twos[: len(twos) - kept]:
        strides[place] = 1
    return strides


def _convolution(
    channels: int, out: int, kernel: int, stride: int, groups: int, activation: nn.Module
) -> nn.Sequential:
    """Convolution, batch normalisation, activation."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(
                channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False
            ),
            norm=nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
            activation=activation,
        )
    )


class _SqueezeExcite(nn.Module):
    """x [n, c, h, w] times a gate for each channel, from the mean over places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _rounded(channels / 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.gate(x)
        return gated


class _Bottleneck(nn.Module):
    """Expand, filter each channel, squeeze and excite, project; beside a residual where it fits."""

    def __init__(self, channels: int, row: _Row, stride: int) -> None:
        super().__init__()
        activation = nn.Hardswish if row.hard_swish else nn.ReLU
        expanded = row.expanded
        layers: list[nn.Module] = []
        if expanded != channels:
            layers.append(_convolution(channels, expanded, 1, 1, 1, activation()))
        layers.append(_convolution(expanded, expanded, row.kernel, stride, expanded, activation()))
        if row.excite:
            layers.append(_SqueezeExcite(expanded))
        layers.append(_convolution(expanded, row.out, 1, 1, 1, nn.Identity()))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == row.out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


@backbones.register("mobilenet-v3-small")
class MobileNetV3Small(ConvolutionalClassifier):
    """MobileNetV3-small for images from 32×32 to 224×224; its classifier is the head.

    channels, size, classes: of the data. width: the paper's multiplier of all channels, rounded
    to multiples of 8; the head's 1024 units grow with it but do not shrink. dropout: before the
    last layer.
    Features hold the trunk's output as means over six neighbouring channels each: at width 1,
    2 · channels + 160 + classes numbers, such as 176.
    Raises ValueError where `size` is outside 32..224, `width` is not above 0, or `channels` or
    `classes` is below 1.
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 224,
        classes: int = 1000,
        width: float = 1.0,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        require(32 <= size <= 224, "images must be from 32×32 to 224×224", size=size)
        require(width > 0, "the width multiplier must be above 0", width=width)
        require(
            min(channels, classes) >= 1,
            "settings must be 1 or more",
            channels=channels,
            classes=classes,
        )
        self.shape = (channels, size, size)
        first, *others = _strides(size)
        wide = _rounded(16 * width)
        stages: list[nn.Module] = [_convolution(channels, wide, 3, first, 1, nn.Hardswish())]
        for row, stride in zip(_TABLE, others, strict=True):
            scaled = row._replace(
                expanded=_rounded(row.expanded * width), out=_rounded(row.out * width)
            )
            stages.append(_Bottleneck(wide, scaled, stride))
            wide = scaled.out
        pooled = _SUMMARISED * wide
        stages.append(_convolution(wide, pooled, 1, 1, 1, nn.Hardswish()))
        self.trunk = StagedTrunk(stages, nn.AdaptiveAvgPool2d(1))
        hidden = max(1024, _rounded(1024 * width))
        self.head = nn.Sequential(
            nn.Linear(pooled, hidden),
            nn.Hardswish(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("image", "float32", (1, *self.shape)),)

    def summary(self, pooled: Tensor) -> Tensor:
        """Means of six neighbouring channels: [n, 576] -> [n, 96] at width 1."""
        return pooled.unflatten(1, (-1, _SUMMARISED)).mean(2)
