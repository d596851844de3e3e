"""What a slot is on the wire, and the one sentence every device obeys.

    effective = base + prototype + edit

A dense slot adds tensors element by element. A low-rank slot adds the products of its factors,
so the factors are stacked along the rank: [a_p; a_e] and [b_p, b_e]. A per-channel affine slot
adds to the multiplier (whose base is 1) and to the shift (whose base is 0).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Tensors = Mapping[str, Array]


class SlotKind(StrEnum):
    """How a slot is edited: all weights, two thin factors, or a scale and shift a channel."""

    DENSE = "dense"
    LOW_RANK = "low-rank"
    AFFINE = "affine"


SUFFIXES = ("weight", "a", "b", "scale", "shift", "bias")
"""Every tensor suffix that a slot of any kind may have. A tensor is named `SLOT.SUFFIX`."""


@dataclass(frozen=True)
class SlotSpec:
    """One editable slot of a bundle.

    name: the module's path in the backbone, such as `head.0`.
    out, in_: rows and columns of the weight (affine: `out` channels, `in_` = 0).
    rank: of one edit; 0 unless low-rank.
    bound: limit for each weight change (low-rank: for each element of b·a; affine: the scale).
    bias_bound: limit for each bias change (affine: the shift). 0 where the slot has no bias.
    """

    name: str
    kind: SlotKind
    out: int
    in_: int
    rank: int
    bias: bool
    bound: float
    bias_bound: float

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Suffix -> shape of the tensors in an edit of this slot, in the contract's order."""
        match self.kind:
            case SlotKind.DENSE:
                shapes: dict[str, tuple[int, ...]] = {"weight": (self.out, self.in_)}
            case SlotKind.LOW_RANK:
                shapes = {"a": (self.rank, self.in_), "b": (self.out, self.rank)}
            case SlotKind.AFFINE:
                return {"scale": (self.out,), "shift": (self.out,)}
        if self.bias:
            shapes["bias"] = (self.out,)
        return shapes

    def feeds(self) -> dict[str, tuple[int, ...]]:
        """Suffix -> shape of the tensors that a program takes: an edit's, with twice the rank."""
        shapes = self.tensors()
        if self.kind is SlotKind.LOW_RANK:
            shapes |= {"a": (2 * self.rank, self.in_), "b": (self.out, 2 * self.rank)}
        return shapes

    def limits(self) -> dict[str, float]:
        """Suffix -> largest magnitude allowed, as the nearest binary32 number.

        Low-rank factors are bounded so that their product is: |a| <= 1 and |b| <= bound / rank.
        """
        match self.kind:
            case SlotKind.DENSE:
                limits = {"weight": self.bound}
            case SlotKind.LOW_RANK:
                limits = {"a": 1.0, "b": self.bound / self.rank}
            case SlotKind.AFFINE:
                limits = {"scale": self.bound, "shift": self.bias_bound}
        if self.bias and self.kind is not SlotKind.AFFINE:
            limits["bias"] = self.bias_bound
        return {suffix: float(np.float32(limit)) for suffix, limit in limits.items()}


def tensor_names(slots: tuple[SlotSpec, ...]) -> dict[str, tuple[int, ...]]:
    """`SLOT.SUFFIX` -> shape for every tensor of an edit, in the contract's order."""
    return {f"{s.name}.{suffix}": shape for s in slots for suffix, shape in s.tensors().items()}


def zero_edit(slots: tuple[SlotSpec, ...]) -> dict[str, Array]:
    """The edit that changes nothing."""
    return {name: np.zeros(shape, np.float32) for name, shape in tensor_names(slots).items()}


def sum_changes(slots: tuple[SlotSpec, ...], prototype: Tensors, edit: Tensors) -> dict[str, Array]:
    """Prototype + edit, the change that Core ML slots take, with the shapes of `feeds`."""
    change: dict[str, Array] = {}
    for slot in slots:
        for suffix in slot.tensors():
            name = f"{slot.name}.{suffix}"
            match suffix:
                case "a":
                    change[name] = np.concatenate([prototype[name], edit[name]], axis=0)
                case "b":
                    change[name] = np.concatenate([prototype[name], edit[name]], axis=1)
                case _:
                    change[name] = prototype[name] + edit[name]
    return change


def effective(
    slots: tuple[SlotSpec, ...], base: Tensors, prototype: Tensors, edit: Tensors
) -> dict[str, Array]:
    """Base + prototype + edit, the values that ExecuTorch slots take.

    Low-rank factors pass through: their base stays constant inside the program.
    """
    change = sum_changes(slots, prototype, edit)
    factors = {f"{s.name}.{x}" for s in slots if s.kind is SlotKind.LOW_RANK for x in "ab"}
    return {n: v if n in factors else base[n] + v for n, v in change.items()}
