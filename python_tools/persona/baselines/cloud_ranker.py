"""A ranker in the cloud, as a team would host one: what the device's ranker is fused with.

    h_t = GRU(E[i_1] … E[i_t]),   u_t = E[i_t] + W·h_t + b,   score(c) = u_t · E[c] + β_c
    min −Σ_t log softmax(score(i_{t+1}); i_{t+1} and negatives)

It has an item table of its own, wider than the device's, and learns from every place in the windows
of all users who train anything, the backbone's and the adapter's; negatives are drawn anew each
step from what these users met, less what the window holds. It never sees the session that the
device sees, since it is asked before: its scores are stale by that much.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persona.baselines.base import Setting
from persona.data import Device
from persona.data.next_item import NextItem
from persona.training.stages import Schedule, index_batches, minimise

DIM = 64
DROPOUT = 0.2

BATCH = 32
"""Windows a step; each asks at every place."""

LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-2
NEGATIVES = 512

WINDOWS = 24_000
"""Windows of the backbone's users, at most: they end at random places."""

_DRAWN = 1_000
"""Windows drawn at once."""

_CHUNK = 64
"""Devices that are scored at once: the embeddings of all candidates need the memory."""


class CloudRanker(nn.Module):
    """Windows [D, length], 0 before the first item, and candidates [D, q, c] -> scores [D, q, c].

    items: the highest item id; row 0 of the table is padding.
    """

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, DIM, padding_idx=0)
        self.bias = nn.Embedding(items + 1, 1, padding_idx=0)
        self.gru = nn.GRU(DIM, DIM, batch_first=True)
        self.project = nn.Linear(DIM, DIM)
        self.dropout = nn.Dropout(DROPOUT)
        with torch.no_grad():
            self.items.weight[1:].normal_(std=DIM**-0.5)
            self.bias.weight.zero_()

    def users(self, items: Tensor) -> Tensor:
        """u_t after each item of histories [D, length] that begin in the first column."""
        embedded = self.items(items)
        states, _ = self.gru(self.dropout(embedded))
        users: Tensor = embedded + self.project(self.dropout(states))
        return users

    def forward(self, windows: Tensor, candidates: Tensor) -> Tensor:
        counts = (windows > 0).sum(1)
        users = self.users(packed(windows))[torch.arange(len(windows)), counts - 1]
        # A score for every item, of which the candidates' are taken.
        scores = users @ self.items.weight.T + self.bias.weight[:, 0]
        return scores.gather(1, candidates.flatten(1)).view_as(candidates)

    def loss(self, histories: Tensor, negatives: Tensor) -> Tensor:
        """Mean over the places of histories [D, length], as `users` takes them, but the last."""
        users, following = self.users(histories[:, :-1]), histories[:, 1:]
        own = (users * self.items(following)).sum(-1) + self.bias(following)[..., 0]
        others = users @ self.items(negatives).T + self.bias(negatives)[:, 0]
        held = torch.zeros(len(histories), self.items.num_embeddings, dtype=torch.bool)
        held.scatter_(1, histories, True)
        others = others.masked_fill(held[:, None, negatives], -torch.inf)
        scores = torch.cat([own[..., None], others], -1)[following > 0]
        return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))

    def answers(self, windows: Tensor, candidates: Tensor) -> Tensor:
        """Scores without gradients."""
        chunks = zip(windows.split(_CHUNK), candidates.split(_CHUNK), strict=True)
        with torch.inference_mode():
            return torch.cat([self(*chunk) for chunk in chunks])


def packed(windows: Tensor) -> Tensor:
    """Histories [D, length] with the newest item last, shifted to begin in the first column."""
    length = windows.shape[1]
    place = torch.arange(length) + (windows == 0).sum(1)[:, None]
    return torch.where(place < length, windows.gather(1, place.clamp_max(length - 1)), 0)


def candidates_of(devices: Sequence[Device]) -> Tensor:
    """The candidates of every query [D, q, c]; 0 pads."""
    return torch.from_numpy(np.stack([device.queries[1] for device in devices]))


def training_windows(setting: Setting, count: int) -> Tensor:
    """Windows [n, length + 1] of the backbone's users, `count` of them, and of the adapter's.

    Those of the backbone's users end at random places of their histories.
    """
    assert isinstance(setting.data, NextItem)
    length = setting.observation.max_count
    whole = copy.copy(setting.data)
    # Histories as long as a window, in place of what the device sees of a session.
    whole.scenario = replace(whole.scenario, length=length, session=length, staleness=0)
    rng = np.random.default_rng(setting.seed)
    found = [F.pad(setting.train.observations, (1, 0))]
    for begin in range(0, count, _DRAWN):
        size = min(_DRAWN, count - begin)
        (histories, candidates), targets = whole.batch(rng, size)
        following = candidates[np.arange(size), targets]
        found.append(torch.from_numpy(np.column_stack([histories, following])))
    return torch.cat(found)


def train_cloud_ranker(setting: Setting) -> CloudRanker:
    """Train for as many steps as the backbone; the best state on validation devices is kept."""
    config = setting.config
    steps = max(config.backbone.steps, config.adapter.steps)
    windows = training_windows(setting, min(WINDOWS, steps * BATCH))
    met = windows.unique()[1:]
    windows = packed(windows)
    generator = torch.Generator().manual_seed(setting.seed)
    batches = index_batches(len(windows), BATCH, generator)
    validation = setting.validation.tensors
    asked = candidates_of(setting.validation.devices)

    def loss() -> Tensor:
        drawn = met[torch.randint(len(met), (NEGATIVES,), generator=generator)]
        return ranker.loss(windows[next(batches)], drawn)

    def check() -> float:
        scores = ranker(validation.observations, asked).masked_fill(asked == 0, -torch.inf)
        return float(F.cross_entropy(scores.flatten(0, 1), validation.targets.flatten()))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        ranker = CloudRanker(setting.backbone.vocabulary_of("candidates") - 1)
        schedule = Schedule(steps, LEARNING_RATE, WEIGHT_DECAY, config.backbone.checks)
        minimise(ranker, loss, check, schedule, lambda _done, _all: None)
    return ranker
