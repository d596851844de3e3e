"""Teaching the gate what ordinary windows look like and, by exposure, which spoilt ones to refuse.

Outlier exposure (Hendrycks et al., arXiv 1812.04606): a detector that has seen some outliers knows
others by them too. Here the outliers are the streams of hardening from which edits do not pay.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persona.method.adapter import Adapter
from persona.method.gate import Familiarity
from persona.training.devices import Devices, losses
from persona.training.stages import Curve, Progress, Schedule, index_batches, minimise

_SCHEDULE = Schedule(steps=600, learning_rate=2e-3, weight_decay=0.1, checks=12)
_BATCH = 256
_SURE = 2.0
"""Standard errors above zero at which a mean gain counts."""


def pays(adapter: Adapter, module: nn.Module, devices: Devices) -> bool:
    """Whether devices' own edits surely lower their loss: by two standard errors of the mean."""
    with torch.no_grad():
        edit, _ = adapter(devices.observations)
        none = {name: torch.zeros_like(value) for name, value in edit.items()}
        static, edited = (losses(module, adapter.slots, e, devices) for e in (none, edit))
    gains = static - edited
    return bool(gains.mean() > _SURE * gains.std() / len(gains) ** 0.5)


def expose(
    familiarity: Familiarity,
    train: Tensor,
    validation: Tensor,
    spoilt: Sequence[tuple[Tensor, Tensor]],
    seed: int,
    progress: Progress,
) -> Curve:
    """Teach the gate's classifier to tell windows of training devices from spoilt ones.

    All are observations [D, width]. spoilt: of training and of validation devices, for each stream.
    Validation devices, as they are and spoilt, choose the state. Sound and spoilt weigh the same,
    however many there are.
    """
    assert familiarity.classifier is not None
    generator = torch.Generator().manual_seed(seed)
    others, held_others = (torch.cat(vectors) for vectors in zip(*spoilt, strict=True))
    sound_batches = index_batches(len(train), _BATCH, generator)
    other_batches = index_batches(len(others), _BATCH, generator)

    def loss(sound: Tensor, other: Tensor) -> Tensor:
        each = F.softplus(familiarity.suspicion(sound)), F.softplus(-familiarity.suspicion(other))
        return each[0].mean() + each[1].mean()

    return minimise(
        familiarity.classifier,
        lambda: loss(train[next(sound_batches)], others[next(other_batches)]),
        lambda: float(loss(validation, held_others)),
        _SCHEDULE,
        progress,
    )
