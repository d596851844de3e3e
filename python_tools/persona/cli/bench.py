"""`persona bench`: base against edited on this machine, in one run."""

from pathlib import Path

import click
from rich.table import Table

from persona.cli.bundle import open_trusted, trust_option
from persona.cli.terminal import command, json_option, say_json, stdout


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--iterations",
    type=click.IntRange(1),
    default=2000,
    show_default=True,
    help="Calls of each.",
)
@trust_option
@json_option
@command
def bench(bundle: Path, iterations: int, trust: Path | None, as_json: bool) -> None:
    """Time the base with baked weights against the edited model, call by call in turn.

    The ratio is the result; absolute times belong to this machine and this moment.
    """
    from persona.device.live import LiveModel
    from persona.device.measure import measure

    opened = open_trusted(bundle, trust)
    live = LiveModel(opened)
    if opened.manifest.prototype_count:
        live.use_prototype(0)
    golden = opened.golden.inputs[0]
    measured = measure(live, [golden[p.name] for p in opened.manifest.inputs], iterations)
    if as_json:
        say_json(measured.to_json())
        return
    table = Table(title=f"{measured.target} {measured.precision}, 1 thread", title_justify="left")
    for column in ("µs", "p50", "p90", "p99"):
        table.add_column(column, justify="right")
    for name, latency in (("base, baked", measured.base), ("edited", measured.edited)):
        quantiles = (latency.p50_us, latency.p90_us, latency.p99_us)
        table.add_row(name, *(f"{q:.1f}" for q in quantiles))
    stdout.print(table)
    stdout.print(f"ratio of medians [bold]{measured.ratio:.3f}[/]; load {measured.load_ms:.1f} ms")
