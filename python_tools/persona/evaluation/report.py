"""The page that a sceptical engineer reads: one HTML file, made of `Results` and nothing else.

Sentences are decided here, from the figures; the template `report.html` sets them on the page.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from persona.evaluation import charts, figures
from persona.evaluation.charts import THIRD, Row
from persona.evaluation.convergence import convergence
from persona.evaluation.figures import Gains, Metric
from persona.evaluation.results import (
    LABELS,
    LOSS_POINTS,
    OURS,
    DeviceResult,
    Estimate,
    ExportResult,
    Results,
    best_rival,
    by_condition,
    by_staleness,
    in_order,
    label,
    loses,
)
from persona.evaluation.results import Row as TableRow
from persona.formats import schema
from persona.formats.measurement import Measurement

FEW_DEVICES = 20
"""Under so many devices a bootstrap interval is noticeably too narrow, and the page says so."""

CONSTANT = 0.1
"""Below this spread relative to their size, edits are close to one constant edit."""

DEVICES_LISTED = 200

ROLES: dict[str, charts.Role] = {
    "static": "static",
    "prototype_only": "other",
    "edited": "edited",
    "other_device_control": "control",
}
CURVES = {
    "backbone": "Static model",
    "cloud ranker": "Cloud ranker",
    "adapter": "Adapter",
    "prototypes": "Group edits",
    "joint refinement": "Joint refinement",
    "gate": "The gate’s classifier",
}
PHONES = ("android", "ios", "ipados")


def render_report(results: Results) -> str:
    """One self-contained HTML page, the same for the same results."""
    environment = Environment(
        loader=PackageLoader("persona.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    metric = Metric.named(results.metric)
    rows, rivals = comparison_rows(results)
    curves = {
        CURVES.get(name, name): (found["steps"], found["loss"])
        for name, found in schema.encode(results.curves).items()
    }
    return environment.get_template("report.html").render(
        results=results,
        metric=metric,
        figures=figures,
        headline=headline(results, metric),
        provisos=provisos(results),
        comparison=_both(charts.comparison, rows, rivals, metric),
        comparison_finding=comparison_finding(rows + rivals),
        comparison_findings=comparison_findings(results, metric),
        ways=ways(results),
        metrics=list(results.table.rows["static"].metrics)[1:],
        labels=LABELS,
        costs=any(row.cost for row in results.table.rows.values()),
        conditions=by_condition(results),
        conditions_chart=results.conditions
        and _both(charts.comparison, condition_rows(results), [], Gains.of(metric)),
        conditions_finding=conditions_finding(results, metric),
        staleness_chart=len(by_staleness(results)) > 1
        and _both(charts.staleness, staleness_courses(results), Gains.of(metric)),
        reliability=[
            (LABELS[name], found.error, _both(charts.reliability, found, LABELS[name], wide=THIRD))
            for name, found in results.calibration.items()
            if name in ("static", "edited")
        ],
        calibration_finding=calibration_finding(results),
        gains=_both(charts.gains, results.devices, results.edited_minus_static, metric),
        gains_finding=gains_finding(results.devices, metric),
        loss_points=LOSS_POINTS,
        loses=loses,
        most_marks=charts.MOST_MARKS,
        prototype_map=results.prototype_map.points
        and _both(charts.prototype_map, results.prototype_map, wide=charts.HALF),
        groups=groups(results),
        curves=[
            (title, _both(charts.curve, title.lower(), *curve, wide=charts.THIRD))
            for title, curve in curves.items()
        ],
        convergence=convergence(results),
        latency_chart=results.latency
        and _both(charts.latency, results.latency.base, results.latency.edited),
        latency_finding=results.latency and latency_finding(results.latency),
        latency_terms=results.latency and latency_terms(results.latency),
        edit_costs=edit_costs(results.devices),
        exports_finding=exports_finding(results.exports, results.left_out),
        difference=largest_difference,
        reports={f"{e.target} {e.precision}": _document(e.delegation) for e in results.exports},
        listed=sorted(results.devices, key=lambda d: d.edited - d.static)[:DEVICES_LISTED],
        provenance={name: flattened(value) for name, value in results.made_by.items()},
    )


def _both(chart: Callable[..., str], *data: Any, wide: int = charts.WIDE) -> tuple[Markup, Markup]:
    """A chart drawn for wide and for narrow screens."""
    return Markup(chart(*data, width=wide)), Markup(chart(*data, width=charts.NARROW))


def headline(results: Results, metric: Metric) -> str:
    """What the edit gained on unseen devices, or that no gain was shown."""
    gain, count = results.edited_minus_static, len(results.devices)
    devices = f"{count} unseen device{'' if count == 1 else 's'}"
    change = (
        f"from {metric.score(results.static.mean)} to {metric.score(results.edited.mean)} "
        f"on {devices}"
    )
    if count == 1:
        return f"One device proves nothing: {metric.name} went {change}."
    if gain.low > 0:
        return (
            f"The edit raises {metric.name} by {metric.amount(gain.mean)}, {change} "
            f"({figures.LEVEL}{figures.SPACE}interval {metric.gain_range(gain)})."
        )
    if gain.high < 0:
        return (
            f"The edit lowers {metric.name} by {metric.amount(gain.mean)}, {change} "
            f"({figures.LEVEL}{figures.SPACE}interval {metric.gain_range(gain)})."
        )
    return (
        f"No gain is shown: {metric.name} went {change}, and the {figures.LEVEL} interval of the "
        f"difference, {metric.gain_range(gain)}, includes zero."
    )


def provisos(results: Results) -> list[str]:
    """What limits the headline."""
    count = len(results.devices)
    found = []
    if results.trainings == 1:
        found.append(
            "One trained model: intervals say how much devices differ, not how much trainings do."
        )
    else:
        found.append(
            f"{results.trainings} trainings of backbone and adapter: intervals cover how much "
            "trainings differ and how much devices do."
        )
    if results.rivals and not {"apg", "duet-repaired"} <= set(results.table.rows):
        found.append(
            "Rivals that need a training of their own, such as DUET and APG, were not run here; "
            "persona evaluate with a configuration runs them."
        )
    if 1 < count < FEW_DEVICES:
        found.append(
            f"{count} devices are few: an interval resampled from so few is narrower than it "
            "should be."
        )
    if results.edit_spread < CONSTANT:
        found.append(
            f"The edits differ across devices by only {figures.decimal(results.edit_spread, 2)} "
            "of their size: this is close to one constant edit for all."
        )
    return [*found, *results.mixed]


def comparison_rows(results: Results) -> tuple[list[Row], list[Row]]:
    """The rows of the first chart: ours in the order of the method, rivals from best to worst."""
    ours = [Row(LABELS[name], getattr(results, name), ROLES[name]) for name in OURS]
    ranked = sorted(results.rivals.items(), key=lambda item: -item[1].mean)
    return ours, [Row(label(name, results.table), estimate) for name, estimate in ranked]


def ways(results: Results) -> list[tuple[str, str, TableRow]]:
    """Every way to serve the devices: its key, what people call it, and its figures."""
    rows = results.table.rows
    return [(key, LABELS.get(key, key), rows[key]) for key in in_order(results.table)]


def condition_rows(results: Results) -> list[Row]:
    """Gain of the edit over the static model for unseen devices and under each condition."""
    return [
        Row(name, table.rows["edited"].gain, "edited" if table is results.table else "other")
        for name, table in by_condition(results).items()
    ]


def staleness_courses(results: Results) -> list[charts.Course]:
    """What edits gain by their age, and the rivals that are best at any age."""
    tables = by_staleness(results)
    best = dict.fromkeys(name for table in tables.values() if (name := best_rival(table)))
    shown = {"edited": LABELS["edited"], **{name: label(name, results.table) for name in best}}
    return [
        charts.Course(
            name, {age: t.rows[key].gain for age, t in tables.items()}, ROLES.get(key, "other")
        )
        for key, name in shown.items()
        if all(key in table.rows for table in tables.values())
    ]


def conditions_finding(results: Results, metric: Metric) -> str:
    """Where the edit is shown to hurt, and where it is not shown to help."""
    tables = results.conditions
    gains = {name: table.rows["edited"].gain for name, table in tables.items()}
    hurt = [name for name, gain in gains.items() if gain.high < 0]
    unclear = [name for name, gain in gains.items() if gain.low <= 0 <= gain.high]
    if not hurt and not unclear:
        return "The edit is better than the static model under every condition."
    said = []
    if hurt:
        worst = min(hurt, key=lambda name: gains[name].mean)
        said.append(
            f"The edit is worse than the static model under {', '.join(hurt)}"
            f" (at worst {metric.gain(gains[worst].mean)})."
        )
    if unclear:
        said.append(f"No difference is shown under {', '.join(unclear)}.")
    return " ".join(said)


def calibration_finding(results: Results) -> str:
    """What editing does to the confidence of the model."""
    if not results.calibration:
        return ""
    static, edited = (results.calibration[name].error for name in ("static", "edited"))
    verb = "raises" if edited > static else "lowers"
    return (
        f"Editing {verb} the expected calibration error from {figures.decimal(static, 3)} to "
        f"{figures.decimal(edited, 3)} (ten bins of confidence, all queries)."
    )


def comparison_finding(rows: Sequence[Row]) -> str:
    """Where the edit comes among everything that was tried."""
    edited = next(r.estimate.mean for r in rows if r.role == "edited")
    better = sorted((r for r in rows if r.estimate.mean > edited), key=lambda r: -r.estimate.mean)
    if not better:
        return f"Of {len(rows)} ways to serve these devices none scores higher than the edit."
    verb = "scores" if len(better) == 1 else "score"
    named = "; ".join(r.label for r in better[:3])
    more = f"; and {len(better) - 3} more" if len(better) > 3 else ""
    return (
        f"Of {len(rows)} ways to serve these devices {len(better)} {verb} higher than the edit: "
        f"{named}{more}."
    )


def comparison_findings(results: Results, metric: Metric) -> list[tuple[str, str]]:
    """What control, prototypes and rivals say, each with a name."""
    alone = results.prototype_minus_static
    found = [
        ("Control", _control(results, metric)),
        (
            "Prototype alone",
            f"{metric.gain(alone.mean)} ({metric.gain_range(alone)}), chosen on the device, offline"
            + ("; the interval includes zero." if _unclear(alone) else "."),
        ),
    ]
    if results.rivals:
        name = max(_deployed(results), key=lambda n: results.rivals[n].mean)
        best = results.rivals[name]
        ahead = results.edited_minus_rivals[name]
        found.append(
            (
                "Best rival",
                f"{name}, {metric.score(best.mean)}: {metric.amount(ahead.mean)} "
                f"{'below' if ahead.mean >= 0 else 'above'} the edit "
                f"(edit − rival, paired: {metric.gain_range(ahead)})"
                + ("; the interval includes zero." if _unclear(ahead) else "."),
            )
        )
    return found


def _deployed(results: Results) -> list[str]:
    """Rivals that could serve devices: all but upper bounds, where there are any others."""
    bounds = {name for name, row in results.table.rows.items() if row.kind == "upper bound"}
    return [name for name in results.rivals if name not in bounds] or list(results.rivals)


def _control(results: Results, metric: Metric) -> str:
    own, other = results.edited_minus_other, results.other_device_control.mean
    against_static = other - results.static.mean
    beside = (
        f"An edit made from another device’s window scores {metric.score(other)}, "
        f"{metric.amount(against_static)} {'above' if against_static > 0 else 'below'} the "
        "static model"
    )
    over = f"{metric.gain(own.mean)} ({metric.gain_range(own)})"
    if own.low <= 0:
        return (
            f"{beside}; a device’s own edit is not shown to be better than another’s: {over}. "
            "Nothing here is personal."
        )
    if results.edited_minus_static.low <= 0:
        meaning = "edits depend on their device, but that alone is no gain over the static model"
    elif against_static > 0:
        meaning = "part of the gain suits every device"
    else:
        meaning = "what helps comes from the device’s own window"
    return f"{beside}: {meaning}. Own over other: {over}."


def gains_finding(devices: Sequence[DeviceResult], metric: Metric) -> str:
    """How many devices gain, stay and lose, and how many lose much."""
    found = np.array([d.edited - d.static for d in devices])
    up, down = int((found > 0).sum()), int((found < 0).sum())
    much = sum(loses(d.edited - d.static) for d in devices)
    gain = f"{up} of {len(found)} devices gain, {len(found) - up - down} stay as they were"
    if not down:
        return f"{gain}, none loses."
    lose = f"{down} {'loses' if down == 1 else 'lose'}"
    return f"{gain}, {lose}; {much or 'none'} by more than {metric.threshold(LOSS_POINTS)}."


@dataclass(frozen=True)
class Group:
    """One prototype in the map's legend. gain: mean of the test devices that belong to it."""

    prototype: int
    mark: Markup
    members: int
    gain: float | None


def groups(results: Results) -> list[Group]:
    """The prototypes, with how many devices each serves and what editing gains there."""
    places = results.prototype_map
    found = []
    for index in range(len(places.centres)):
        gained = [d.edited - d.static for d in results.devices if d.prototype == index]
        members = places.members.count(index)
        mean = fmean(gained) if gained else None
        found.append(Group(index, Markup(charts.key(index)), members, mean))
    return found


def latency_finding(measured: Measurement) -> str:
    """What editing costs a call."""
    base, edited = figures.quantity(measured.base.p50_us), figures.quantity(measured.edited.p50_us)
    return (
        f"At the median an edited call takes {edited}{figures.SPACE}µs, "
        f"{figures.decimal(measured.ratio, 2)} times the {base}{figures.SPACE}µs of the same model "
        "with baked weights."
    )


def latency_terms(measured: Measurement) -> list[tuple[str, str]]:
    """Under which terms it was measured."""
    host = measured.host
    phone = host.system.lower().startswith(PHONES)
    counts = {d: measured.delegates.count(d) for d in dict.fromkeys(measured.delegates)}
    delegates = ", ".join(f"{name} × {n}" if n > 1 else name for name, n in counts.items())
    threads = f"{host.threads} thread{'' if host.threads == 1 else 's'}"
    found = [
        ("Host", f"{host.system} {host.machine}" + ("" if phone else "; not a phone")),
        ("Processor", f"{threads}, {host.cores} cores, thermal state {host.thermal}"),
        ("Program", f"{measured.target} {measured.precision}"),
        ("Delegates", delegates or "none"),
        (
            "Calls",
            f"{measured.base.iterations} of each, in turn, after {measured.base.warmup} to warm up",
        ),
        ("Load", f"{figures.quantity(measured.load_ms)}{figures.SPACE}ms"),
    ]
    if measured.edit_to_active_ms is not None:
        active = f"{figures.quantity(measured.edit_to_active_ms)}{figures.SPACE}ms"
        found.append(("Edit to active", active))
    return found


@dataclass(frozen=True)
class Cost:
    """One thing that an edit costs, over devices."""

    name: str
    meaning: str
    median: str
    worst: str
    devices: int


def edit_costs(devices: Sequence[DeviceResult]) -> list[Cost]:
    """Bytes and times of an edit, where edits were sent."""

    def milliseconds(value: float) -> str:
        return f"{figures.quantity(value)}{figures.SPACE}ms"

    columns = (
        ("Edit file", "what is sent, signature included", figures.size, "edit_bytes"),
        ("Edit to active", "from bytes in hand to probe passed", milliseconds, "edit_to_active_ms"),
        ("Round trip", "from observation sent to edit received", milliseconds, "round_trip_ms"),
    )
    found = []
    for name, meaning, written, field in columns:
        values = [v for d in devices if (v := getattr(d, field)) is not None]
        if values:
            median = written(float(np.median(values)))
            found.append(Cost(name, meaning, median, written(max(values)), len(values)))
    return found


def largest_difference(export: ExportResult) -> float:
    """The largest difference from PyTorch, whatever the state of the slots."""
    return max(export.base_difference, export.prototype_difference, export.edited_difference)


def exports_finding(exports: Sequence[ExportResult], left_out: Mapping[str, str]) -> str:
    """How many programs were exported, and whether each stays within its tolerance."""
    count = f"{len(exports)} program{'' if len(exports) == 1 else 's'} exported"
    out = f"; {len(left_out)} left out" if left_out else ""
    beyond = [e for e in exports if not largest_difference(e) <= e.tolerance]
    if beyond:
        names = ", ".join(f"{e.target} {e.precision}" for e in beyond)
        return f"{count}{out}. Outside the tolerance: {names}."
    within = ", each within its tolerance of PyTorch" if exports else ""
    return f"{count}{within}{out}."


def flattened(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A nested document as dotted names with their values."""
    if isinstance(value, Mapping) and value:
        return [
            row
            for key, inner in value.items()
            for row in flattened(inner, f"{name}.{key}" if name else str(key))
        ]
    return [(name, value if isinstance(value, str) else _document(value, indent=None))]


def _document(value: Any, indent: int | None = 2) -> str:
    return json.dumps(schema.encode(value), indent=indent, ensure_ascii=False, default=str)


def _unclear(estimate: Estimate) -> bool:
    return estimate.low <= 0 <= estimate.high
