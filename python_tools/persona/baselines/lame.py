"""LAME: predictions pulled towards those of their neighbours, without touching the model.

    z_i ∝ q_i ⊙ exp(Σ_j w_ij z_j),   w_ij = 1 where j is among the k nearest of i, else 0

(Boudiaf et al. 2022, arXiv 2201.05718, section 4.) q is the model's posterior; neighbours are
nearest in the normalised features that the last linear layer takes; k is chosen on validation
devices. What differs: the batch is the window, and each query joins it alone with the window's
z held, so that a device may answer queries one by one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from persona.baselines.base import Rival, Setting, rivals
from persona.baselines.last_layer import last_linear, taken
from persona.baselines.validation_choice import best, held_back
from persona.baselines.windows import groups, in_order
from persona.data import Device
from persona.training.devices import Fleet

NEIGHBOURS = (1, 3, 5)
"""k, among which validation devices choose."""

_ROUNDS = 50
"""Updates of z; it settles in fewer."""


@rivals.register("lame")
class Lame(Rival):
    """The posterior adjusted by a Laplacian over the window's neighbours, without gradients."""

    def applies(self, setting: Setting) -> bool:
        return last_linear(setting.backbone) is not None

    def fit(self, setting: Setting) -> None:
        held = held_back(setting).devices
        self.neighbours = best(setting, ((k, smoothed(setting, held, k)) for k in NEIGHBOURS))

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        return smoothed(setting, fleet.devices, self.neighbours)


def smoothed(setting: Setting, devices: Sequence[Device], neighbours: int) -> Tensor:
    """Outputs for the queries [D, q, classes]: logarithms of z, up to a constant."""
    parts = []
    with torch.inference_mode():
        for places, window, queries in groups(setting, devices):
            seen, logits = taken(setting.backbone, window)
            asked, said = taken(setting.backbone, queries)
            near = _nearest(seen, seen, neighbours, without_self=True)
            z = posterior = logits.log_softmax(2)
            z = z.exp()
            for _ in range(_ROUNDS):
                z = (posterior + near @ z).softmax(2)
            near = _nearest(asked, seen, neighbours, without_self=False)
            parts.append((places, said.log_softmax(2) + near @ z))
    return in_order(parts)


def _nearest(these: Tensor, those: Tensor, count: int, *, without_self: bool) -> Tensor:
    """Features [d, n, F] and [d, m, F] -> w [d, n, m]."""
    likeness = F.normalize(these, dim=2) @ F.normalize(those, dim=2).transpose(1, 2)
    if without_self:
        likeness = likeness - 3 * torch.eye(these.shape[1])
    most = min(count, those.shape[1] - without_self)
    chosen = likeness.topk(most, dim=2).indices
    return torch.zeros_like(likeness).scatter(2, chosen, 1.0)
