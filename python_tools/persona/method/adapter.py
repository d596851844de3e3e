"""The neural adapter: an observation becomes one edit for all slots.

    z₀ = Enc(o)                                    window encoder
    h_l = GRU(z₀, h_{l−1}),  z_l = tanh(MLP_l(h_l))    cross-layer knowledge transfer
    ΔW_l = clip(s · H_l(z_l), ±ε_l)                one generator a slot; s is the gate's

(arXiv 2509.06552: encoding, cross-layer transfer and parameter editing.) A low-rank slot has
ΔW_l = B_l·A_l(z_l): B_l is learned and shared by all devices, A_l is generated.
"""

import torch
from torch import Tensor, nn

from persona.formats.slots import SlotKind, SlotSpec
from persona.method.gate import Familiarity, Strength
from persona.method.slots import Edit, clip


class CrossLayerTransfer(nn.Module):
    """z₀ [D, latent] -> z [D, L, latent]: the code for slot l knows the codes before it.

    With `enabled=False` every slot's code depends on z₀ alone: the ablation.
    """

    def __init__(self, slots: int, latent: int, *, enabled: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(latent, latent) if enabled else None
        self.norms = nn.ModuleList(nn.BatchNorm1d(latent, affine=False) for _ in range(slots))
        self.codes = nn.ModuleList(
            nn.Sequential(nn.Linear(latent, latent), nn.GELU(), nn.Linear(latent, latent))
            for _ in range(slots)
        )

    def forward(self, z0: Tensor) -> Tensor:
        """[D, latent] -> [D, L, latent], each value within ±1."""
        codes = []
        hidden = torch.zeros_like(z0)
        for norm, code in zip(self.norms, self.codes, strict=True):
            hidden = z0 if self.cell is None else self.cell(z0, hidden)
            codes.append(torch.tanh(code(norm(hidden))))
        return torch.stack(codes, dim=1)


class SlotGenerator(nn.Module):
    """H_l: z_l [D, latent] -> the raw change of one slot, `SUFFIX` -> [D, ...].

    output_std: deviation of the first weights; edits begin small but not equal.
    """

    def __init__(self, slot: SlotSpec, latent: int, output_std: float) -> None:
        super().__init__()
        self.shapes = slot.tensors()
        self.shared: nn.Parameter | None = None
        if slot.kind is SlotKind.LOW_RANK:
            limit = slot.limits()["b"]
            self.shared = nn.Parameter(torch.empty(self.shapes.pop("b")).uniform_(-limit, limit))
        self.heads = nn.ModuleDict()
        for suffix, shape in self.shapes.items():
            head = nn.Linear(latent, torch.Size(shape).numel())
            nn.init.normal_(head.weight, std=output_std)
            nn.init.zeros_(head.bias)
            self.heads[suffix] = head

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        """[D, latent] -> tensors [D, *shape]."""
        raw = {x: head(z).unflatten(1, self.shapes[x]) for x, head in self.heads.items()}
        if self.shared is not None:
            raw["b"] = self.shared.expand(len(z), -1, -1)
        return raw


class PriorSeed(nn.Module):
    """Adds σ(gate)·log(π / π_train) to the last bias: a learned share of prior correction.

    π is the class mix that the device estimated for its window, π_train the backbone's.
    """

    log_trained: Tensor

    def __init__(self, bias_name: str, columns: slice, training_mass: tuple[float, ...]) -> None:
        super().__init__()
        self.bias_name = bias_name
        self.columns = columns
        self.register_buffer("log_trained", torch.tensor(training_mass).log())
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, vectors: Tensor, raw: Edit) -> None:
        """vectors [D, width], with the estimate π in `columns`."""
        ratio = vectors[:, self.columns].clamp_min(1e-4).log() - self.log_trained
        raw[self.bias_name] = raw[self.bias_name] + self.gate.sigmoid() * ratio


class Adapter(nn.Module):
    """Observations -> codes and clipped edits, for D devices at once."""

    def __init__(
        self,
        slots: tuple[SlotSpec, ...],
        encoder: nn.Module,
        latent: int,
        *,
        cross_layer: bool,
        prior: PriorSeed | None,
        strength: Strength | None,
        familiarity: Familiarity | None,
        output_std: float,
    ) -> None:
        super().__init__()
        self.slots = slots
        self.encoder = encoder
        self.transfer = CrossLayerTransfer(len(slots), latent, enabled=cross_layer)
        self.generators = nn.ModuleList(SlotGenerator(s, latent, output_std) for s in slots)
        self.prior = prior
        self.strength = strength
        self.familiarity = familiarity

    def codes(self, observations: Tensor) -> Tensor:
        """Latents z [D, L, latent] of observations [D, ...]."""
        codes: Tensor = self.transfer(self.encoder(observations))
        return codes

    def generate(self, codes: Tensor) -> Edit:
        """H_l(z_l): what latents [D, L, latent] alone say, before prior seed, gate and clip."""
        return {
            f"{slot.name}.{suffix}": value
            for index, (slot, generator) in enumerate(zip(self.slots, self.generators, strict=True))
            for suffix, value in generator(codes[:, index]).items()
        }

    def forward(self, observations: Tensor) -> tuple[Edit, Tensor]:
        """Observations [D, ...] -> the whole edit from the base, tensors [D, ...], and latents."""
        z0 = self.encoder(observations)
        codes: Tensor = self.transfer(z0)
        raw = self.generate(codes)
        if self.prior is not None:
            self.prior(observations, raw)
        scale = torch.ones(len(codes))
        if self.strength is not None:
            scale = scale * self.strength(z0)
        if self.familiarity is not None:
            scale = scale * self.familiarity(observations)
        return clip(self.slots, scaled(self.slots, raw, scale)), codes


def scaled(slots: tuple[SlotSpec, ...], edit: Edit, scale: Tensor) -> Edit:
    """Edits [D, ...] times a number each [D]; of low-rank factors only a, so that b·a scales."""
    shared = {f"{s.name}.b" for s in slots if s.kind is SlotKind.LOW_RANK}
    return {
        name: value if name in shared else value * scale.reshape(-1, *[1] * (value.dim() - 1))
        for name, value in edit.items()
    }
