"""When not to edit: a learned strength, and a limit on how strange a window may be.

    s(z₀) = σ(MLP(z₀)) ∈ (0, 1)                    strength, trained with the adapter
    d(o) = max(T²(o) / T²_q, Q(o) / Q_q)           strangeness: within and beside the subspace
    ΔW = clip(s · 1[d ≤ 1] · H(z))

T² is Hotelling's statistic in the first principal components of the training devices' observations
and Q the squared distance from their subspace (Jackson and Mudholkar 1979); both are relative to
their q-quantile on validation devices. A strange window gets no edit: the device stays on its base.
"""

import torch
from torch import Tensor, nn

from persona.method.encoders import CLAMP

EXPLAINED = 0.9
"""Share of the variance that the subspace holds."""

MOST_COMPONENTS = 64


class Strength(nn.Module):
    """z₀ [D, latent] -> s [D] in (0, 1); begins near 1."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(latent, latent), nn.GELU(), nn.Linear(latent, 1))
        last = self.net[2]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(last.bias, 3.0)

    def forward(self, z0: Tensor) -> Tensor:
        strength: Tensor = self.net(z0).squeeze(-1).sigmoid()
        return strength


class Familiarity(nn.Module):
    """How far an observation [D, width] is from those that the adapter was trained on.

    Until `calibrate` is called everything is familiar.
    """

    mean: Tensor
    deviation: Tensor
    components: Tensor
    variances: Tensor
    limits: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        rank = min(MOST_COMPONENTS, width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("components", torch.zeros(rank, width))
        self.register_buffer("variances", torch.ones(rank))
        self.register_buffer("limits", torch.full((2,), torch.inf))

    def calibrate(self, train: Tensor, validation: Tensor, quantile: float) -> None:
        """Fit the subspace to `train` [D, width], the limits to `validation` [V, width]."""
        self.mean.copy_(train.mean(0))
        self.deviation.copy_(train.std(0).clamp_min(1e-4))
        _, values, rows = torch.linalg.svd(self._standard(train), full_matrices=False)
        variances = values.square() / len(train)
        share = variances.cumsum(0) / variances.sum()
        kept = min(int((share < EXPLAINED).sum()) + 1, len(self.variances))
        self.components.zero_()
        self.components[:kept] = rows[:kept]
        self.variances.fill_(1.0)
        self.variances[:kept] = variances[:kept].clamp_min(1e-6)
        self.limits.copy_(torch.quantile(self._statistics(validation), quantile, dim=0))

    def _standard(self, vectors: Tensor) -> Tensor:
        return ((vectors - self.mean) / self.deviation).clamp(-CLAMP, CLAMP)

    def _statistics(self, vectors: Tensor) -> Tensor:
        """[D, width] -> T² and Q, [D, 2]."""
        standard = self._standard(vectors)
        inside = standard @ self.components.T
        within = (inside.square() / self.variances).sum(1)
        beside = (standard - inside @ self.components).square().sum(1)
        return torch.stack([within, beside], 1)

    def strangeness(self, vectors: Tensor) -> Tensor:
        """d(o) [D]: above 1 is strange."""
        return (self._statistics(vectors) / self.limits).amax(1)

    def forward(self, vectors: Tensor) -> Tensor:
        """1 where the observation is familiar, 0 where it is strange, [D]."""
        return (self.strangeness(vectors) <= 1).to(vectors.dtype)
