"""`persona export`: a run becomes a bundle."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from persona.cli.terminal import command, json_option, progress_stages, say_json, stdout

if TYPE_CHECKING:
    from persona_export.export import Written

ALL = "all"
PRECISIONS = ("fp32", "fp16", "int8")


def _precisions(
    _: click.Context, __: click.Parameter, given: tuple[str, ...]
) -> tuple[str | None, ...]:
    """What was asked for, without repetition; (None,) stands for each target's default."""
    names = [name.strip() for text in given for name in text.split(",")]
    for name in names:
        if name not in PRECISIONS:
            raise click.BadParameter(f"expected {', '.join(PRECISIONS)}, got {name!r}")
    return tuple(dict.fromkeys(names)) or (None,)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "chosen",
    multiple=True,
    default=(ALL,),
    show_default=True,
    help="A target, see `persona targets`; give it again for more. `all` writes what it can.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    callback=_precisions,
    help="fp32, fp16 or int8, for the chosen targets; give it again, or several with commas, for "
    "more. Without it each target takes its own default.",
)
@click.option(
    "--slot-feed",
    type=click.Choice(["auto", "inputs", "patched"]),
    default="auto",
    show_default=True,
    help="How slots reach a program: as its inputs, or patched into the bytes of a head of its "
    "own. `auto` takes what costs least here; the manifest says which and why.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle folder.")
@json_option
@command
def export(
    run: Path,
    chosen: tuple[str, ...],
    precisions: tuple[str | None, ...],
    slot_feed: str,
    out: Path,
    as_json: bool,
) -> None:
    """Write one bundle: programs with editable slots, prototypes, golden vectors, signed manifest.

    Every program is run and compared with PyTorch before it is written; where nothing here
    executes it, the graph that went into it is.
    """
    from persona.durable import check_place
    from persona.runs import load_run, remember_bundle
    from persona_export.export import Wanted, export_bundle
    from persona_export.targets import targets

    check_place(out)
    names = tuple(targets) if ALL in chosen else tuple(dict.fromkeys(chosen))
    wanted = tuple(
        Wanted(name, precision, required=ALL not in chosen)  # type: ignore[arg-type]
        for name in names
        if targets[name]
        for precision in precisions
    )
    loaded = load_run(run)
    with progress_stages() as stages:
        exported = export_bundle(
            loaded,
            wanted,
            out,
            stages,
            slot_feed,  # type: ignore[arg-type]
        )
    remember_bundle(run, out)
    if as_json:
        say_json(
            {
                "bundle": str(out),
                "digest": exported.digest,
                "programs": {name: row.verified for name, row in exported.report.items()},
                "report": {name: asdict(row) for name, row in exported.report.items()},
                "left_out": exported.left_out,
                "versions": exported.manifest.made_by["exported_with"],
            }
        )
        return
    stdout.print(f"[green]exported[/] {out}  [dim]{exported.digest[:16]}[/]")
    _print_report(exported.report)
    for name, reason in exported.left_out.items():
        stdout.print(f"  [yellow]{name}: left out[/], {reason}", highlight=False)
    made_with = ", ".join(f"{n} {v}" for n, v in exported.manifest.made_by["exported_with"].items())
    stdout.print(f"[dim]{made_with}[/]", highlight=False)
    stdout.print(f"next: persona serve {run}")


def _print_report(report: dict[str, "Written"]) -> None:
    """A row a program; operators are counted over all of its methods."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("program", "verified", "slots as"):
        table.add_column(column, no_wrap=True, vertical="bottom")
    for column in ("KB", "ops in\ndelegate", "ops\noutside", "peak\nKB", "s", "off\nby"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in report.items():
        table.add_row(
            name,
            row.verified,
            row.slot_feed,
            f"{sum(row.files.values()) / 1024:.0f}",
            str(row.inside),
            str(row.outside),
            f"{row.peak_bytes / 1024:.1f}",
            f"{row.seconds:.0f}",
            f"{row.largest_difference:.0e}",
        )
    stdout.print(table)
    stdout.print(
        "[dim]peak: activations of the largest method; in ExecuTorch the planned arena, without "
        "what delegates take themselves, in Core ML an estimate from shapes\n"
        "off by: largest difference from PyTorch in fp32, relative to max(1, largest output)[/]"
    )
