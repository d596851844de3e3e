"""The prototype bank: K group edits, shipped with the bundle, around which devices are edited.

    P_k            the edit of group k, from the codes near centre c_k
    k* = argmin_k ‖ΔW(z) − P_k‖      the prototype from which the own edit is smallest
    W_eff = W + P_k* + ΔW(z | k*),   ΔW(z | k) = clip(ΔW(z) − P_k)

(arXiv 2509.06552, prototype-based parameter editing.)
"""

import torch
from torch import Tensor, nn

from persona.formats.edit import quantise
from persona.formats.slots import SlotKind, SlotSpec
from persona.method.slots import Edit, clip


class PrototypeBank(nn.Module):
    """K centres in the space of codes, and K group edits within the slots' bounds.

    centres: [K, L · latent]. edits: `SLOT.SUFFIX` -> [K, ...], trained on the groups' devices,
    all but low-rank factors b: those are the adapter's, shared by all edits, so that
    P_k + ΔW(z | k) = b·a_k + b·(a − a_k) is the whole edit b·a.
    """

    centres: Tensor

    def __init__(self, slots: tuple[SlotSpec, ...], count: int, code_width: int) -> None:
        super().__init__()
        self.slots = slots
        self.count = count
        self.register_buffer("centres", torch.zeros(count, code_width))
        self.raw = nn.ParameterDict(
            {
                _key(f"{s.name}.{suffix}"): nn.Parameter(
                    torch.zeros(count, *shape), requires_grad=suffix != "b"
                )
                for s in slots
                for suffix, shape in s.tensors().items()
            }
        )

    def edits(self) -> Edit:
        """All group edits, tensors [K, ...], clipped."""
        named = {
            f"{s.name}.{suffix}": self.raw[_key(f"{s.name}.{suffix}")]
            for s in self.slots
            for suffix in s.tensors()
        }
        return clip(self.slots, named)

    def set_group(self, index: int, edit: Edit) -> None:
        """Begin group `index` from an edit, tensors [...]."""
        with torch.no_grad():
            for name, value in edit.items():
                self.raw[_key(name)][index] = value

    def round_to_half(self) -> None:
        """Round the group edits to F16 within their bounds, as the bundle ships them."""
        values = {name: value.detach().numpy() for name, value in self.edits().items()}
        for name, rounded in quantise(self.slots, values).items():
            self.raw[_key(name)].data.copy_(torch.from_numpy(rounded.astype("float32")))

    def chosen(self, assignment: Tensor) -> Edit:
        """Group edits for devices [D] by prototype, tensors [D, ...]."""
        return {name: value[assignment] for name, value in self.edits().items()}

    def assign(self, edit: Edit) -> Tensor:
        """argmin_k ‖ΔW − P_k‖ for whole edits with tensors [D, ...]; returns int64 [D]."""
        groups = self.edits()
        own = torch.cat([_materialise(slot, edit) for slot in self.slots], dim=1)
        bank = torch.cat([_materialise(slot, groups) for slot in self.slots], dim=1)
        return torch.cdist(own, bank).argmin(dim=1)

    def relative(self, edit: Edit, assignment: Tensor) -> Edit:
        """ΔW(z | k): what is left of whole edits [D, ...] beside their prototypes [D].

        Low-rank factors b are shared by all edits, so only a is a difference.
        """
        groups = self.chosen(assignment)
        shared = {f"{s.name}.b" for s in self.slots if s.kind is SlotKind.LOW_RANK}
        rest = {n: v if n in shared else v - groups[n] for n, v in edit.items()}
        return clip(self.slots, rest)


def _key(name: str) -> str:
    """Parameter names may not hold dots."""
    return name.replace(".", "/")


def _materialise(slot: SlotSpec, edit: Edit) -> Tensor:
    """A slot's change as vectors [D, values]: factors multiplied out."""
    tensors = {suffix: edit[f"{slot.name}.{suffix}"] for suffix in slot.tensors()}
    if slot.kind is SlotKind.LOW_RANK:
        tensors["weight"] = tensors.pop("b") @ tensors.pop("a")
    return torch.cat([value.flatten(1) for value in tensors.values()], dim=1)
