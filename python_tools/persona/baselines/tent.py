"""TENT: gradient steps that make the window's predictions certain, on normalisation layers alone.

    min over γ, β of the mean entropy of f(x; γ, β) for x in the window

(Wang et al. 2021, arXiv 2006.10726, section 3.) As in the paper, batch normalisation uses the
statistics of the data at hand and the optimiser is Adam; each device starts from the source. What
differs: the window alone is learnt from, and queries are answered one by one by its statistics.
A backbone without batch normalisation adapts its layer or group normalisation.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.baselines.device_norms import DeviceNorms, affine_norms, shared_affine
from persona.baselines.validation_choice import best, held_back
from persona.baselines.windows import Inputs, groups, in_order
from persona.data import Device
from persona.training.devices import Fleet

STEPS = (1, 3, 5)
LEARNING_RATES = (1e-3, 1e-2)
STRENGTHS = (256.0, 16.0, 0.0)
"""How much the source's statistics count, as in `batch_norm_statistics`; the paper's is 0."""


@rivals.register("tent")
class Tent(Rival):
    """Entropy minimisation on the window over γ and β of the normalisation layers."""

    def applies(self, setting: Setting) -> bool:
        return setting.task == "classification" and bool(affine_norms(setting.backbone))

    def fit(self, setting: Setting) -> None:
        held = held_back(setting).devices

        def answers() -> Iterator[tuple[tuple[int, float, float], Tensor]]:
            for rate in LEARNING_RATES:
                for strength in STRENGTHS:
                    found = adapted(setting, held, STEPS, rate, strength)
                    yield from (((n, rate, strength), said) for n, said in found.items())

        self.steps, self.rate, self.strength = best(setting, answers())

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        steps = (self.steps,)
        return adapted(setting, fleet.devices, steps, self.rate, self.strength)[self.steps]


@torch.inference_mode(False)
def adapted(
    setting: Setting,
    devices: Sequence[Device],
    steps: tuple[int, ...],
    rate: float,
    strength: float,
) -> dict[int, Tensor]:
    """Outputs for the queries [D, q, classes] after so many steps; `steps` ascend."""
    parts: dict[int, list[tuple[Tensor, Tensor]]] = {n: [] for n in steps}
    for places, window, queries in groups(setting, devices):
        for n, said in _trajectory(setting, window, queries, steps, rate, strength):
            parts[n].append((places, said))
    return {n: in_order(found) for n, found in parts.items()}


def _trajectory(
    setting: Setting,
    window: Inputs,
    queries: Inputs,
    steps: tuple[int, ...],
    rate: float,
    strength: float,
) -> Iterator[tuple[int, Tensor]]:
    affine = shared_affine(setting.backbone, len(window[0]))
    norms = DeviceNorms(setting.backbone, strength, affine)
    # Adam works on each number alone, so one optimiser serves all devices.
    optimiser = torch.optim.Adam([v.requires_grad_() for v in affine.values()], lr=rate)
    for step in range(1, steps[-1] + 1):
        optimiser.zero_grad()
        log_likely = norms.window(window).log_softmax(-1)
        entropy = -(log_likely.exp() * log_likely).sum(-1)
        entropy.mean(1).sum().backward()
        optimiser.step()
        if step in steps:
            with torch.no_grad():
                norms.window(window)
                said = norms.queries(queries)
            yield step, said
