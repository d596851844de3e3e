"""GRU4Rec for phones: a gated recurrent unit over a device's last items, scoring given candidates.

    r = σ(W_r x + U_r h),   z = σ(W_z x + U_z h),   n = tanh(W_n x + r ⊙ U_n h)
    h ← h + (1 − z) ⊙ (n − h)

x is the embedding of one item of the history; biases are left out above. Padding leaves h as it
is. The state that `next_item` scores from is h after the last item. Source: Hidasi et al.,
Session-based Recommendations with Recurrent Neural Networks (arXiv 1511.06939), section 3, with
the gates as `torch.nn.GRU` has them; one layer, which did best there.
"""

import torch
from torch import Tensor, nn

from persona.backbones.base import backbones
from persona.backbones.next_item import NextItemHead, NextItemRanker, NextItemTrunk


class _Trunk(NextItemTrunk):
    """(history [n, length], candidates [n, c]) -> state [n, width], embeddings, biases [n, c]."""

    def __init__(self, items: int, dim: int, width: int, dropout: float) -> None:
        super().__init__(items, dim)
        self.input = nn.Linear(dim, 3 * width)
        self.recurrent = nn.Linear(width, 3 * width)
        self.dropout = nn.Dropout(dropout)
        self.start_items()

    def state(self, history: Tensor) -> Tensor:
        """History [n, length] -> the state after the last item [n, width]."""
        present = (history != 0).to(self.input.weight.dtype).unsqueeze(-1)
        x = self.input(self.dropout(self.items(history)))
        h = torch.zeros_like(x[:, 0, : self.recurrent.in_features])
        for given, here in zip(x.unbind(1), present.unbind(1), strict=True):
            h = self._next(given, here, h)
        return h

    def _next(self, given: Tensor, present: Tensor, h: Tensor) -> Tensor:
        """One item: its share of the gates [n, 3 · width], whether it is one [n, 1], and h."""
        given_r, given_z, given_n = given.chunk(3, -1)
        past_r, past_z, past_n = self.recurrent(h).chunk(3, -1)
        new = torch.tanh(given_n + torch.sigmoid(given_r + past_r) * past_n)
        return h + present * torch.sigmoid(-given_z - past_z) * (new - h)

    def forward(self, history: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.state(history), *self.scored(candidates)


@backbones.register("gru4rec")
class GRU4Rec(NextItemRanker):
    """A recurrent unit over the last items a device saw, ranking up to 100 candidates.

    items: size of the catalogue; ids are 1..items, and 0 is padding on the left.
    length: how many of the last items the device looks at.
    dim: of embeddings. width: of the state; as `dim` where none is given. dropout: on the
    embeddings of the history.
    """

    def __init__(
        self,
        items: int,
        length: int = 10,
        dim: int = 32,
        width: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        width = dim if width is None else width
        super().__init__(items, length, dim=dim, width=width)
        self.trunk = _Trunk(items, dim, width, dropout)
        self.head = NextItemHead(width, dim)
