"""Batch normalisation by the device's own statistics, mixed with those of training.

    μ = (N μ_source + n μ_window) / (N + n),   σ² likewise

(Schneider et al. 2020, arXiv 2006.16971, section 3; with N = 0 Nado et al. 2020, arXiv
2006.10963.) n samples are in the window; N is chosen on validation devices. Queries are normalised
by the window's statistics, never by each other's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.baselines.device_norms import DeviceNorms, batch_norms
from persona.baselines.validation_choice import best, held_back
from persona.baselines.windows import groups, in_order
from persona.data import Device
from persona.training.devices import Fleet

STRENGTHS = (256.0, 64.0, 16.0, 4.0, 0.0)
"""N, among which validation devices choose."""


@rivals.register("batch-norm-statistics")
class BatchNormStatistics(Rival):
    """Batch normalisation statistics estimated from the window and mixed with the source's."""

    def applies(self, setting: Setting) -> bool:
        return setting.task == "classification" and bool(batch_norms(setting.backbone))

    def fit(self, setting: Setting) -> None:
        held = held_back(setting).devices
        self.strength = best(setting, ((n, _answers(setting, held, n)) for n in STRENGTHS))

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        return _answers(setting, fleet.devices, self.strength)


def _answers(setting: Setting, devices: Sequence[Device], strength: float) -> Tensor:
    parts = []
    with torch.inference_mode():
        for places, window, queries in groups(setting, devices):
            norms = DeviceNorms(setting.backbone, strength)
            norms.window(window)
            parts.append((places, norms.queries(queries)))
    return in_order(parts)
