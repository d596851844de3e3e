"""A small convolutional network with batch normalisation, for images of 28×28 or 32×32.

Five 3×3 convolutions of w, 2w, 2w, 4w and 4w channels, the second and fourth with stride 2. The
width w makes the family: c8, c16 and c32 take about 2, 7.5 and 29 million multiplications for
a 32×32 image in colour. Source: ours, in the manner of VGG (arXiv 1409.1556) with batch
normalisation (arXiv 1502.03167) and global average pooling (arXiv 1312.4400, section 3.2).
"""

from collections import OrderedDict

from torch import nn

from persona.backbones.base import InputSpec, backbones
from persona.backbones.convolutional import ConvolutionalClassifier, StagedTrunk, require


def _stage(channels: int, out: int, stride: int) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False),
            norm=nn.BatchNorm2d(out),
            relu=nn.ReLU(),
        )
    )


@backbones.register("conv-net")
class ConvNet(ConvolutionalClassifier):
    """Five 3×3 convolutions with batch normalisation and two linear layers, for images from 8×8.

    channels, size, classes: of the data. width: channels of the first convolution. hidden: units
    of the head. Features are 2 · channels + 10 · width + classes wide.
    Raises ValueError where `size` is below 8, or another setting below 1.
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        width: int = 16,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        require(size >= 8, "images must be 8×8 or larger", size=size)
        given = {"channels": channels, "classes": classes, "width": width, "hidden": hidden}
        require(min(given.values()) >= 1, "settings must be 1 or more", **given)
        self.shape = (channels, size, size)
        self.trunk = StagedTrunk(
            [
                _stage(channels, width, 1),
                _stage(width, 2 * width, 2),
                _stage(2 * width, 2 * width, 1),
                _stage(2 * width, 4 * width, 2),
                _stage(4 * width, 4 * width, 1),
            ],
            nn.AdaptiveAvgPool2d(1),
        )
        self.head = nn.Sequential(
            nn.Linear(4 * width, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("image", "float32", (1, *self.shape)),)
