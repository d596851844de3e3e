"""Evolution: as latents drift, centres follow, and each group edit follows its centre.

    P'_k = clip(P_k + H(c'_k) − H(c_k))

(arXiv 2509.06552, prototypes evolve.) H_l is linear, so what is generated for the mean latent of a
group is the mean of what is generated for its devices: before the clip, P'_k moves as the mean
edit of its devices does, and keeps what fitting it to devices has added. That needs the latents
alone. What an edit has beside them, the prior seed and the gate, cannot be seen to move.
"""

import copy

import torch
from torch import Tensor

from persona.method.adapter import Adapter
from persona.method.prototypes import PrototypeBank
from persona.method.slots import clip


def nearest(centres: Tensor, latents: Tensor) -> Tensor:
    """argmin_k ‖z − c_k‖ of latents [D, L · latent]: int64 [D]."""
    return torch.cdist(latents, centres).argmin(dim=1)


def follow(bank: PrototypeBank, adapter: Adapter, centres: Tensor) -> PrototypeBank:
    """A bank at centres c' [K, L · latent], each group edit moved with its own."""
    moved = copy.deepcopy(bank)
    with torch.no_grad():
        before, after = (
            adapter.generate(c.reshape(bank.count, len(bank.slots), -1))
            for c in (bank.centres, centres)
        )
        groups = {n: value + (after[n] - before[n]) for n, value in bank.edits().items()}
        groups = clip(bank.slots, groups)
    for k in range(bank.count):
        moved.set_group(k, {name: value[k] for name, value in groups.items()})
    moved.centres.copy_(centres)
    return moved
