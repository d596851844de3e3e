"""Scores of a device from its outputs: accuracy for classes, NDCG and hit rate for rankings."""

import torch
from torch import Tensor

from persona.backbones.base import Task

METRIC: dict[Task, str] = {"classification": "accuracy", "ranking": "ndcg@10"}


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Logits [..., q, C], classes [..., q] -> share that is right [...]."""
    return (outputs.argmax(-1) == targets).float().mean(-1)


def rank(outputs: Tensor, targets: Tensor) -> Tensor:
    """Scores [..., q, N], places [..., q] -> 0-based rank of the target [..., q].

    Ties count against the target, and so does NaN: equal scores for all earn nothing.
    """
    own = outputs.gather(-1, targets[..., None])
    return (~(outputs < own)).sum(-1) - 1


def ndcg(outputs: Tensor, targets: Tensor, cut: int = 10) -> Tensor:
    """NDCG@cut with one relevant candidate: 1 / log2(rank + 2) above the cut, else 0; [...]."""
    place = rank(outputs, targets)
    gain = 1 / torch.log2(place.float() + 2)
    return torch.where(place < cut, gain, 0.0).mean(-1)


def hit_rate(outputs: Tensor, targets: Tensor, cut: int = 10) -> Tensor:
    """Share of queries whose target is among the first `cut`; [...]."""
    return (rank(outputs, targets) < cut).float().mean(-1)


def score(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """The task's own metric of each device [...]."""
    return accuracy(outputs, targets) if task == "classification" else ndcg(outputs, targets)
