"""The measurement record `persona.measurement/1`: what a device measured, and under which terms.

A latency without its program, processor, counts and thermal state is not a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from persona.formats import schema

MEASUREMENT_FORMAT = "persona.measurement/1"


@dataclass(frozen=True)
class Latency:
    """Microseconds a forward call: quantiles over `iterations` after `warmup` calls."""

    iterations: int
    warmup: int
    p50_us: float
    p90_us: float
    p99_us: float
    mean_us: float

    @classmethod
    def of(cls, microseconds: Sequence[float], warmup: int) -> "Latency":
        """Summarise single calls."""
        p50, p90, p99 = (float(q) for q in np.quantile(microseconds, (0.5, 0.9, 0.99)))
        return cls(len(microseconds), warmup, p50, p90, p99, float(np.mean(microseconds)))


@dataclass(frozen=True)
class Host:
    """Where it was measured. thermal: as the platform names it, or `unknown`."""

    system: str
    machine: str
    cores: int
    threads: int
    thermal: str


@dataclass(frozen=True)
class Measurement:
    """Base against edited, interleaved in one run, with the times around an edit.

    base: the same model with baked weights. ratio: edited p50 ÷ base p50.
    load_ms: reading a program and making its method ready. edit_to_active_ms: from the edit's
    bytes in hand to the probe passed.
    """

    format: Literal["persona.measurement/1"]
    model: str
    bundle: str
    target: str
    precision: str
    delegates: tuple[str, ...]
    host: Host
    base: Latency
    edited: Latency
    ratio: float
    load_ms: float
    edit_to_active_ms: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON writer."""
        document: dict[str, Any] = schema.encode(self)
        return document
