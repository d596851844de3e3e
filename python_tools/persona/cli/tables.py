"""Tables that commands print."""

import numpy as np
from rich.console import Group
from rich.table import Table

from persona.evaluation.results import Estimate, LeftOut, Results, label

_FAULTS = 5
"""Bad rows and files that a command prints; a report has more."""


def shown(estimate: Estimate, metric: str, *, signed: bool = False) -> str:
    """A mean with its interval: percent, or points, for accuracy; three decimals for the rest."""
    sign = "+" if signed else ""
    if metric == "accuracy":
        mean, low, high = (100 * v for v in (estimate.mean, estimate.low, estimate.high))
        unit = "points" if signed else "%"
        return f"{mean:{sign}.1f} {unit} [dim]\\[{low:{sign}.1f}, {high:{sign}.1f}][/]"
    return (
        f"{estimate.mean:{sign}.3f} [dim]\\[{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}][/]"
    )


def scores_table(results: Results) -> Table:
    """Static, prototype, edited, control and rivals with intervals."""
    count = len(results.devices)
    table = Table(
        title=f"{results.metric} on {count} unseen devices, mean and 95 % interval",
        title_justify="left",
    )
    table.add_column("")
    table.add_column(results.metric, justify="right")
    rows = {
        "static": results.static,
        "prototype only (chosen on the device)": results.prototype_only,
        "edited": results.edited,
        "other device's edit (control)": results.other_device_control,
        **{
            f"rival: {label(name, results.table)}": estimate
            for name, estimate in results.rivals.items()
        },
    }
    for name, estimate in rows.items():
        style = "bold" if name == "edited" else None
        table.add_row(name, shown(estimate, results.metric), style=style)
    table.add_section()
    gain = shown(results.edited_minus_static, results.metric, signed=True)
    table.add_row("edited − static, paired", gain)
    return table


def left_out_lines(left_out: LeftOut) -> list[str]:
    """What was not used of the data, counted, and what was wrong with the first bad rows."""
    if not left_out.counts:
        return []
    counted = ", ".join(f"{count:,} {reason}" for reason, count in left_out.counts.items())
    first = left_out.faults[:_FAULTS]
    return [f"left out of the data: {counted}", *(f"  such as {fault}" for fault in first)]


def demo_summary(results: Results) -> Group:
    """The scores, then what an edit costs."""
    lines = []
    sizes = [d.edit_bytes for d in results.devices if d.edit_bytes is not None]
    active = [d.edit_to_active_ms for d in results.devices if d.edit_to_active_ms is not None]
    lines.append(
        f"edit: {int(np.median(sizes))} bytes, active {np.median(active):.1f} ms after it came"
    )
    if results.latency is not None:
        lines.append(
            f"latency: edited ÷ baked base = [bold]{results.latency.ratio:.3f}[/] "
            f"(medians of {results.latency.base.iterations} calls each, interleaved, one thread)"
        )
    for export in results.exports:
        worst = max(export.base_difference, export.prototype_difference, export.edited_difference)
        lines.append(
            f"{export.target} {export.precision}: {export.bytes / 1024:.0f} kB, {export.verified}, "
            f"{worst:.1e} from PyTorch ({export.tolerance:.0e} allowed)"
        )
    if results.quick:
        lines.append("[yellow]A smoke run: undertrained, its figures mean nothing.[/]")
    lines.append(f"{results.seconds:.0f} s in all")
    return Group(scores_table(results), *lines)
