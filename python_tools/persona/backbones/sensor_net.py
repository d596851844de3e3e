"""A small convolutional network over time, for windows of motion sensors.

Four convolutions along time of w, 2w, 4w and 4w channels, of 9, 5, 5 and 3 samples, the first
three with stride 2; batch normalisation and ReLU after each. Source: ours, in the manner of Wang
et al., Time Series Classification from Scratch (arXiv 1611.06455), section II, with strides.
"""

from collections import OrderedDict

from torch import nn

from persona.backbones.base import InputSpec, backbones
from persona.backbones.convolutional import ConvolutionalClassifier, StagedTrunk, require


def _stage(channels: int, out: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution along time, batch normalisation, ReLU."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv1d(channels, out, kernel, stride, padding=kernel // 2, bias=False),
            norm=nn.BatchNorm1d(out),
            relu=nn.ReLU(),
        )
    )


@backbones.register("sensor-net")
class SensorNet(ConvolutionalClassifier):
    """Four convolutions along time and two linear layers, for windows of motion sensors.

    channels: sensor axes, such as 6. length: samples a window, such as 128. classes: of the data.
    width: channels of the first convolution. hidden: units of the head.
    Features are 2 · channels + 10 · width + classes wide.
    Raises ValueError where `length` is below 16, or another setting below 1.
    """

    def __init__(
        self,
        channels: int = 6,
        length: int = 128,
        classes: int = 6,
        width: int = 16,
        hidden: int = 32,
    ) -> None:
        super().__init__()
        require(length >= 16, "windows must have 16 samples or more", length=length)
        given = {"channels": channels, "classes": classes, "width": width, "hidden": hidden}
        require(min(given.values()) >= 1, "settings must be 1 or more", **given)
        self.shape = (channels, length)
        self.trunk = StagedTrunk(
            [
                _stage(channels, width, 9, 2),
                _stage(width, 2 * width, 5, 2),
                _stage(2 * width, 4 * width, 5, 2),
                _stage(4 * width, 4 * width, 3, 1),
            ],
            nn.AdaptiveAvgPool1d(1),
        )
        self.head = nn.Sequential(
            nn.Linear(4 * width, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("motion", "float32", (1, *self.shape)),)
