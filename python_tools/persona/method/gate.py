"""When not to edit: a learned strength, and a limit on how strange a window may be.

    s(z₀) = σ(MLP(z₀)) ∈ (0, 1)                    strength, trained with the adapter
    d(o) = max(T²(o) / T²_q, Q(o) / Q_q, p(o) / p_q)    strangeness
    ΔW = clip(s · 1[d ≤ 1] · H(z))

T² is Hotelling's statistic in the first principal components of the training devices' observations
and Q the squared distance from their subspace (Jackson and Mudholkar 1979). p(o) = σ(MLP(o)) is how
likely a window was spoilt, by a classifier that was shown spoilt ones (outlier exposure, Hendrycks
et al., arXiv 1812.04606). Each is relative to its q-quantile on validation devices. A strange
window gets no edit: the device stays on its base.
"""

import torch
from torch import Tensor, nn

from persona.method.encoders import CLAMP

EXPLAINED = 0.9
"""Share of the variance that the subspace holds."""

MOST_COMPONENTS = 64

HIDDEN = 64
"""Width of the classifier of spoilt windows."""


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

    exposed: whether a classifier of spoilt windows judges too; until it learns it says the same of
    all. Until `limit` is called everything is familiar.
    """

    mean: Tensor
    deviation: Tensor
    components: Tensor
    variances: Tensor
    limits: Tensor

    def __init__(self, width: int, *, exposed: bool) -> None:
        super().__init__()
        rank = min(MOST_COMPONENTS, width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("components", torch.zeros(rank, width))
        self.register_buffer("variances", torch.ones(rank))
        self.classifier: nn.Sequential | None = None
        if exposed:
            last = nn.Linear(HIDDEN, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.classifier = nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), last)
        self.register_buffer("limits", torch.full((3 if exposed else 2,), torch.inf))

    def fit(self, train: Tensor) -> None:
        """Fit the subspace to the training devices' observations [D, width]."""
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

    def limit(self, validation: Tensor, quantile: float) -> None:
        """Take the limits from the validation devices' observations [V, width]."""
        with torch.no_grad():
            self.limits.copy_(torch.quantile(self._statistics(validation), quantile, dim=0))

    def suspicion(self, vectors: Tensor) -> Tensor:
        """The classifier's logits [D] of observations [D, width]: above 0 is likelier spoilt."""
        assert self.classifier is not None
        logits: Tensor = self.classifier(self._standard(vectors)).squeeze(-1)
        return logits

    def _standard(self, vectors: Tensor) -> Tensor:
        return ((vectors - self.mean) / self.deviation).clamp(-CLAMP, CLAMP)

    def _statistics(self, vectors: Tensor) -> Tensor:
        """[D, width] -> T², Q and, where a classifier judges, p; [D, 2] or [D, 3]."""
        standard = self._standard(vectors)
        inside = standard @ self.components.T
        within = (inside.square() / self.variances).sum(1)
        beside = (standard - inside @ self.components).square().sum(1)
        if self.classifier is None:
            return torch.stack([within, beside], 1)
        return torch.stack([within, beside, self.suspicion(vectors).sigmoid()], 1)

    def strangeness(self, vectors: Tensor) -> Tensor:
        """d(o) [D]: above 1 is strange."""
        return (self._statistics(vectors) / self.limits).amax(1)

    def forward(self, vectors: Tensor) -> Tensor:
        """1 where the observation is familiar, 0 where it is strange, [D]."""
        return (self.strangeness(vectors) <= 1).to(vectors.dtype)
