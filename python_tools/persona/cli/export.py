"""`persona export`: a run becomes a bundle."""

from pathlib import Path

import click

from persona.cli.terminal import command, json_option, progress_stages, say_json, stdout

ALL = "all"


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
    type=click.Choice(["fp32", "fp16"]),
    help="For the chosen targets; without it each takes its own default.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle folder.")
@json_option
@command
def export(
    run: Path, chosen: tuple[str, ...], precision: str | None, out: Path, as_json: bool
) -> None:
    """Write one bundle: programs with editable slots, prototypes, golden vectors, signed manifest.

    Every program is run and compared with PyTorch before it is written.
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
    )
    loaded = load_run(run)
    with progress_stages() as stages:
        exported = export_bundle(loaded, wanted, out, stages)
    remember_bundle(run, out)
    programs = {f"{p.target} {p.precision}": p.verified for p in exported.manifest.programs}
    if as_json:
        say_json(
            {
                "bundle": str(out),
                "digest": exported.digest,
                "programs": programs,
                "left_out": exported.left_out,
            }
        )
        return
    stdout.print(f"[green]exported[/] {out}  [dim]{exported.digest[:16]}[/]")
    for name, verified in programs.items():
        stdout.print(f"  {name}: {verified}")
    for name, reason in exported.left_out.items():
        stdout.print(f"  [yellow]{name}: left out[/], {reason}")
    stdout.print(f"next: persona serve {run}")
