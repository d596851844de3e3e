"""Observations in, edits out: what the cloud runs, and evaluation with it.

W_eff = W + P_k* + ΔW(z | k*)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from persona.method.adapter import Adapter
from persona.method.prototypes import PrototypeBank
from persona.method.slots import Edit, compose, edited_forward


@dataclass(frozen=True)
class Personalised:
    """For D devices: prototype k* [D], edit relative to it [D, ...], latents [D, L, latent]."""

    prototype: Tensor
    edit: Edit
    codes: Tensor


class Personaliser(nn.Module):
    """Adapter and prototype bank together."""

    def __init__(self, adapter: Adapter, bank: PrototypeBank) -> None:
        super().__init__()
        self.adapter = adapter
        self.bank = bank

    def forward(self, observations: Tensor) -> Personalised:
        """Observations [D, ...] -> prototypes, edits and latents of D devices."""
        edit, codes = self.adapter(observations)
        prototype = self.bank.assign(edit)
        return Personalised(prototype, self.bank.relative(edit, prototype), codes)

    def change(self, prototype: Tensor, edit: Mapping[str, Tensor]) -> Edit:
        """Prototype + edit for D devices, as `edited_forward` takes it."""
        return compose(self.adapter.slots, self.bank.chosen(prototype), edit)

    def probe(
        self,
        backbone: nn.Module,
        prototype: Tensor,
        edit: Mapping[str, Tensor],
        inputs: tuple[Tensor, ...],
    ) -> Tensor:
        """What these edits make of one input [1, ...]: outputs [D, 1, outputs]."""
        count = len(prototype)
        repeated = tuple(x.expand(count, *x.shape) for x in inputs)
        with torch.inference_mode():
            change = self.change(prototype, edit)
            return edited_forward(backbone, self.adapter.slots, change, repeated)
