"""A ranker in the cloud that reads the whole window: what the device's ranker is fused with.

    u = W·GRU(E[window]) + b,   score(c) = u · E[c] + β_c

E is the backbone's frozen item table, β an item bias of its own. The GRU begins as the adapter's
does, with the next-item lesson where the configuration has one. It never sees the session that
the device sees, since it is asked before: its scores are stale by that much.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persona.baselines.base import Setting
from persona.data import Device
from persona.method.encoders import ItemsEncoder
from persona.training.stages import Schedule, index_batches, minimise

_CHUNK = 64
"""Devices that are scored at once: the embeddings of all candidates need the memory."""


class CloudRanker(nn.Module):
    """Windows [D, length] and candidates [D, q, c] -> scores [D, q, c]."""

    def __init__(self, encoder: ItemsEncoder, latent: int) -> None:
        super().__init__()
        items, dim = encoder.table.shape
        self.encoder = encoder
        self.project = nn.Linear(latent, dim)
        self.bias = nn.Embedding(items, 1)
        nn.init.zeros_(self.bias.weight)

    def forward(self, windows: Tensor, candidates: Tensor) -> Tensor:
        user = self.project(self.encoder(windows))
        # A score for every item, of which the candidates' are taken.
        scores = user @ self.encoder.table.T + self.bias.weight[:, 0]
        return scores.gather(1, candidates.flatten(1)).view_as(candidates)

    def answers(self, windows: Tensor, candidates: Tensor) -> Tensor:
        """The same without gradients."""
        chunks = zip(windows.split(_CHUNK), candidates.split(_CHUNK), strict=True)
        with torch.inference_mode():
            return torch.cat([self(*chunk) for chunk in chunks])


def candidates_of(devices: Sequence[Device]) -> Tensor:
    """The candidates of every query [D, q, c]; 0 pads."""
    return torch.from_numpy(np.stack([device.queries[1] for device in devices]))


def train_cloud_ranker(setting: Setting) -> CloudRanker:
    """Train on the adapter's devices with its budget; the best state on validation is kept."""
    config = setting.config.adapter
    train, validation = setting.train, setting.validation.tensors
    asked = candidates_of(setting.devices("adapter")[: len(train)])
    held = candidates_of(setting.validation.devices)
    batches = index_batches(len(train), config.batch, torch.Generator().manual_seed(setting.seed))

    def cost(windows: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
        scores = ranker(windows, candidates).masked_fill(candidates == 0, -torch.inf)
        return F.cross_entropy(scores.flatten(0, 1), targets.flatten())

    def loss() -> Tensor:
        index = next(batches)
        return cost(train.observations[index], asked[index], train.targets[index])

    def check() -> float:
        return float(cost(validation.observations, held, validation.targets))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        encoder = copy.deepcopy(setting.window_encoder)
        assert isinstance(encoder, ItemsEncoder)
        ranker = CloudRanker(encoder, config.latent)
        minimise(ranker, loss, check, Schedule.of(config), lambda _done, _all: None)
    return ranker
