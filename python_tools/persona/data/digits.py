"""Handwritten digits that ship inside scikit-learn, on simulated devices; no download needed."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from persona.data.base import (
    Arrays,
    DataError,
    Dataset,
    Device,
    Sources,
    Split,
    datasets,
    reading_of,
    split_window,
)
from persona.data.shifts import ImageShift, shift_images

_SPLITS = {"backbone": 0.42, "held-out": 0.08, "adapter": 0.22, "validation": 0.08, "test": 0.20}


@datasets.register("digits")
class Digits(Dataset):
    """1,797 handwritten digits of 8×8 pixels on simulated devices (embedded, no files needed)."""

    needs_root: ClassVar[bool] = False

    def __init__(
        self,
        root: Path | None = None,  # noqa: ARG002
        window: int = 20,
        queries: int = 30,
        rotation: float = 180.0,
        contrast: tuple[float, float] = (0.4, 1.2),
        noise: float = 0.3,
        habits: float = 0.3,
    ) -> None:
        self.window, self.queries = window, queries
        self.shift = ImageShift(rotation, contrast, noise, habits)
        digits = load_digits()
        self.images = (digits.images[:, None] / 16).astype(np.float32)
        self.labels = digits.target.astype(np.int64)
        order = np.random.default_rng(20).permutation(len(self.labels))
        cuts = (np.cumsum(list(_SPLITS.values())) * len(order)).round().astype(int)
        pools = np.split(order, cuts[:-1])
        self.pools: dict[str, NDArray[np.int64]] = dict(zip(_SPLITS, pools, strict=True))
        fewest = min(len(self.pools[split]) for split in get_args(Split))
        if window + queries > fewest:
            raise DataError(
                f"a digits device has at most {fewest} images, got window = {window} and "
                f"queries = {queries}"
            )

    def backbone_settings(self) -> dict[str, Any]:
        return {"channels": 1, "size": 8, "classes": 10}

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Arrays, NDArray[np.int64]]:
        return self._pooled(rng, size, "backbone")

    def held_out(self) -> tuple[Arrays, NDArray[np.int64]]:
        return self._pooled(np.random.default_rng(21), 4000, "held-out")

    def _pooled(
        self, rng: np.random.Generator, size: int, pool: str
    ) -> tuple[Arrays, NDArray[np.int64]]:
        """Samples of many devices, one each: uniform over habits, each with its own look."""
        picked = rng.choice(self.pools[pool], size)
        return (shift_images(self.images[picked], self.shift.looks(rng, size), rng),), self.labels[
            picked
        ]

    def backbone_sources(self) -> dict[str, Sources]:
        parts = {"training": "backbone", "held-out": "held-out"}
        return {n: Sources(spans=reading_of(self.pools[pool])) for n, pool in parts.items()}

    def devices(self, split: Split, count: int, seed: int) -> list[Device]:
        rng = np.random.default_rng([seed, sorted(_SPLITS).index(split)])
        return [self._device(rng, split, f"{split}-{seed}-{i:05d}") for i in range(count)]

    def _device(self, rng: np.random.Generator, split: Split, name: str) -> Device:
        """Draw habits and a look, then different images for the window and for the queries."""
        pool = self.pools[split]
        mix = self.shift.class_mix(rng, 10)
        total = self.window + self.queries
        labels = self.labels[pool]
        weight = mix[labels] / np.bincount(labels, minlength=10)[labels] + 1e-9
        drawn = rng.choice(pool, total, replace=False, p=weight / weight.sum())
        chosen = rng.permutation(drawn)
        looks = np.repeat(self.shift.looks(rng, 1), total, axis=0)
        images = shift_images(self.images[chosen], looks, rng)
        spans = reading_of(chosen)
        return split_window(name, "", images, self.labels[chosen], spans, self.window)

    def fingerprint(self) -> str:
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()
