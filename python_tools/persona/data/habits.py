"""Habits: a device sees some classes more often than others, p ~ Dirichlet(a, …, a).

Small concentrations a are strong habits. Over many devices every class is equally frequent, which
is why training batches are balanced over classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from persona.data.base import DataError

Ints = NDArray[np.int64]

_RARE = 1e-12
"""Weight of a sample whose class a device never sees: drawn when nothing else is left."""


Habits = float | Sequence[float]
"""A concentration, or several of which each device draws one."""


def check_habits(habits: Habits) -> None:
    """Raises DataError where a concentration is negative, or there is none."""
    given = habits if isinstance(habits, Sequence) else [habits]
    if not given or min(given) < 0:
        raise DataError(f"habits must be 0 or more, or several such numbers, got {habits}")


def class_mix(rng: np.random.Generator, classes: int, habits: Habits) -> NDArray[np.float64]:
    """Draw one device's class frequencies [classes]; concentration 0 means no habits: all equal."""
    concentration = rng.choice(habits) if isinstance(habits, Sequence) else habits
    if concentration == 0:
        return np.full(classes, 1 / classes)
    return rng.dirichlet(np.full(classes, concentration))


def draw(rng: np.random.Generator, labels: Ints, mix: NDArray[np.float64], count: int) -> Ints:
    """Indices of `count` different samples, in random order, their classes as frequent as in `mix`.

    labels: int64 [n] of what there is to draw from, n ≥ count. A class that is used up leaves its
    place to others. Sampling without replacement by the largest log-weights with Gumbel noise
    (Efraimidis and Spirakis, 2006).
    """
    weights = mix[labels] / np.bincount(labels, minlength=len(mix))[labels]
    keys = np.log(weights + _RARE) + rng.gumbel(size=len(labels))
    return rng.permutation(np.argpartition(keys, len(keys) - count)[len(keys) - count :])


class BalancedPool:
    """Samples from which every class present is drawn equally often."""

    def __init__(self, members: Ints, labels: Ints) -> None:
        """members: indices of samples [n]. labels: of all samples."""
        self.members = members[np.argsort(labels[members], kind="stable")]
        _, self._starts, self._counts = np.unique(
            labels[self.members], return_index=True, return_counts=True
        )

    def pick(self, rng: np.random.Generator, size: int) -> Ints:
        """Indices of samples [size], with replacement."""
        classes = rng.integers(len(self._counts), size=size)
        places = (rng.random(size) * self._counts[classes]).astype(np.int64)
        picked: Ints = self.members[self._starts[classes] + places]
        return picked
