"""Results as Markdown tables, for a paper or a page of documentation."""

from collections.abc import Callable, Sequence

from persona.evaluation.figures import Metric, share, thousandths
from persona.evaluation.results import (
    LABELS,
    LOSS_POINTS,
    Estimate,
    Results,
    Row,
    Table,
    best_rival,
    by_condition,
    in_order,
)


def render_markdown(results: Results) -> str:
    """Every way to serve the devices, then the edit and all ways under each condition."""
    metric = Metric.named(results.metric)
    parts = [
        f"## {results.model}",
        _preface(results),
        ways_table(results.table, metric),
        f"Devices that lose more than {metric.threshold(LOSS_POINTS)} under the edit: "
        f"{share(results.table.rows['edited'].losers)}; by chance alone "
        f"{share(results.table.chance)} would.",
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
    return "\n\n".join(parts) + "\n"


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
    return _table(
        header, [_cells(_label(n, table), table.rows[n], metric, metrics) for n in in_order(table)]
    )


def _label(name: str, table: Table) -> str:
    bound = " (with labels)" if table.rows[name].kind == "upper bound" else ""
    return f"{LABELS.get(name, name)}{bound}"


def _cells(label: str, row: Row, metric: Metric, metrics: Sequence[str]) -> list[str]:
    return [
        label,
        _between(metric.number, row.score),
        _between(metric.signed, row.gain),
        _between(metric.signed, row.ahead),
        *(_between(thousandths, row.metrics[name]) for name in metrics),
        share(row.losers),
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
                share(edited.losers),
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
    return _by_condition(results, lambda row: share(row.losers), ["by chance", *chance])


def _by_condition(results: Results, cell: Callable[[Row], str], *first: Sequence[str]) -> str:
    conditions = by_condition(results)
    body = [
        [
            _label(name, results.table),
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
