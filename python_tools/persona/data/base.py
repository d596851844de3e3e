"""What a data set gives: pooled batches for the backbone, and devices for everything after it.

Splits are by device and, where devices are simulated, by the samples they draw from: no sample
that trained the backbone appears on a device that trains or tests the adapter.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from persona.registry import Registry

Arrays = tuple[NDArray[Any], ...]
Spans = NDArray[np.int64]
"""[n, 2]: the readings that each sample was made of, from the first to the one after the last.

Readings are numbered through all of a data set's files, whatever its scenario: an image is one
reading, a sensor window as many as it is long.
"""

NO_SPANS: Spans = np.zeros((0, 2), np.int64)
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
    owner: whose it is; empty where nobody can have two of these devices.
    window_spans, query_spans: where the samples come from, whatever was done to them since; None
    for item histories, since everybody may meet the same items.
    """

    name: str
    window: Arrays
    queries: Arrays
    targets: NDArray[np.int64]
    window_targets: NDArray[np.int64] | None = None
    owner: str = ""
    window_spans: Spans | None = None
    query_spans: Spans | None = None


@dataclass(frozen=True)
class Sources:
    """Whose data a part of the backbone's training was drawn from, and which readings."""

    owners: frozenset[str] = frozenset()
    spans: Spans = field(default_factory=lambda: NO_SPANS)


def reading_of(places: NDArray[np.int64]) -> Spans:
    """Spans of samples that are one reading each, such as images, by their places [n]."""
    return np.stack([places, places + 1], axis=1)


def split_window(
    name: str,
    owner: str,
    samples: NDArray[Any],
    targets: NDArray[np.int64],
    spans: Spans,
    window: int,
) -> Device:
    """A device that saw the first `window` of these samples and is asked about the rest."""
    w = window
    return Device(
        name=name,
        window=(samples[:w],),
        queries=(samples[w:],),
        targets=targets[w:],
        window_targets=targets[:w],
        owner=owner,
        window_spans=spans[:w],
        query_spans=spans[w:],
    )


class Dataset(ABC):
    """Base class. `root` is the user's folder; embedded and generated data sets ignore it.

    scenario_settings: the dataclass that takes the settings which `__init__` does not name.
    left_out: how much of the files was left out, by reason, faults and what is too little to use.
    faults: what was wrong with each row or file that could not be read, beginning with its place.
    """

    needs_root: ClassVar[bool] = True
    scenario_settings: ClassVar[type | None] = None
    left_out: Mapping[str, int] = MappingProxyType({})
    faults: tuple[str, ...] = ()

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
    def backbone_sources(self) -> dict[str, Sources]:
        """What `batch` draws from, as "training", and `held_out`, as "held-out": no test device may
        have a part in either.
        """

    @abstractmethod
    def devices(self, split: Split, count: int, seed: int) -> list[Device]:
        """`count` devices of a split (fewer where the data has fewer), fixed by the seed.

        All devices of a call have equally many queries.
        """

    def summary(self) -> str:
        """What was left out and why, counted; empty where nothing was."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of what was read, for reports: the same data give the same fingerprint."""


datasets: Registry[type[Dataset]] = Registry("dataset", "persona.data")
