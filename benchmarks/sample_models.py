"""The models of the benchmarks and of docs/targets.md: every backbone, small, with random weights.

Ratios, parity and what can be lowered do not depend on what a model has learned.
"""

from dataclasses import dataclass

import torch
from torch import nn

from persona.backbones import Backbone, backbones
from persona.backbones.base import InputSpec
from persona.formats.slots import SlotSpec
from persona.method.slots import make_slot

RANKER = {"items": 200, "length": 10, "dim": 32}


class YourOwn(Backbone):
    """A network that is no backbone of ours, its slots found by module name."""

    task = "classification"

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.SiLU())
        self.trunk = nn.Sequential(stem, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 10))

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("image", "float32", (1, 3, 32, 32)),)

    def features(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.trunk(*inputs)
        logits = self.head(hidden)
        return torch.cat([hidden, logits], dim=1), logits.softmax(1)


@dataclass(frozen=True)
class Sample:
    """A backbone and the layers that its slots of each kind are put on."""

    name: str
    settings: dict[str, int]
    dense: tuple[str, ...]
    affine: str

    def backbone(self) -> Backbone:
        """The model, with random weights that are the same each time."""
        torch.manual_seed(0)
        made = YourOwn() if self.name == "your own" else backbones[self.name](**self.settings)
        with torch.no_grad():
            for module in made.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    _spread(module)
        return made.eval()

    def slots(self, backbone: Backbone, kind: str) -> tuple[SlotSpec, ...]:
        """Slots of one kind: of dense layers all, of low-rank all, of affine one."""
        names = (self.affine,) if kind == "affine" else self.dense
        return tuple(make_slot(backbone, name, kind, bound=0.1, bias_bound=0.1) for name in names)


def _spread(norm: nn.Module) -> None:
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    generator = torch.Generator().manual_seed(1)
    mean.copy_(0.1 * torch.randn(mean.shape, generator=generator))
    variance.copy_(0.5 + torch.rand(variance.shape, generator=generator))


USER = ("head.user.0", "head.user.2")
SAMPLES = (
    Sample("image-net", {}, ("head.0", "head.2"), "trunk.second.0"),
    Sample("conv-net", {}, ("head.0", "head.2"), "trunk.stages.1.norm"),
    Sample("sensor-net", {}, ("head.0", "head.2"), "trunk.stages.1.norm"),
    Sample("mobilenet-v3-small", {"size": 96, "classes": 100}, ("head.0", "head.3"), "head.0"),
    Sample("sasrec", RANKER, USER, "trunk.norm"),
    Sample("gru4rec", RANKER, USER, "head.user.0"),
    Sample("din", RANKER, USER, "head.user.0"),
    Sample("your own", {}, ("head.0", "head.2"), "trunk.0.0"),
)
