"""Figures, no claim: how often the gate asks where nothing has changed; docs/scaling.md uses them.

Pairs of windows are drawn from one source and compared with the device's own gate, which asks for
another edit where their drift is 1 or more: here only by the chance of sampling. Features are
normal, in groups of so many that correlate by one half; the classes are ten, all as frequent, and
their posteriors those of a classifier that is right nine times of ten.

    python benchmarks/gate_requests.py [PAIRS]     6,000 pairs: some four minutes
"""

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product

import numpy as np
from numpy.typing import NDArray

from persona.device.gate import TENTH, Ask, AskReason, decide
from persona.formats.edit import EditInfo
from persona.formats.observation import PooledObservation, PooledSpec, pool

SAMPLES = (10, 20, 50)
FEATURES = (16, 64)
GROUPS = (1, 4, 16)
CLASSES = 10
SEPARATION = 3.0
"""A class's logit above the others', in deviations: the largest is the right one 9 times of 10."""

VALID_DAYS = (7, 30)
LOOKS_A_DAY = 24

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FRESH = EditInfo("model", "bundle", "device", 1, None, NOW, NOW + timedelta(days=7))

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """Where windows come from, all alike."""

    features: int
    group: int

    @property
    def spec(self) -> PooledSpec:
        return PooledSpec(
            "pooled", self.features, CLASSES, 1, max(SAMPLES), (1 / CLASSES,) * CLASSES
        )

    def window(self, samples: int, random: np.random.Generator) -> PooledObservation:
        """What a device would observe of so many samples."""
        own = _normal(random, samples, self.features)
        shared = _normal(random, samples, self.features // self.group)
        features = (own + np.repeat(shared, self.group, axis=1)) / np.float32(np.sqrt(2))
        return pool(self.spec, features, _posteriors(samples, random))


def _posteriors(samples: int, random: np.random.Generator) -> Numbers:
    """Of logits N(SEPARATION · one-hot, 1), whose posterior is softmax(SEPARATION · logits)."""
    right = np.eye(CLASSES, dtype=np.float32)[random.integers(0, CLASSES, samples)]
    logits = SEPARATION * (SEPARATION * right + _normal(random, *right.shape))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    posteriors: Numbers = weights / weights.sum(axis=1, keepdims=True)
    return posteriors


def _normal(random: np.random.Generator, *shape: int) -> Numbers:
    return random.standard_normal(shape, dtype=np.float32)


def asks(source: Source, samples: int, random: np.random.Generator) -> bool:
    """Whether a device asks that was told one window and observes another of the same source."""
    told, observed = (source.window(samples, random) for _ in range(2))
    decided = decide(source.spec, told, observed, FRESH, kept=True, now=NOW)
    return isinstance(decided, Ask) and decided.reason is AskReason.DRIFTED


def main() -> int:
    """Draw and compare; print docs/scaling.md's tables."""
    pairs = int(sys.argv[1]) if sys.argv[1:] else 6000
    print(f"{pairs} pairs each; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(f"| features | in groups of | {' | '.join(f'{n} samples' for n in SAMPLES)} |")
    print("|---" * (2 + len(SAMPLES)) + "|")
    found: dict[int, list[float]] = {samples: [] for samples in SAMPLES}
    for features, group in product(FEATURES, GROUPS):
        source, random = Source(features, group), np.random.default_rng(0)
        for samples in SAMPLES:
            asked = sum(asks(source, samples, random) for _ in range(pairs))
            found[samples].append(asked / pairs)
        cells = [f"{shares[-1]:.2%}" for shares in found.values()]
        print(f"| {features} | {group} | {' | '.join(cells)} |", flush=True)
    print(f"\nRequests a device a day, at most, of one that looks {LOOKS_A_DAY} times a day\n")
    print(f"| edits are valid for | {' | '.join(f'{n} samples' for n in SAMPLES)} |")
    print("|---" * (1 + len(SAMPLES)) + "|")
    for days in VALID_DAYS:
        renewed = 1 / (days * (1 - 1 / TENTH))
        cells = [
            " to ".join(f"{renewed + LOOKS_A_DAY * share(shares):.2f}" for share in (min, max))
            for shares in found.values()
        ]
        print(f"| {days} days | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
