"""What a data set gives: pooled batches for the backbone, and devices for everything after it.

Splits are by device and, where devices are simulated, by the samples they draw from: no sample
that trained the backbone appears on a device that trains or tests the adapter.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from persona.registry import Registry

Arrays = tuple[NDArray[Any], ...]
Split = Literal["adapter", "validation", "test"]


class DataError(ValueError):
    """Data that cannot be used; the message names the file, the row or the column."""


@dataclass(frozen=True)
class Device:
    """What one device saw, and what it is asked.

    name: stable and unique in its data set.
    window: unlabelled model inputs, arrays [w, ...]; or, for item histories, one int64 array [w].
    queries: model inputs, arrays [q, ...], never overlapping the window.
    targets: int64 [q]; the right class, or the place of the right item among the candidates.
    window_targets: int64 [w], the window's classes where the data know them. No deployed method
    has them: only the upper bound that fine-tunes with labels and stress streams may read them.
    """

    name: str
    window: Arrays
    queries: Arrays
    targets: NDArray[np.int64]
    window_targets: NDArray[np.int64] | None = None


class Dataset(ABC):
    """Base class. `root` is the user's folder; embedded and generated data sets ignore it.

    scenario_settings: the dataclass that takes the settings which `__init__` does not name.
    """

    needs_root: ClassVar[bool] = True
    scenario_settings: ClassVar[type | None] = None

    @abstractmethod
    def __init__(self, root: Path | None, **settings: Any) -> None:
        """Read the files, and the settings that a configuration names. Raises DataError."""

    @abstractmethod
    def backbone_settings(self) -> dict[str, Any]:
        """What the data dictates about the backbone: classes, image size, number of items."""

    @abstractmethod
    def batch(self, rng: np.random.Generator, size: int) -> tuple[Arrays, NDArray[np.int64]]:
        """A training batch for the backbone, pooled over its devices: inputs, targets [size]."""

    @abstractmethod
    def held_out(self) -> tuple[Arrays, NDArray[np.int64]]:
        """A fixed set for choosing the backbone's checkpoint: inputs, targets."""

    @abstractmethod
    def devices(self, split: Split, count: int, seed: int) -> list[Device]:
        """`count` devices of a split (fewer where the data has fewer), fixed by the seed.

        All devices of a call have equally many queries.
        """

    def summary(self) -> str:
        """What was left out and why, counted; empty where nothing was."""
        return ""

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of what was read, for reports: the same data give the same fingerprint."""


datasets: Registry[type[Dataset]] = Registry("dataset", "persona.data")
