"""Splits and seeds that depend on names alone, so that they are the same on every machine."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from persona.data.base import DataError


def seed_of(*parts: object) -> int:
    """A seed from names and numbers, the same on every machine."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big")


def check_shares(shares: Mapping[str, float], things: str) -> None:
    """Raises DataError where a share is not positive, or nothing is left for the last split."""
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        *first, last = shares
        raise DataError(
            f"the shares of {', '.join(first)} and {last} {things} must be positive and leave "
            f"some for testing, got {tuple(shares.values())}"
        )


def split_by_name(names: Sequence[str], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """The split of each name, int64 [n]: an index into `shares`, or len(shares) for the rest.

    Decided by a hash of the name, so that more names move none to another split.
    """
    places = np.array([seed_of("split", seed, name) / 2**64 for name in names])
    return np.searchsorted(np.cumsum(shares), places, side="right").astype(np.int64)
