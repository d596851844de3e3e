"""Results as Markdown tables, for a paper or a page of documentation."""

from collections.abc import Sequence

from persona.evaluation.figures import Metric, decimal, share
from persona.evaluation.results import (
    LABELS,
    LOSS_POINTS,
    Estimate,
    Results,
    Row,
    Table,
    best_rival,
    in_order,
)


def render_markdown(results: Results) -> str:
    """The table of every way to serve the devices, then other conditions, then what made it."""
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
        parts += ["### Under other conditions", conditions_table(results, metric)]
    return "\n\n".join(parts) + "\n"


def _preface(results: Results) -> str:
    trainings = "training" if results.trainings == 1 else "trainings"
    warning = "**Smoke run: the figures mean nothing.** " if results.quick else ""
    return (
        f"{warning}{results.trainings} {trainings} of backbone and adapter, "
        f"{len(results.devices)} unseen devices, {results.queries} queries each; 95 % intervals "
        "over trainings and devices. Gains are over the static model, paired. *Ahead* is the edit "
        "less this row, paired. *Cost* is time for the fleet over the static model's, in PyTorch."
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
        "Cost",
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
        metric.number(row.score.mean),
        _signed(row.gain, metric),
        _signed(row.ahead, metric),
        *(decimal(row.metrics[name].mean, 3) for name in metrics),
        share(row.losers),
        "" if row.cost is None else decimal(row.cost, 1),
    ]


def conditions_table(results: Results, metric: Metric) -> str:
    """The edit and its control for other devices and for streams gone wrong."""
    rows = []
    for name, table in (("unseen devices", results.table), *results.conditions.items()):
        edited, other = table.rows["edited"], table.rows["other_device_control"]
        best = best_rival(table)
        rows.append(
            [
                name,
                metric.number(table.rows["static"].score.mean),
                metric.number(edited.score.mean),
                _signed(edited.gain, metric),
                _signed(other.gain, metric),
                "" if best is None else f"{best}, {metric.number(table.rows[best].score.mean)}",
                share(edited.losers),
                share(table.chance),
            ]
        )
    header = ["", "Static", "Edited", "Gain", "Other’s edit", "Best rival", "Lose", "By chance"]
    return _table(header, rows)


def _signed(estimate: Estimate, metric: Metric) -> str:
    low, high = metric.signed(estimate.low), metric.signed(estimate.high)
    return f"{metric.signed(estimate.mean)} [{low}, {high}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
