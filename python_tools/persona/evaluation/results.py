"""The results document `persona.results/1`: what a demo or an evaluation found, for programs.

`report.py` makes a page of it. Per-device values are kept, so that any figure can be made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

from persona.formats.measurement import Measurement

RESULTS_FORMAT = "persona.results/1"
RESAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """A mean over devices with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: ArrayLike) -> "Estimate":
        """Mean over devices [D]; the percentile interval over resampled devices."""
        data = np.asarray(values, np.float64)
        mean = float(data.mean())
        if len(data) < 2 or np.ptp(data) == 0:
            return cls(mean, mean, mean)
        interval = bootstrap(
            (data,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0
        ).confidence_interval
        return cls(mean, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class DeviceResult:
    """One device that was never trained on: its scores, its prototype, and what its edit cost.

    prototype: where its edit belongs. The costs are None where nothing was sent.
    """

    name: str
    static: float
    prototype_only: float
    edited: float
    other_device_control: float
    prototype: int
    edit_bytes: int | None = None
    edit_to_active_ms: float | None = None
    round_trip_ms: float | None = None


SCORES = ("static", "prototype_only", "edited", "other_device_control")
"""The fields of `DeviceResult` that are scores."""


@dataclass(frozen=True)
class PrototypeMap:
    """Latents of the devices and the centres, in their first two principal components.

    points, centres: [x, y]. members: prototype of each point. explained: share of the variance.
    """

    points: tuple[tuple[float, ...], ...]
    members: tuple[int, ...]
    centres: tuple[tuple[float, ...], ...]
    explained: float


@dataclass(frozen=True)
class ExportResult:
    """One program of the bundle: size in bytes and largest differences from eager PyTorch."""

    target: str
    precision: str
    bytes: int
    verified: str
    tolerance: float
    base_difference: float
    prototype_difference: float
    edited_difference: float
    delegation: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """Everything that a report shows.

    metric: `accuracy`, or `ndcg@10` for ranking. rivals: name -> score on the same devices;
    edited_minus_rivals: the paired difference.
    edit_spread: deviation of edits across devices, relative to their size; near 0 means that all
    devices get one constant edit. stages: seconds each.
    """

    format: Literal["persona.results/1"]
    model: str
    bundle: str | None
    metric: str
    quick: bool
    seeds: tuple[int, ...]
    window: int
    queries: int
    static: Estimate
    prototype_only: Estimate
    edited: Estimate
    other_device_control: Estimate
    edited_minus_static: Estimate
    edited_minus_other: Estimate
    prototype_minus_static: Estimate
    losers: float
    rivals: dict[str, Estimate]
    edited_minus_rivals: dict[str, Estimate]
    edit_spread: float
    devices: tuple[DeviceResult, ...]
    prototype_map: PrototypeMap
    curves: dict[str, Any]
    latency: Measurement | None
    exports: tuple[ExportResult, ...]
    left_out: dict[str, str]
    stages: dict[str, float]
    seconds: float
    made_by: dict[str, Any]


LOSS_POINTS = 0.05
"""A device that falls by more than this under its edit counts as a loser."""

_ROUNDING = 1e-6
"""Scores are ratios of small numbers in binary32: a fall of exactly 5 points is no more than 5."""


def loses(gain: float) -> bool:
    """Whether a device with this gain lost more than `LOSS_POINTS`."""
    return gain < -LOSS_POINTS - _ROUNDING


def scores(
    devices: Sequence[DeviceResult], rivals: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """The estimates of `Results` that follow from the devices and their scores under rivals."""
    columns = {name: np.array([getattr(d, name) for d in devices]) for name in SCORES}
    gain = columns["edited"] - columns["static"]
    return {
        **{name: Estimate.of(column) for name, column in columns.items()},
        "edited_minus_static": Estimate.of(gain),
        "edited_minus_other": Estimate.of(columns["edited"] - columns["other_device_control"]),
        "prototype_minus_static": Estimate.of(columns["prototype_only"] - columns["static"]),
        "losers": float(np.mean([loses(g) for g in gain])),
        "rivals": {name: Estimate.of(values) for name, values in rivals.items()},
        "edited_minus_rivals": {
            name: Estimate.of(columns["edited"] - np.asarray(values))
            for name, values in rivals.items()
        },
    }


def summary(results: Results) -> dict[str, Any]:
    """What `--json` prints: the headline figures, one object."""

    def numbers(estimate: Estimate) -> dict[str, float]:
        return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}

    found: dict[str, Any] = {
        "format": results.format,
        "model": results.model,
        "bundle": results.bundle,
        results.metric: {
            "static": numbers(results.static),
            "prototype": numbers(results.prototype_only),
            "edited": numbers(results.edited),
            "other_device_control": numbers(results.other_device_control),
            "edited_minus_static": numbers(results.edited_minus_static),
            "edited_minus_other_device": numbers(results.edited_minus_other),
            "share_of_devices_that_lose": results.losers,
            "rivals": {name: numbers(e) for name, e in results.rivals.items()},
            "edited_minus_rivals": {
                name: numbers(e) for name, e in results.edited_minus_rivals.items()
            },
        },
        "devices": len(results.devices),
        "seeds": list(results.seeds),
        "quick": results.quick,
        "seconds": results.seconds,
    }
    sizes = [d.edit_bytes for d in results.devices if d.edit_bytes is not None]
    if sizes:
        active = [d.edit_to_active_ms for d in results.devices if d.edit_to_active_ms is not None]
        found["edit"] = {
            "bytes": int(np.median(sizes)),
            "to_active_ms_p50": float(np.median(active)),
        }
    if results.latency is not None:
        latency = results.latency
        found["latency"] = {
            **{f"base_{q}_us": getattr(latency.base, f"{q}_us") for q in ("p50", "p90", "p99")},
            **{f"edited_{q}_us": getattr(latency.edited, f"{q}_us") for q in ("p50", "p90", "p99")},
            "ratio": latency.ratio,
        }
    if results.exports:
        found["exports"] = {
            f"{e.target} {e.precision}": {
                "bytes": e.bytes,
                "verified": e.verified,
                "difference": max(e.base_difference, e.prototype_difference, e.edited_difference),
                "tolerance": e.tolerance,
            }
            for e in results.exports
        }
    return found
