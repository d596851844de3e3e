"""Results as Markdown tables, for a paper or a page of documentation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from persona.evaluation.convergence import convergence
from persona.evaluation.figures import Metric, milliseconds, share, shares, thousandths
from persona.evaluation.results import (
    LOSS_POINTS,
    Cost,
    Estimate,
    LeftOut,
    Results,
    Row,
    Table,
    best_rival,
    by_condition,
    in_order,
    label,
)


def render_markdown(results: Results) -> str:
    """Every way to serve the devices, then the edit and all ways under each condition."""
    metric = Metric.named(results.metric)
    parts = [
        f"## {results.model}",
        _preface(results),
        ways_table(results.table, metric),
        f"Devices that lose more than {metric.threshold(LOSS_POINTS)} under the edit: "
        f"{shares(results.table.rows['edited'].losers)}; by chance alone "
        f"{share(results.table.chance)} would.",
        *_measured(results.table),
        *filter(None, [convergence(results)]),
        *results.mixed,
        *_left_out(results.data_left_out),
    ]
    if results.conditions:
        parts += [
            "### Under other conditions",
            conditions_table(results, metric),
            "Gain of every way over the static model under each condition:",
            gains_table(results, metric),
            f"Share of devices that lose more than {metric.threshold(LOSS_POINTS)}; *by chance* is "
            "what edits would make that change as many answers and help as often as they hurt:",
            losers_table(results),
        ]
    parts += _made_by(results.made_by)
    return "\n\n".join(parts) + "\n"


def _measured(table: Table) -> list[str]:
    if not any(row.cost for row in table.rows.values()):
        return []
    return [
        "*Once* and *query* are milliseconds of one processor for one device, in PyTorch: once a "
        "window, for observing it and making the edit or adapting otherwise, and for every query "
        "after that, by the whole model."
    ]


def _left_out(left_out: LeftOut) -> list[str]:
    """What was not used of the data, with the first faults as they were found."""
    if not left_out.counts:
        return []
    counted = ", ".join(f"{count} {reason}" for reason, count in left_out.counts.items())
    faults = "".join(f"\n- `{fault}`" for fault in left_out.faults)
    return [f"Left out of the data: {counted}.{faults and chr(10)}{faults}"]


def _made_by(made_by: Mapping[str, Any]) -> list[str]:
    """The command, the code and the machine, where they are recorded."""
    if not {"command", "code", "machine", "evaluated_with"} <= set(made_by):
        return []
    machine, software = made_by["machine"], made_by["evaluated_with"]
    return [
        f"Made by `{made_by['command']}`: Persona {software['persona']}, code {made_by['code']}, "
        f"PyTorch {software['torch']}, on {machine['processor']} ({machine['system']} "
        f"{machine['machine']}, {machine['cores']} cores), {machine['threads']} thread a training."
    ]


def _preface(results: Results) -> str:
    trainings = "training" if results.trainings == 1 else "trainings"
    warning = "**Smoke run: the figures mean nothing.** " if results.quick else ""
    return (
        f"{warning}{results.trainings} {trainings} of backbone and adapter, "
        f"{len(results.devices)} unseen devices, {results.queries} queries each; 95 % intervals "
        "over trainings and devices. Gains are over the static model, paired. *Ahead* is the edit "
        "less this row, paired."
    )


def ways_table(table: Table, metric: Metric) -> str:
    """Every way to serve the devices: ours in the order of the method, the rest from the best."""
    metrics = list(next(iter(table.rows.values())).metrics)[1:]
    header = [
        "",
        metric.title,
        "Gain",
        "Ahead",
        *(name.upper() for name in metrics),
        f"Lose > {metric.threshold(LOSS_POINTS)}",
    ]
    rows = [_cells(label(n, table), table.rows[n], metric, metrics) for n in in_order(table)]
    if _measured(table):
        header += ["Once, ms", "Query, ms"]
        rows = [
            row + _cost(table.rows[n].cost) for row, n in zip(rows, in_order(table), strict=True)
        ]
    return _table(header, rows)


def _cost(cost: Cost | None) -> list[str]:
    return ["", ""] if cost is None else [*map(milliseconds, (cost.adaptation_ms, cost.query_ms))]


def _cells(name: str, row: Row, metric: Metric, metrics: Sequence[str]) -> list[str]:
    return [
        name,
        _between(metric.number, row.score),
        _between(metric.signed, row.gain),
        _between(metric.signed, row.ahead),
        *(_between(thousandths, row.metrics[name]) for name in metrics),
        shares(row.losers),
    ]


def conditions_table(results: Results, metric: Metric) -> str:
    """The edit and its control for other devices and for streams gone wrong."""
    rows = []
    for name, table in by_condition(results).items():
        edited, other = table.rows["edited"], table.rows["other_device_control"]
        best = best_rival(table)
        rows.append(
            [
                name,
                _between(metric.number, table.rows["static"].score),
                _between(metric.number, edited.score),
                _between(metric.signed, edited.gain),
                _between(metric.signed, other.gain),
                "" if best is None else f"{best}, {metric.number(table.rows[best].score.mean)}",
                shares(edited.losers),
                share(table.chance),
            ]
        )
    header = ["", "Static", "Edited", "Gain", "Other’s edit", "Best rival", "Lose", "By chance"]
    return _table(header, rows)


def gains_table(results: Results, metric: Metric) -> str:
    """What every way gains under each condition."""
    return _by_condition(results, lambda row: _between(metric.signed, row.gain))


def losers_table(results: Results) -> str:
    """The share of devices that lose by every way under each condition, after that by chance."""
    chance = [share(table.chance) for table in by_condition(results).values()]
    return _by_condition(results, lambda row: shares(row.losers), ["by chance", *chance])


def _by_condition(results: Results, cell: Callable[[Row], str], *first: Sequence[str]) -> str:
    conditions = by_condition(results)
    body = [
        [
            label(name, results.table),
            *(cell(t.rows[name]) if name in t.rows else "" for t in conditions.values()),
        ]
        for name in in_order(results.table)
        if name != "static"
    ]
    return _table(["", *conditions], [*first, *body])


def _between(written: Callable[[float], str], estimate: Estimate) -> str:
    return f"{written(estimate.mean)} [{written(estimate.low)}, {written(estimate.high)}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
