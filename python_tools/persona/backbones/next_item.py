"""What rankers of next items share: inputs, a tied item table, and the head that scores.

    score(c) = u · e_c + β_c,   u = U h + W₂ relu(W₁ h + b₁) + b₂

h is what the trunk made of the history, e_c the candidate's embedding, tied to the history's, and
β_c its bias. U is the identity, but where h is narrower than the embeddings. The two linear layers
of the rest are the slots; they start near u = U h.
"""

from typing import Any

import torch
from torch import Tensor, nn

from persona.backbones.base import Backbone, DynamicDim, InputSpec

MAX_CANDIDATES = 100


def refinement(width: int, dim: int) -> nn.Sequential:
    """h [..., width] ↦ W₂ relu(W₁ h + b₁) + b₂ [..., dim], close to 0 before training."""
    first, last = nn.Linear(width, width), nn.Linear(width, dim)
    with torch.no_grad():
        last.weight.normal_(std=0.01)
        last.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), last)


def between(width: int, other: int) -> nn.Module:
    """[..., width] -> [..., other]: what is as wide as it shall be stays as it is."""
    return nn.Identity() if width == other else nn.Linear(width, other)


class NextItemHead(nn.Module):
    """(state [n, width], embeddings [n, c, dim], bias [n, c]) -> scores [n, c]."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.up = between(width, dim)
        self.user = refinement(width, dim)

    def forward(self, state: Tensor, embeddings: Tensor, bias: Tensor) -> Tensor:
        user = self.up(state) + self.user(state)
        return (embeddings @ user.unsqueeze(-1)).squeeze(-1) + bias


class NextItemTrunk(nn.Module):
    """The item table [items + 1, dim] and an item bias; row 0 of both is padding."""

    def __init__(self, items: int, dim: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, dim, padding_idx=0)
        self.bias = nn.Embedding(items + 1, 1, padding_idx=0)

    def start_items(self) -> None:
        """Draw embeddings of about unit length, and begin without bias."""
        with torch.no_grad():
            self.items.weight[1:].normal_(std=self.items.embedding_dim**-0.5)
            self.bias.weight.zero_()

    def scored(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates [n, c] -> embeddings [n, c, dim] and biases [n, c]."""
        return self.items(candidates), self.bias(candidates).squeeze(-1)


class NextItemRanker(Backbone):
    """Ranks up to 100 candidates by the last `length` items that a device saw.

    Ids are 1..items, and 0 is padding on the left. A subclass sets `trunk`, a NextItemTrunk, and
    a `head` whose `user` is a `refinement`.
    Raises ValueError where a size is below 1.
    """

    task = "ranking"
    trunk: NextItemTrunk

    def __init__(self, items: int, length: int, **sizes: int) -> None:
        super().__init__()
        for name, value in {"items": items, "length": length, **sizes}.items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        self.items, self.length = items, length

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (
            InputSpec("history", "int64", (1, self.length)),
            InputSpec("candidates", "int64", (1, DynamicDim("candidates", 1, MAX_CANDIDATES))),
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
        return self.trunk.items.weight.detach()

    def take_items(self, embeddings: Tensor, biases: Tensor) -> None:
        """Score with this table, which training leaves as it is; biases are only a beginning."""
        items = self.trunk.items
        if embeddings.shape != items.weight.shape:
            raise ValueError(
                f"the table is {list(items.weight.shape)}, items + 1 and dim, and the one to take "
                f"is {list(embeddings.shape)}: set dim = {embeddings.shape[1]}"
            )
        with torch.no_grad():
            items.weight.copy_(embeddings)
            self.trunk.bias.weight.copy_(biases.unsqueeze(1))
        items.requires_grad_(False)
