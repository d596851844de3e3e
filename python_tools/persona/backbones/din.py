"""Deep Interest Network for phones: each candidate attends to the history by itself.

    score(c) = u_c · e_c + β_c,   u_c = v_c + W₂ relu(W₁ v_c + b₁) + b₂
    v_c = Σ_h a(e_h, e_c) e_h,    a = w · relu(W [e_h, e_c, e_h − e_c, e_h ⊙ e_c] + b) + β

The sum runs over the items h of the history, never over padding, and a is not normalised, so that
much of one interest weighs more than little of it. The two linear layers of u are the slots; they
start near u = v. Source: Zhou et al., Deep Interest Network (arXiv 1706.06978), section 4.3 and
figure 2, with ReLU for Dice and a scored product for the last layers, so that items stay tied.
"""

import torch
from torch import Tensor, nn

from persona.backbones.base import backbones
from persona.backbones.next_item import NextItemRanker, NextItemTrunk, refinement


class _Attention(nn.Module):
    """(history [n, length, dim], candidates [n, c, dim]) -> weights a [n, c, length].

    W [e_h, e_c, e_h − e_c, e_h ⊙ e_c] = (W₁ + W₃) e_h + (W₂ − W₃) e_c + W₄ (e_h ⊙ e_c): the three
    maps on the right are what is kept, for a quarter of the multiplications.
    """

    def __init__(self, dim: int, hidden: int, length: int) -> None:
        super().__init__()
        self.history = nn.Linear(dim, hidden)
        self.candidate = nn.Linear(dim, hidden, bias=False)
        self.product = nn.Linear(dim, hidden, bias=False)
        self.weight = nn.Linear(hidden, 1)
        with torch.no_grad():
            self.weight.bias.fill_(1 / length)

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        past, asked = history.unsqueeze(1), candidates.unsqueeze(2)
        mixed = self.history(past) + self.candidate(asked) + self.product(past * asked)
        weights: Tensor = self.weight(torch.relu(mixed)).squeeze(-1)
        return weights


class _Trunk(NextItemTrunk):
    """(history [n, length], candidates [n, c]) -> interests [n, c, dim], embeddings, bias [n, c].

    Interests and embeddings have one row for each candidate.
    """

    def __init__(self, items: int, length: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(items, dim)
        self.attention = _Attention(dim, hidden, length)
        self.dropout = nn.Dropout(dropout)
        self.start_items()

    def forward(self, history: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embeddings, bias = self.scored(candidates)
        past = self.dropout(self.items(history))
        present = (history != 0).to(past.dtype).unsqueeze(1)
        interests = (self.attention(past, embeddings) * present) @ past
        return interests, embeddings, bias


class _Head(nn.Module):
    """(interests [n, c, dim], embeddings [n, c, dim], bias [n, c]) -> scores [n, c]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.user = refinement(dim, dim)

    def forward(self, interests: Tensor, embeddings: Tensor, bias: Tensor) -> Tensor:
        user = interests + self.user(interests)
        return (user * embeddings).sum(-1) + bias


@backbones.register("din")
class DIN(NextItemRanker):
    """Attention of each candidate to the last items a device saw; ranks up to 100 candidates.

    items: size of the catalogue; ids are 1..items, and 0 is padding. The order of the history is
    not looked at.
    length: how many of the last items the device looks at.
    dim: of embeddings. hidden: units of the attention's network. dropout: on the embeddings of
    the history.
    Raises ValueError where `hidden` is below 1.
    """

    def __init__(
        self,
        items: int,
        length: int = 10,
        dim: int = 32,
        hidden: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(items, length, dim=dim, hidden=hidden)
        self.trunk = _Trunk(items, length, dim, hidden, dropout)
        self.head = _Head(dim)
