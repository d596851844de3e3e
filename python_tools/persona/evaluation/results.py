"""The results document `persona.results/1`: what a demo or an evaluation found, for programs.

`report.py` makes a page of it. Per-device values are kept, so that any figure can be made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

from persona.data import Dataset
from persona.evaluation.metrics import Calibration
from persona.formats import schema
from persona.formats.measurement import Measurement

RESULTS_FORMAT = "persona.results/1"
RESAMPLES = 2_000

NAMED_FAULTS = 20
"""Bad rows and files that results name; all are counted."""


@dataclass(frozen=True)
class Estimate:
    """A mean over devices with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, *trainings: ArrayLike) -> "Estimate":
        """Mean over devices [D], and the percentile interval over resampled devices.

        With several trainings, one argument each, trainings are resampled first and devices within
        them next, and every training weighs the same: the interval covers both.
        """
        data = [np.asarray(values, np.float64) for values in trainings]
        mean = float(np.mean([values.mean() for values in data]))
        every = np.concatenate(data)
        if len(every) < 2 or np.ptp(every) == 0:
            return cls(mean, mean, mean)
        if len(data) == 1:
            interval = bootstrap(
                (every,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0
            ).confidence_interval
            return cls(mean, float(interval.low), float(interval.high))
        rng = np.random.default_rng(0)
        within = np.stack([v[rng.integers(len(v), size=(RESAMPLES, len(v)))].mean(1) for v in data])
        drawn = rng.integers(len(data), size=(len(data), RESAMPLES))
        means = within[drawn, rng.integers(RESAMPLES, size=drawn.shape)].mean(0)
        low, high = np.percentile(means, (2.5, 97.5))
        return cls(mean, float(low), float(high))


OURS = ("static", "prototype_only", "edited", "other_device_control")
"""The rows of every table that the method is judged by; all others are rivals and ablations."""

LABELS = {
    "static": "Static model",
    "prototype_only": "Prototype only",
    "edited": "Edited",
    "other_device_control": "Another device’s edit",
}

Scored = dict[str, dict[str, tuple[float, ...]]]
"""Way to serve devices -> metric -> each device's score."""


Kind = Literal["ours", "rival", "upper bound", "ablation"]

WITHOUT = "without "
"""What the names of ablations begin with."""


@dataclass(frozen=True)
class Cost:
    """What a way to serve costs one device, in milliseconds of one processor, in PyTorch.

    adaptation_ms: once a window: observing it, and making the edit or whatever else the way does
    before it can answer. query_ms: every answer after that, by the whole model, many at a time.
    """

    adaptation_ms: float
    query_ms: float


@dataclass(frozen=True)
class Row:
    """One way to serve the devices.

    kind: an upper bound reads labels that no deployed way has. score: in the task's own metric;
    metrics: in every one. gain: over the static model, paired. ahead: of the edit over this way,
    paired. losers: share of devices that lose more than 5 points to the static model. cost: None
    where it was not measured.
    """

    kind: Kind
    score: Estimate
    metrics: dict[str, Estimate]
    gain: Estimate
    ahead: Estimate
    losers: Estimate
    cost: Cost | None


@dataclass(frozen=True)
class Table:
    """Ways to serve the same devices. chance: the share of devices that would lose by chance alone
    under edits that change as much and help as often as they hurt.
    """

    rows: dict[str, Row]
    chance: float
    devices: int


@dataclass(frozen=True)
class DeviceResult:
    """One device that was never trained on: its scores, its prototype, and what its edit cost.

    prototype: where its edit belongs. training: which of several. The costs are None where nothing
    was sent.
    """

    name: str
    static: float
    prototype_only: float
    edited: float
    other_device_control: float
    prototype: int
    training: int = 0
    edit_bytes: int | None = None
    edit_to_active_ms: float | None = None
    round_trip_ms: float | None = None


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
class LeftOut:
    """What was not used of the user's files. counts: by reason. faults: the first bad rows and
    files, at most `NAMED_FAULTS`, each beginning with its place.
    """

    counts: dict[str, int]
    faults: tuple[str, ...]

    @classmethod
    def of(cls, data: Dataset) -> "LeftOut":
        """What a data set left out."""
        counts = {reason: count for reason, count in data.left_out.items() if count}
        return cls(counts, tuple(data.faults[:NAMED_FAULTS]))

    @classmethod
    def most(cls, found: Sequence["LeftOut"]) -> "LeftOut":
        """Of several trainings: the most that any of them left out, and the faults of all."""
        reasons = dict.fromkeys(reason for one in found for reason in one.counts)
        faults = dict.fromkeys(fault for one in found for fault in one.faults)
        return cls(
            {reason: max(one.counts.get(reason, 0) for one in found) for reason in reasons},
            tuple(faults)[:NAMED_FAULTS],
        )


@dataclass(frozen=True)
class Results:
    """Everything that a report shows.

    metric: `accuracy`, or `ndcg@10` for ranking. rivals: name -> score on the same devices;
    edited_minus_rivals: the paired difference. trainings: of backbone and adapter; seeds are
    theirs, or of the drawn devices where there is one. table: every way to serve the devices;
    conditions: the same for other devices and spoilt ones. staleness: of conditions that are told
    apart by nothing else, how many samples came between window and first query.
    calibration: over all trainings. edit_spread: deviation of edits across devices, relative to
    their size; near 0 means that all devices get one constant edit. prototype_map: the first
    training's. curves: the first training's, by stage and by rival that trains a backbone;
    further_curves: those of each other training. left_out: exports, with the reason;
    data_left_out: of the user's files. mixed: sentences on what differs between the trainings that
    should not, such as their code. stages: seconds each.
    """

    format: Literal["persona.results/1"]
    model: str
    bundle: str | None
    metric: str
    quick: bool
    seeds: tuple[int, ...]
    trainings: int
    window: int
    queries: int
    static: Estimate
    prototype_only: Estimate
    edited: Estimate
    other_device_control: Estimate
    edited_minus_static: Estimate
    edited_minus_other: Estimate
    prototype_minus_static: Estimate
    losers: Estimate
    rivals: dict[str, Estimate]
    edited_minus_rivals: dict[str, Estimate]
    table: Table
    conditions: dict[str, Table]
    calibration: dict[str, Calibration]
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
    further_curves: tuple[dict[str, Any], ...] = ()
    data_left_out: LeftOut = LeftOut({}, ())
    mixed: tuple[str, ...] = ()
    staleness: dict[str, int] = field(default_factory=dict)


LOSS_POINTS = 0.05
"""A device that falls by more than this under its edit counts as a loser."""

_ROUNDING = 1e-6
"""Scores are ratios of small numbers in binary32: a fall of exactly 5 points is no more than 5."""


def loses(gain: ArrayLike) -> NDArray[np.bool_]:
    """Whether devices with these gains [...] lost more than `LOSS_POINTS` [...]."""
    return np.asarray(gain) < -LOSS_POINTS - _ROUNDING


def scores(
    devices: Sequence[DeviceResult], rivals: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """The estimates of `Results` that follow from the devices and their scores under rivals."""
    training = np.array([d.training for d in devices])

    def estimate(values: NDArray[Any]) -> Estimate:
        return Estimate.of(*(values[training == t] for t in np.unique(training)))

    columns = {name: np.array([getattr(d, name) for d in devices]) for name in OURS}
    served = {name: np.asarray(values, np.float64) for name, values in rivals.items()}
    gain = columns["edited"] - columns["static"]
    return {
        **{name: estimate(column) for name, column in columns.items()},
        "edited_minus_static": estimate(gain),
        "edited_minus_other": estimate(columns["edited"] - columns["other_device_control"]),
        "prototype_minus_static": estimate(columns["prototype_only"] - columns["static"]),
        "losers": estimate(loses(gain)),
        "rivals": {name: estimate(values) for name, values in served.items()},
        "edited_minus_rivals": {
            name: estimate(columns["edited"] - values) for name, values in served.items()
        },
    }


class ScoredFleet(Protocol):
    """What a table is made of: one training's scores, and which ways are upper bounds."""

    @property
    def scored(self) -> Scored: ...
    @property
    def upper_bounds(self) -> tuple[str, ...]: ...
    @property
    def chance(self) -> tuple[float, ...]: ...


def table(trainings: Sequence[ScoredFleet], costs: Sequence[Mapping[str, Cost]] = ()) -> Table:
    """Every way that all trainings tried, with intervals over trainings and devices.

    costs: what each training measured, if any did; the median stands for all.
    """
    ways = [n for n in trainings[0].scored if all(n in t.scored for t in trainings)]
    metrics = list(trainings[0].scored["static"])

    def values(way: str, metric: str) -> list[NDArray[np.float64]]:
        return [np.asarray(t.scored[way][metric]) for t in trainings]

    judged = metrics[0]
    static, edited = values("static", judged), values("edited", judged)
    rows = {}
    for way in ways:
        own = values(way, judged)
        gains = [o - s for o, s in zip(own, static, strict=True)]
        rows[way] = Row(
            kind=_kind(way, trainings[0].upper_bounds),
            score=Estimate.of(*own),
            metrics={metric: Estimate.of(*values(way, metric)) for metric in metrics},
            gain=Estimate.of(*gains),
            ahead=Estimate.of(*(e - o for e, o in zip(edited, own, strict=True))),
            losers=Estimate.of(*map(loses, gains)),
            cost=_median_cost([found[way] for found in costs if way in found]),
        )
    chance = float(np.mean([np.mean(t.chance) for t in trainings]))
    return Table(rows, chance, sum(len(s) for s in static))


def _median_cost(costs: Sequence[Cost]) -> Cost | None:
    if not costs:
        return None
    adaptation, query = np.median([(c.adaptation_ms, c.query_ms) for c in costs], axis=0)
    return Cost(float(adaptation), float(query))


def _kind(way: str, upper_bounds: tuple[str, ...]) -> Kind:
    if way in OURS:
        return "ours"
    if way.startswith(WITHOUT):
        return "ablation"
    return "upper bound" if way in upper_bounds else "rival"


def in_order(table: Table) -> list[str]:
    """The ways of a table: ours in the order of the method, rivals and bounds from the best, then
    ablations.
    """
    rest = sorted(set(table.rows) - set(OURS), key=lambda n: (-table.rows[n].score.mean, n))
    ablations = [name for name in rest if table.rows[name].kind == "ablation"]
    return [*OURS, *(name for name in rest if name not in ablations), *ablations]


def label(way: str, table: Table) -> str:
    """What people call a way to serve devices; one that reads labels says so."""
    row = table.rows.get(way)
    bound = " (with labels)" if row is not None and row.kind == "upper bound" else ""
    return f"{LABELS.get(way, way)}{bound}"


def by_condition(results: Results) -> dict[str, Table]:
    """The table of unseen devices, then that of each other condition."""
    return {"Unseen devices": results.table, **results.conditions}


def by_staleness(results: Results) -> dict[int, Table]:
    """The tables of conditions that differ in the age of their edits, from the freshest.

    Of two with one age the later stands for both.
    """
    ages = sorted(results.staleness.items(), key=lambda item: item[1])
    return {age: results.conditions[name] for name, age in ages}


def best_rival(table: Table) -> str | None:
    """The rival with the highest score; upper bounds and ablations are none."""
    found = {name: row.score.mean for name, row in table.rows.items() if row.kind == "rival"}
    return max(found, key=lambda name: found[name], default=None)


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
            "share_of_devices_that_lose": numbers(results.losers),
            "rivals": {name: numbers(e) for name, e in results.rivals.items()},
            "edited_minus_rivals": {
                name: numbers(e) for name, e in results.edited_minus_rivals.items()
            },
        },
        "devices": len(results.devices),
        "seeds": list(results.seeds),
        "quick": results.quick,
        "left_out": schema.encode(results.data_left_out),
        "mixed": list(results.mixed),
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
