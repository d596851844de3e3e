"""Window encoders: z₀ = Enc(o), the code of what a device has seen lately."""

from typing import Self

import torch
from torch import Tensor, nn

from persona.method.cloud_ranker import DIM, CloudRanker, packed

CLAMP = 6.0
"""Standardised statistics are clamped to ±6: without it the latent collapses to a constant."""


class PooledEncoder(nn.Module):
    """Pooled statistics [D, width] -> z₀ [D, latent].

    The statistics are standardised on the training devices and clamped; the latent is normalised
    across devices without an affine part, so that it cannot shrink to one code for all.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, latent: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.net = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, latent, bias=False),
            nn.BatchNorm1d(latent, affine=False),
        )

    def calibrate(self, vectors: Tensor) -> None:
        """Take mean and deviation from the training devices' vectors [D, width]."""
        self.mean.copy_(vectors.mean(0))
        self.deviation.copy_(vectors.std(0).clamp_min(1e-4))

    def forward(self, vectors: Tensor) -> Tensor:
        """[D, width] -> [D, latent]."""
        standard = ((vectors - self.mean) / self.deviation).clamp(-CLAMP, CLAMP)
        latent: Tensor = self.net(standard)
        return latent


class ItemsEncoder(nn.Module):
    """Item histories [D, length], newest last and 0 before the first -> z₀ [D, latent].

    table: the frozen backbone's item embeddings [items + 1, dim]; row 0 is padding.
    """

    table: Tensor

    def __init__(self, table: Tensor, latent: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("table", table.detach().clone())
        self.widen = nn.Sequential(nn.Linear(table.shape[1], hidden), nn.Dropout(dropout))
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.project = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(hidden, latent, bias=False),
            nn.BatchNorm1d(latent, affine=False),
        )

    def forward(self, items: Tensor) -> Tensor:
        """[D, length] -> [D, latent]."""
        # The GRU never reads padding: histories begin in the first column.
        states, _ = self.gru(self.widen(self.table[packed(items)]))
        last = states[torch.arange(len(items)), (items > 0).sum(1) - 1]
        latent: Tensor = self.project(last)
        return latent


class RankerEncoder(nn.Module):
    """Item histories [D, length], newest last and 0 before the first -> z₀ [D, latent].

        z₀ = BN(W · drop(BN(u)))

    u is the state of a ranker that was taught before and stays as it is: every place of every
    history asked it a question, where the losses of edits ask a handful for a device. Ours; the
    papers teach the encoder through the edits alone, as `ItemsEncoder` learns.
    """

    def __init__(self, ranker: CloudRanker, latent: int, dropout: float) -> None:
        super().__init__()
        self.ranker = ranker.requires_grad_(False)
        self.project = nn.Sequential(
            nn.BatchNorm1d(DIM, affine=False),
            nn.Dropout(dropout),
            nn.Linear(DIM, latent, bias=False),
            nn.BatchNorm1d(latent, affine=False),
        )

    def train(self, mode: bool = True) -> Self:
        """The ranker answers as it was taught, without dropout, also while edits are learned."""
        super().train(mode)
        self.ranker.eval()
        return self

    def forward(self, items: Tensor) -> Tensor:
        """[D, length] -> [D, latent]."""
        latent: Tensor = self.project(self.ranker.last_users(items))
        return latent
