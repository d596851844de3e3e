"""When a device asks for another edit: where its window has drifted, or its edit's time runs out.

Two windows are compared by their observations and nothing else. With p, q their shares of items or
of classes, n, m their numbers of samples, and ν = 1/n + 1/m, the drift is

    items    TV(p, q) ÷ 0.25
    pooled   max( √max(0, mean_f (Δ_f ÷ s_f)² − 2ν) ÷ 0.5,  (TV(p, q) − 2μ) ÷ 0.25 )

without a unit, and 1 is the limit. TV = ½ Σ |p − q| is total variation, Δ the difference of the
feature means in deviations s = √((s_told² + s_now²) ÷ 2), and half a deviation is a medium effect
(Cohen 1988). Sampling alone is expected to make ν of the mean square and μ = ½ Σ_c √(2ν p_c (1 −
p_c) ÷ π) of the total variation, by the normal approximation; twice that is no drift, so that short
windows ask no more often than long ones.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.durable import write_atomic
from persona.formats.edit import EditInfo
from persona.formats.errors import FormatError
from persona.formats.observation import (
    Envelope,
    Observation,
    ObservationSpec,
    PooledObservation,
    from_safetensors,
    observation_vector,
    to_safetensors,
)

TENTH = 10
"""Another edit is asked for when less than a tenth of the edit's time is left."""

MIX_LIMIT = 0.25
"""Total variation of item shares or class mixes at which the drift is 1."""

SHIFT_LIMIT = 0.5
"""Shift of the feature means, in deviations, at which the drift is 1."""

MARGIN = 2
"""How many times the difference that sampling is expected to make is no drift."""

SMALLEST_DEVIATION = 1e-6

_FILE = "told.safetensors"

_Numbers = NDArray[np.float64]


class AskReason(Enum):
    """Why it is worth asking."""

    NEVER_ASKED = "never asked"
    """The cloud has answered no window of this bundle."""

    EXPIRING = "expiring"
    """The kept edit does not run, or less than a tenth of its time is left."""

    DRIFTED = "drifted"
    """The window is another one now: its drift is 1 or more."""


@dataclass(frozen=True)
class Ask:
    """Ask the cloud. drift: since the cloud was last told, where that is the reason."""

    reason: AskReason
    drift: float | None = None


@dataclass(frozen=True)
class Stay:
    """Ask nothing: the window is still like the one that the edit was made from.

    drift: below 1.
    """

    drift: float


def decide(
    spec: ObservationSpec,
    told: Observation | None,
    observed: Observation,
    running: EditInfo | None,
    kept: bool,
    now: datetime,
) -> Ask | Stay:
    """Whether to ask.

    told: what the cloud was last told. running: of the edit that runs. kept: whether there is an
    edit in the store, which may have stopped running.
    """
    if told is None:
        return Ask(AskReason.NEVER_ASKED)
    if _ends_soon(running, now) if running else kept:
        return Ask(AskReason.EXPIRING)
    found = drift(spec, told, observed)
    return Stay(found) if found < 1 else Ask(AskReason.DRIFTED, found)


def _ends_soon(info: EditInfo, now: datetime) -> bool:
    return TENTH * (info.expires_at - now) < info.expires_at - info.issued_at


def drift(spec: ObservationSpec, told: Observation, observed: Observation) -> float:
    """How far two windows of one bundle are apart; 1 is the limit."""
    if isinstance(told, PooledObservation) and isinstance(observed, PooledObservation):
        sampling = 1 / told.count + 1 / observed.count
        shift = _shift(told, observed, sampling) / SHIFT_LIMIT
        return max(shift, _mix(told, observed, sampling) / MIX_LIMIT)
    vectors = (observation_vector(spec, window) for window in (told, observed))
    return _total_variation(*map(_wide, vectors)) / MIX_LIMIT


def _shift(one: PooledObservation, other: PooledObservation, sampling: float) -> float:
    """Shift of the means in deviations, less what sampling explains."""
    variance = (_wide(one.deviation) ** 2 + _wide(other.deviation) ** 2) / 2
    deviation = np.maximum(np.sqrt(variance), SMALLEST_DEVIATION)
    squares = ((_wide(one.mean) - _wide(other.mean)) / deviation) ** 2
    return float(np.sqrt(max(0.0, squares.mean() - MARGIN * sampling)))


def _mix(one: PooledObservation, other: PooledObservation, sampling: float) -> float:
    """Total variation of the class mixes, less what sampling explains."""
    share = _wide(one.class_prior)
    noise = np.sqrt(2 * sampling * share * (1 - share) / np.pi).sum() / 2
    return float(_total_variation(share, _wide(other.class_prior)) - MARGIN * noise)


def _total_variation(p: _Numbers, q: _Numbers) -> float:
    return float(np.abs(p - q).sum() / 2)


def _wide(values: NDArray[Any]) -> _Numbers:
    return values.astype(np.float64)


class LastTold:
    """The observation that the cloud last answered, in one file of the device's folder."""

    def __init__(self, folder: Path, bundle: str) -> None:
        """bundle: digest of the device's bundle; what another was told says nothing of it."""
        self._file, self._bundle = folder / _FILE, bundle

    def keep(self, envelope: Envelope) -> None:
        """Remember what the cloud answered. Raises PlaceError."""
        write_atomic(self._file, to_safetensors(envelope), mode=0o600)

    def read(self, spec: ObservationSpec) -> Observation | None:
        """What is remembered of this bundle, if anything that can be read."""
        try:
            envelope = from_safetensors(spec, self._file.read_bytes())
        except (OSError, FormatError):
            return None
        return envelope.observation if envelope.bundle == self._bundle else None

    def forget(self) -> None:
        """The cloud knows us no more: what it was told was another device's."""
        self._file.unlink(missing_ok=True)
