"""How the cloud's ranker learns: at every place of the histories of everybody who trains anything.

The backbone's users and the adapter's teach it, validation users choose its best state. Negatives
are drawn anew each step from what these users met, less what the window holds. It never sees the
session that a device sees, since it is asked before: what it says is stale by that much.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from persona.data import Dataset, Device
from persona.data.next_item import NextItem
from persona.formats.observation import ItemsObservation, ItemsSpec
from persona.method.cloud_ranker import CloudRanker, packed
from persona.training.devices import encoder_input
from persona.training.stages import (
    Curve,
    Progress,
    Schedule,
    TrainingError,
    index_batches,
    minimise,
)

BATCH = 32
"""Windows a step; each asks at every place."""

LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-2
NEGATIVES = 512
CHECKS = 20

WINDOWS = 24_000
"""Windows of the backbone's users, at most: they end at random places."""

_DRAWN = 1_000
"""Windows drawn at once."""


def candidates_of(devices: Sequence[Device]) -> Tensor:
    """The candidates of every query [D, q, c]; 0 pads."""
    return torch.from_numpy(np.stack([device.queries[1] for device in devices]))


def windows_of(spec: ItemsSpec, devices: Sequence[Device]) -> Tensor:
    """What each device observes [D, max_count], newest last; 0 pads."""
    newest = (ItemsObservation(device.window[0][-spec.max_count :]) for device in devices)
    return torch.from_numpy(np.stack([encoder_input(spec, window) for window in newest]))


def training_windows(
    data: Dataset, spec: ItemsSpec, observed: Tensor, count: int, seed: int
) -> Tensor:
    """Windows [n, length + 1]: `count` of the backbone's users, and the adapter's own `observed`.

    Those of the backbone's users end at random places of their histories. Raises TrainingError
    where the data hold none.
    """
    if not isinstance(data, NextItem):
        raise TrainingError(
            f"a ranker learns from histories of items, which {type(data).__name__} does not have; "
            "set adapter.encoder_steps to 0"
        )
    length = spec.max_count
    whole = copy.copy(data)
    # Histories as long as a window, in place of what the device sees of a session.
    whole.scenario = replace(whole.scenario, length=length, session=length, staleness=0)
    rng = np.random.default_rng(seed)
    found = [F.pad(observed, (1, 0))]
    for begin in range(0, count, _DRAWN):
        size = min(_DRAWN, count - begin)
        (histories, candidates), targets = whole.batch(rng, size)
        following = candidates[np.arange(size), targets]
        found.append(torch.from_numpy(np.column_stack([histories, following])))
    return torch.cat(found)


def teach_ranker(
    data: Dataset,
    spec: ItemsSpec,
    train: Sequence[Device],
    validation: Sequence[Device],
    steps: int,
    seed: int,
    progress: Progress,
) -> tuple[CloudRanker, Curve]:
    """A ranker after so many steps, and its loss on validation devices, whose best state is kept.

    train: the devices that the adapter trains on.
    """
    windows = training_windows(
        data, spec, windows_of(spec, train), min(WINDOWS, steps * BATCH), seed
    )
    met = windows.unique()[1:]
    windows = packed(windows)
    generator = torch.Generator().manual_seed(seed)
    batches = index_batches(len(windows), BATCH, generator)
    held, asked = windows_of(spec, validation), candidates_of(validation)
    targets = torch.from_numpy(np.concatenate([device.targets for device in validation]))

    def loss() -> Tensor:
        drawn = met[torch.randint(len(met), (NEGATIVES,), generator=generator)]
        return ranker.loss(windows[next(batches)], drawn)

    def check() -> float:
        scores = ranker(held, asked).masked_fill(asked == 0, -torch.inf)
        return float(F.cross_entropy(scores.flatten(0, 1), targets))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = CloudRanker(spec.vocabulary)
        schedule = Schedule(steps, LEARNING_RATE, WEIGHT_DECAY, CHECKS)
        curve = minimise(ranker, loss, check, schedule, progress)
    return ranker.requires_grad_(False), curve
