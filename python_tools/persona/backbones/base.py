"""What a backbone is: the frozen on-device model, cut where editing begins.

`forward = head ∘ trunk`. The trunk never changes on a device, so training an adapter computes it
once; slots usually sit in the head, though any linear layer (or, for affine slots, any layer with
a weight and a bias) may be one.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from persona.registry import Registry

Task = Literal["classification", "ranking"]


@dataclass(frozen=True)
class DynamicDim:
    """A dimension that the caller chooses within limits, such as the number of candidates."""

    name: str
    min: int
    max: int


@dataclass(frozen=True)
class InputSpec:
    """One input of the program: name, dtype ("float32" or "int64") and shape with batch 1."""

    name: str
    dtype: Literal["float32", "int64"]
    shape: tuple[int | DynamicDim, ...]


class Backbone(nn.Module):
    """Base class. A subclass sets `trunk` and `head` and says what it takes and what it tells.

    trunk: inputs [n, ...] -> hidden, a tensor or a tuple of tensors [n, ...].
    head: hidden -> output [n, outputs]: class logits, or the score of each candidate.
    """

    task: Task
    trunk: nn.Module
    head: nn.Module

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs [n, ...] -> output [n, classes] or [n, candidates]."""
        hidden = self.trunk(*inputs)
        return self.head(*hidden) if isinstance(hidden, tuple) else self.head(hidden)

    def input_specs(self) -> tuple[InputSpec, ...]:
        """The inputs of the exported program, in order, for one sample (batch 1)."""
        raise NotImplementedError(f"{type(self).__name__} must say its inputs")

    def features(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What a device pools over its window: features [n, F] and class posterior [n, C].

        Only backbones whose observation is pooled statistics have it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no pooled features")

    def item_embeddings(self) -> Tensor:
        """The frozen item table [items + 1, dim], row 0 padding: how the cloud reads histories.

        Only backbones that rank have it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no item embeddings")

    def take_items(self, embeddings: Tensor, biases: Tensor) -> None:
        """Rank with these embeddings [items + 1, dim] for good, and begin with biases [items + 1].

        Row 0 of both is padding. Raises ValueError where `embeddings` is not as wide as the table,
        and NotImplementedError where a backbone takes none: only those that rank may, and need it
        where a cloud's ranker gives its table.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot take a table of items")

    def default_slots(self) -> dict[str, dict[str, Any]]:
        """Slot name -> settings, for configurations that name none."""
        raise NotImplementedError(f"{type(self).__name__} must name its slots")

    def example_inputs(self, seed: int = 0, dynamic: int | None = None) -> tuple[Tensor, ...]:
        """Random inputs that fit `input_specs`; dynamic dimensions take `dynamic`, or their max."""
        generator = torch.Generator().manual_seed(seed)
        tensors = []
        for spec in self.input_specs():
            shape = [
                d if isinstance(d, int) else (d.max if dynamic is None else dynamic)
                for d in spec.shape
            ]
            if spec.dtype == "int64":
                high = self.vocabulary_of(spec.name)
                tensors.append(torch.randint(1, high, shape, generator=generator))
            else:
                tensors.append(torch.randn(shape, generator=generator))
        return tuple(tensors)

    def vocabulary_of(self, input_name: str) -> int:
        """Exclusive upper limit of an integer input."""
        raise NotImplementedError(f"{type(self).__name__} takes no integers as {input_name!r}")


backbones: Registry[type[Backbone]] = Registry("backbone", "persona.backbones")
