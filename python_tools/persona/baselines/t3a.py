"""T3A: class prototypes in place of the last layer, from the window's surest samples.

    S_k = {ω_k / ‖ω_k‖} ∪ {z / ‖z‖ : x in the window, argmax f(x) = k}
    logit_k(x) = z(x) · c_k / ‖c_k‖,   c_k = the sum of the M members of S_k with least entropy

(Iwasawa and Matsuo 2021, Test-Time Classifier Adjustment Module, section 3.) z is what the last
linear layer takes and ω_k its row; its bias plays no part, as there. M is chosen on validation
devices. What differs: the whole window comes first, and queries add no support.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persona.baselines.base import Rival, Setting, rivals
from persona.baselines.last_layer import last_linear, taken
from persona.baselines.validation_choice import best, held_back
from persona.baselines.windows import groups, in_order
from persona.data import Device
from persona.training.devices import Fleet

MEMBERS = (1, 3, 5, 20, 100)
"""M, among which validation devices choose."""


@rivals.register("t3a")
class T3A(Rival):
    """A classifier adjusted by the window's surest samples, without gradients."""

    def applies(self, setting: Setting) -> bool:
        return last_linear(setting.backbone) is not None

    def fit(self, setting: Setting) -> None:
        found = adjusted(setting, held_back(setting).devices, MEMBERS)
        self.members = best(setting, found.items())

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        return adjusted(setting, fleet.devices, (self.members,))[self.members]


def adjusted(
    setting: Setting, devices: Sequence[Device], members: tuple[int, ...]
) -> dict[int, Tensor]:
    """Outputs for the queries [D, q, classes] with so many members of each class's support."""
    layer = last_linear(setting.backbone)
    assert layer is not None
    parts: dict[int, list[tuple[Tensor, Tensor]]] = {m: [] for m in members}
    with torch.inference_mode():
        for places, window, queries in groups(setting, devices):
            seen, logits = taken(setting.backbone, window)
            asked, _ = taken(setting.backbone, queries)
            for m, said in _answers(layer, seen, logits, asked, members):
                parts[m].append((places, said))
    return {m: in_order(found) for m, found in parts.items()}


def _answers(
    layer: nn.Linear, seen: Tensor, logits: Tensor, asked: Tensor, members: tuple[int, ...]
) -> Iterator[tuple[int, Tensor]]:
    """Windows [d, w, F], their logits [d, w, C], queries [d, q, F] -> outputs [d, q, C] by M."""
    count, classes = len(seen), layer.out_features
    own = layer.weight.expand(count, -1, -1)
    supports = F.normalize(torch.cat([own, seen], 1), dim=2)
    log_likely = torch.cat([layer(own), logits], 1).log_softmax(2)
    entropy = -(log_likely.exp() * log_likely).sum(2)
    labels = torch.cat([torch.arange(classes).expand(count, -1), logits.argmax(2)], 1)
    belongs = F.one_hot(labels, classes).bool()
    # The place of each support among those of its class, the surest first.
    surer = entropy.argsort(dim=1, stable=True)
    place = belongs.gather(1, surer[..., None].expand_as(belongs)).cumsum(1)
    place = torch.zeros_like(place).scatter(1, surer[..., None].expand_as(place), place)
    for m in members:
        kept = (belongs & (place <= m)).to(supports.dtype)
        centres = F.normalize(kept.transpose(1, 2) @ supports, dim=2)
        yield m, asked @ centres.transpose(1, 2)
