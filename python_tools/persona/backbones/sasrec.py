"""SASRec for phones: causal self-attention over a device's last items, scoring given candidates.

The state h that `next_item` scores from is the transformer's output after the last item. Source:
Kang and McAuley, Self-Attentive Sequential Recommendation (arXiv 1808.09781), section III.
"""

import torch
from torch import Tensor, nn

from persona.backbones.base import backbones
from persona.backbones.next_item import NextItemHead, NextItemRanker, NextItemTrunk, between

# Far below any attention score, yet a binary16 number even when it is added twice.
_MASKED = -1e4


class _Block(nn.Module):
    """Pre-norm self-attention and a two-layer network, each beside a residual."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.norm_hidden = nn.LayerNorm(dim)
        self.hidden = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def _split(self, x: Tensor) -> Tensor:
        n, length, dim = x.shape
        return x.reshape(n, length, self.heads, dim // self.heads).transpose(1, 2)

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = self._split(self.query(x)), self._split(self.key(x)), self.value(x)
        scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5) + mask
        mixed = self.dropout(scores.softmax(-1)) @ self._split(value)
        attended: Tensor = self.out(mixed.transpose(1, 2).reshape(x.shape))
        return attended

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self._attend(self.norm_attention(x), mask))
        hidden: Tensor = self.dropout(self.hidden(self.norm_hidden(x)))
        return x + hidden


class _Trunk(NextItemTrunk):
    """(history [n, length], candidates [n, c]) -> state [n, width], embeddings, biases [n, c]."""

    causal: Tensor

    def __init__(
        self,
        items: int,
        length: int,
        dim: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__(items, dim)
        self.down = between(dim, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.1)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("causal", torch.ones(length, length).tril(), persistent=False)
        self.start_items()

    def states(self, history: Tensor) -> Tensor:
        """History [n, length] -> the state after each item [n, length, width]."""
        present = (history != 0).to(self.position.dtype)
        mask = (1 - self.causal * present[:, None, None, :]) * _MASKED
        x = self.dropout(self.down(self.items(history)) + self.position)
        for block in self.blocks:
            x = block(x, mask)
        states: Tensor = self.norm(x)
        return states

    def forward(self, history: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.states(history)[:, -1], *self.scored(candidates)


@backbones.register("sasrec")
class SASRec(NextItemRanker):
    """Self-attention over the last items a device saw, ranking up to 100 candidates.

    items: size of the catalogue; ids are 1..items, and 0 is padding on the left.
    length: how many of the last items the device looks at.
    dim: of embeddings. width, layers, heads, dropout: of the transformer, which is as wide as the
    embeddings where no width is given. Raises ValueError when `heads` does not divide the width.
    """

    def __init__(
        self,
        items: int,
        length: int = 10,
        dim: int = 32,
        width: int | None = None,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.1,
    ) -> None:
        width = dim if width is None else width
        super().__init__(items, length, dim=dim, width=width)
        if width % heads:
            raise ValueError(f"heads must divide width, got width = {width} and heads = {heads}")
        self.trunk = _Trunk(items, length, dim, width, layers, heads, dropout)
        self.head = NextItemHead(width, dim)
