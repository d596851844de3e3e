"""Fine-tuning on the device with labels that no deployed device has: an upper bound.

    min over ΔW of the mean cross-entropy of f(x; W + ΔW) on the window's labelled samples

Classification: the window's classes. Ranking: inside the window, the items before a place rank its
item among random ones. Adam from the static weights; steps and rate are chosen on validation.
"""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.baselines.generated_edits import blank
from persona.baselines.validation_choice import best, held_back
from persona.baselines.windows import equally_long, in_order
from persona.data import DataError, Device
from persona.data.stable_splits import seed_of
from persona.formats.observation import ItemsSpec
from persona.method.slots import Edit
from persona.training.devices import Devices, Fleet, edited_part, losses

STEPS = (1, 3, 10, 30, 100)
LEARNING_RATES = (1e-3, 1e-2)

EXAMPLES = 20
"""Next-item examples that a window gives, from its newest items; a shorter one repeats its own."""

CANDIDATES = 100
"""At most, in such an example; fewer where the device's queries have fewer."""


@rivals.register("fine-tuning")
class FineTuning(Rival):
    """Gradient steps on the slots with the window's labels: an upper bound."""

    uses_labels: ClassVar[bool] = True
    uses_window_labels: ClassVar[bool] = True

    def applies(self, setting: Setting) -> bool:
        labelled = setting.validation.devices[0].window_targets is not None
        return bool(setting.slots) and (setting.task == "ranking" or labelled)

    def fit(self, setting: Setting) -> None:
        held = held_back(setting)
        self.steps, self.rate = best(
            setting,
            (
                ((n, rate), said)
                for rate in LEARNING_RATES
                for n, said in tuned(setting, held, STEPS, rate).items()
            ),
        )

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        return tuned(setting, fleet, (self.steps,), self.rate)[self.steps]


def tuned(setting: Setting, fleet: Fleet, steps: tuple[int, ...], rate: float) -> dict[int, Tensor]:
    """Outputs for the queries [D, q, ...] after so many steps; `steps` ascend."""
    parts: dict[int, list[tuple[Tensor, Tensor]]] = {n: [] for n in steps}
    labelled = [_labelled(setting, device) for device in fleet.devices]
    for places in equally_long([len(device.targets) for device in labelled]):
        examples = setting.fleet([labelled[i] for i in places.tolist()]).tensors
        for n, change in _trajectory(setting, examples, steps, rate):
            parts[n].append((places, setting.outputs(change, fleet.tensors.subset(places))))
    return {n: in_order(found) for n, found in parts.items()}


def _labelled(setting: Setting, device: Device) -> Device:
    """A device that is asked what its window says: labelled samples in place of queries."""
    newest = tuple(w[-setting.observation.max_count :] for w in device.window)
    if isinstance(setting.observation, ItemsSpec):
        return _next_items(setting.observation.vocabulary, device, newest[0])
    if device.window_targets is None:
        raise DataError(
            f"device {device.name} has no window_targets: fine-tuning needs the window's classes; "
            "leave it out for these devices"
        )
    return replace(device, queries=newest, targets=device.window_targets[-len(newest[0]) :])


def _next_items(vocabulary: int, device: Device, items: np.ndarray) -> Device:
    """Each of the newest items is to be found among random ones, from the items before it.

    The history holds as many items as the device's queries do.
    """
    length = device.queries[0].shape[1]
    filled = int((device.queries[0] > 0).sum(1).max())
    rng = np.random.default_rng(seed_of("fine-tuning", device.name))
    places = np.resize(np.arange(len(items))[1:][-EXAMPLES:], EXAMPLES)
    if len(items) == 1:
        places = np.zeros(EXAMPLES, np.int64)
    histories = np.zeros((EXAMPLES, length), np.int64)
    for row, place in zip(histories, places, strict=True):
        before = items[max(0, place - filled) : place]
        row[length - len(before) :] = before
    count = min(CANDIDATES, device.queries[1].shape[1])
    unmet = np.setdiff1d(np.arange(1, vocabulary + 1), device.window[0])
    candidates = rng.choice(unmet, (EXAMPLES, count))
    targets = rng.integers(count, size=EXAMPLES)
    candidates[np.arange(EXAMPLES), targets] = items[places]
    return replace(device, queries=(histories, candidates), targets=targets)


def _trajectory(
    setting: Setting, examples: Devices, steps: tuple[int, ...], rate: float
) -> list[tuple[int, Edit]]:
    module, _ = edited_part(setting.backbone, setting.slots)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        change = {
            f"{slot.name}.{suffix}": torch.stack([value] * len(examples)).requires_grad_()
            for slot in setting.slots
            for suffix, value in blank(slot).items()
        }
    # Adam works on each number alone, so one optimiser serves all devices.
    optimiser = torch.optim.Adam(change.values(), lr=rate)
    found = []
    for step in range(1, steps[-1] + 1):
        optimiser.zero_grad()
        losses(module, setting.slots, change, examples).sum().backward()
        optimiser.step()
        if step in steps:
            found.append((step, {name: value.detach().clone() for name, value in change.items()}))
    return found
