"""Scores of a device from its outputs, query by query: a device's score is the mean of its queries.

Classes: accuracy, and the negative log likelihood that tells overconfidence. Rankings: NDCG@10,
hit rate@10, and AUC, whose mean over users is UAUC.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from persona.backbones.base import Task

METRIC: dict[Task, str] = {"classification": "accuracy", "ranking": "ndcg@10"}
"""What a task is judged by; the first of `METRICS`."""

METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "nll"),
    "ranking": ("ndcg@10", "hr@10", "uauc"),
}

CUT = 10


def query_scores(
    task: Task, outputs: Tensor, targets: Tensor, absent: Tensor | None = None
) -> dict[str, Tensor]:
    """Every metric of each query [..., q], from logits or candidates' scores [..., q, C].

    absent: bool [..., q, C], candidates that only pad a row.
    """
    if task == "classification":
        log_likelihood = F.log_softmax(outputs, -1).gather(-1, targets[..., None])[..., 0]
        right = (outputs.argmax(-1) == targets).float()
        return {"accuracy": right, "nll": -log_likelihood}
    if absent is not None:
        outputs = outputs.masked_fill(absent, -torch.inf)
    place = rank(outputs, targets)
    return {
        "ndcg@10": _discounted(place, CUT),
        "hr@10": (place < CUT).float(),
        "uauc": auc(outputs, targets),
    }


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Logits [..., q, C], classes [..., q] -> share that is right [...]."""
    return query_scores("classification", outputs, targets)["accuracy"].mean(-1)


def rank(outputs: Tensor, targets: Tensor) -> Tensor:
    """Scores [..., q, N], places [..., q] -> 0-based rank of the target [..., q].

    Ties count against the target, and so does NaN: equal scores for all earn nothing.
    """
    own = outputs.gather(-1, targets[..., None])
    return (~(outputs < own)).sum(-1) - 1


def _discounted(place: Tensor, cut: int) -> Tensor:
    return torch.where(place < cut, 1 / torch.log2(place.float() + 2), 0.0)


def ndcg(outputs: Tensor, targets: Tensor, cut: int = CUT) -> Tensor:
    """NDCG@cut with one relevant candidate: 1 / log2(rank + 2) above the cut, else 0; [...]."""
    return _discounted(rank(outputs, targets), cut).mean(-1)


def hit_rate(outputs: Tensor, targets: Tensor, cut: int = CUT) -> Tensor:
    """Share of queries whose target is among the first `cut`; [...]."""
    return (rank(outputs, targets) < cut).float().mean(-1)


def auc(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the other candidates [..., q, N] that score below the target; ties count half.

    Candidates at minus infinity are absent; [..., q].
    """
    own = outputs.gather(-1, targets[..., None])
    others = (outputs != -torch.inf).sum(-1) - 1
    below = ((outputs < own) & (outputs != -torch.inf)).sum(-1)
    level = (outputs == own).sum(-1) - 1
    return (below + level / 2) / others


def score(task: Task, outputs: Tensor, targets: Tensor, absent: Tensor | None = None) -> Tensor:
    """The task's own metric of each device [...]."""
    return query_scores(task, outputs, targets, absent)[METRIC[task]].mean(-1)


BINS = 10


@dataclass(frozen=True)
class Calibration:
    """How often a model is right when it says it is so sure (Guo et al. 2017, arXiv 1706.04599).

    confidence, accuracy: means of the queries in each of ten equal bins of confidence, empty bins
    left out. share: of all queries in each bin. error: the expected calibration error.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    share: tuple[float, ...]
    error: float


def calibration(logits: Tensor, targets: Tensor) -> Calibration:
    """Logits [..., C], classes [...] -> reliability over all queries."""
    confidence, said = logits.softmax(-1).flatten(0, -2).max(-1)
    right = (said == targets.flatten()).double()
    confidence = confidence.double()
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    count = torch.bincount(bins, minlength=BINS).double()
    sure, correct = (
        torch.bincount(bins, weights=v, minlength=BINS) / count for v in (confidence, right)
    )
    share = count / count.sum()
    used = count > 0
    error = float((share * (sure - correct).abs())[used].sum())
    return Calibration(
        tuple(sure[used].tolist()),
        tuple(correct[used].tolist()),
        tuple(share[used].tolist()),
        error,
    )


def pooled(found: Sequence[Calibration]) -> Calibration:
    """Calibration over several trainings, each weighing the same."""
    columns = [(c.confidence, c.accuracy, c.share) for c in found]
    confidence, right, share = np.concatenate([np.array(c) for c in columns], axis=1)
    share = share / len(found)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    used = np.unique(bins)
    whole, sure, correct = (
        np.array([weights[bins == b].sum() for b in used])
        for weights in (share, share * confidence, share * right)
    )
    error = float(np.abs(sure - correct).sum())
    return Calibration(
        tuple((sure / whole).tolist()),
        tuple((correct / whole).tolist()),
        tuple(whole.tolist()),
        error,
    )


FLIPS = 400


def chance_of_losing(change: Tensor, limit: float) -> Tensor:
    """How likely each device would lose more than `limit` if its edit helped and hurt by chance.

    change: each query's score under the edit less its score without it [D, q]. Under chance alone
    the sign of every change is a coin's: the share of coin draws whose mean falls below -limit [D].
    """
    signs = torch.randint(
        0, 2, (FLIPS, change.shape[1]), generator=torch.Generator().manual_seed(0)
    ).to(change.dtype)
    means = change @ (2 * signs - 1).T / change.shape[1]
    return (means < -limit - 1e-6).to(change.dtype).mean(1)
