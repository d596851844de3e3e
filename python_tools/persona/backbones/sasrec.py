"""SASRec for phones: causal self-attention over a device's last items, scoring given candidates.

    score(c) = u · e_c + β_c,   u = h + W₂ relu(W₁ h + b₁) + b₂

h is the state after the last item, e_c the candidate's embedding, tied to the history's. The two
linear layers of u are the slots; they start near u = h.
"""

from typing import Any

import torch
from torch import Tensor, nn

from persona.backbones.base import Backbone, DynamicDim, InputSpec, backbones

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


class _Trunk(nn.Module):
    """(history [n, length], candidates [n, c]) -> state [n, dim], embeddings [n, c, dim], bias."""

    causal: Tensor

    def __init__(
        self, items: int, length: int, dim: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, dim, padding_idx=0)
        self.bias = nn.Embedding(items + 1, 1, padding_idx=0)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.1)
        self.blocks = nn.ModuleList(_Block(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("causal", torch.ones(length, length).tril(), persistent=False)
        with torch.no_grad():
            self.items.weight[1:].normal_(std=dim**-0.5)
            self.bias.weight.zero_()

    def states(self, history: Tensor) -> Tensor:
        """History [n, length] -> the state after each item [n, length, dim]."""
        present = (history != 0).to(self.position.dtype)
        mask = (1 - self.causal * present[:, None, None, :]) * _MASKED
        x = self.dropout(self.items(history) + self.position)
        for block in self.blocks:
            x = block(x, mask)
        states: Tensor = self.norm(x)
        return states

    def forward(self, history: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = self.states(history)[:, -1]
        return state, self.items(candidates), self.bias(candidates).squeeze(-1)


class _Head(nn.Module):
    """(state [n, dim], embeddings [n, c, dim], bias [n, c]) -> scores [n, c]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.user = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        last = self.user[2]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.normal_(std=0.01)
            last.bias.zero_()

    def forward(self, state: Tensor, embeddings: Tensor, bias: Tensor) -> Tensor:
        user = state + self.user(state)
        return (embeddings @ user.unsqueeze(-1)).squeeze(-1) + bias


@backbones.register("sasrec")
class SASRec(Backbone):
    """Self-attention over the last items a device saw, ranking up to 100 candidates.

    items: size of the catalogue; ids are 1..items, and 0 is padding on the left.
    length: how many of the last items the device looks at.
    dim, layers, heads, dropout: of the transformer; `heads` divides `dim`.
    Raises ValueError when it does not.
    """

    task = "ranking"

    def __init__(
        self,
        items: int,
        length: int = 10,
        dim: int = 32,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide dim, got dim = {dim} and heads = {heads}")
        self.items, self.length = items, length
        self.trunk = _Trunk(items, length, dim, layers, heads, dropout)
        self.head = _Head(dim)

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (
            InputSpec("history", "int64", (1, self.length)),
            InputSpec("candidates", "int64", (1, DynamicDim("candidates", 1, 100))),
        )

    def default_slots(self) -> dict[str, dict[str, Any]]:
        return {
            "head.user.0": {"kind": "dense", "bound": 0.5, "bias_bound": 0.5},
            "head.user.2": {"kind": "dense", "bound": 0.5, "bias_bound": 0.5},
        }

    def vocabulary_of(self, input_name: str) -> int:
        """Items + 1 for both inputs."""
        if input_name not in ("history", "candidates"):
            return super().vocabulary_of(input_name)
        return self.items + 1

    def item_embeddings(self) -> Tensor:
        """The item table [items + 1, dim], detached; row 0 is padding. For the cloud's encoder."""
        trunk = self.trunk
        assert isinstance(trunk, _Trunk)
        return trunk.items.weight.detach()
