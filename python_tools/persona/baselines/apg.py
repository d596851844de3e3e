"""APG: small matrices generated from the window, between shared ones.

    ΔW = U · S(z) · V,   U = U_l U_r,   V = V_l V_r,   S(z) = H z + c, a K × K matrix

(Yan et al. 2022, Adaptive Parameter Generation for CTR prediction, arXiv 2203.16218, section 3:
low-rank parameterisation, parameter sharing, over-parameterisation.) S is generated for a device,
U and V are shared and each a product over P > K, which training alone pays for. What differs: there
U·S·V is the whole weight and everything is trained together; here the backbone is frozen and the
product is added to its weight. Biases are generated directly; of a low-rank slot b = U and
a = S·V; affine slots, which are vectors, are generated directly.
"""

import torch
from torch import Tensor, nn

from persona.baselines.base import Setting, rivals
from persona.baselines.generated_edits import EditGenerator, GeneratedEdits, encoder
from persona.formats.slots import SlotKind, SlotSpec
from persona.method.adapter import SlotGenerator
from persona.method.slots import Edit

RANK = 32
"""K, at most: no more than the smaller side of the weight; the rank of a low-rank slot."""

OVER = 4
"""P = 4 K."""


class FactorisedSlot(nn.Module):
    """Window codes z [D, latent] -> the change of one dense or low-rank slot, `SUFFIX` -> [D, ...].

    output_std: deviation of the changes at the start, about.
    """

    def __init__(self, slot: SlotSpec, latent: int, output_std: float) -> None:
        super().__init__()
        k = self.rank = slot.rank or min(RANK, slot.out, slot.in_)
        p = OVER * k
        self.low_rank = slot.kind is SlotKind.LOW_RANK
        self.u_left = _normal(slot.out, p, std=p**-0.5)
        self.u_right = _normal(p, k, std=k**-0.5)
        self.v_left = _normal(k, p, std=p**-0.5)
        self.v_right = _normal(p, slot.in_, std=k**-0.5)
        self.core = _linear(latent, k * k, output_std)
        self.bias = _linear(latent, slot.out, output_std) if slot.bias else None

    def factors(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """U [out, K], S [D, K, K] and V [K, in]."""
        core = self.core(z).unflatten(1, (self.rank, self.rank))
        return self.u_left @ self.u_right, core, self.v_left @ self.v_right

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        u, s, v = self.factors(z)
        change = (
            {"a": s @ v, "b": u.expand(len(z), -1, -1)} if self.low_rank else {"weight": u @ s @ v}
        )
        return change if self.bias is None else change | {"bias": self.bias(z)}


def _normal(*shape: int, std: float) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * std)


def _linear(latent: int, outputs: int, std: float) -> nn.Linear:
    layer = nn.Linear(latent, outputs)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


class _Generator(EditGenerator):
    def __init__(self, setting: Setting) -> None:
        super().__init__()
        a = setting.config.adapter
        self.names = [slot.name for slot in setting.slots]
        self.encoder = encoder(setting)
        self.slots = nn.ModuleList(
            (SlotGenerator if slot.kind is SlotKind.AFFINE else FactorisedSlot)(
                slot, a.latent, a.output_std
            )
            for slot in setting.slots
        )

    def forward(self, observations: Tensor) -> Edit:
        z = self.encoder(observations)
        return {
            f"{name}.{suffix}": value
            for name, slot in zip(self.names, self.slots, strict=True)
            for suffix, value in slot(z).items()
        }


@rivals.register("apg")
class APG(GeneratedEdits):
    """Adaptive parameter generation: ΔW = U·S(z)·V with S generated, U and V shared."""

    def generator(self, setting: Setting) -> EditGenerator:
        return _Generator(setting)
