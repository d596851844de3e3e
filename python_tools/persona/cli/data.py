"""`persona data`: public data sets, what they are and how to get one."""

from pathlib import Path

import click
from rich.table import Table

from persona.cli.terminal import (
    command,
    json_option,
    progress_stages,
    say_json,
    stderr,
    stdout,
)


@click.group()
def data() -> None:
    """List or fetch public data sets."""


@data.command(name="list")
@json_option
@command
def list_sets(as_json: bool) -> None:
    """List the public sets, with their readers, terms and whether a checksum is known."""
    from persona.data.download import PUBLIC_SETS

    if as_json:
        say_json(
            {
                name: {
                    "title": found.title,
                    "reader": found.reader,
                    "home": found.home,
                    "terms": found.terms,
                    "verified": found.verified(),
                    "files": {
                        f.name: {"url": f.url, "checksums": f.checksums()} for f in found.files
                    },
                    "by_hand": found.by_hand,
                }
                for name, found in PUBLIC_SETS.items()
            }
        )
        return
    table = Table(box=None)
    for column in ("name", "what", "reader", "checksum"):
        table.add_column(column)
    for name, found in PUBLIC_SETS.items():
        kinds = dict.fromkeys(kind for f in found.files for kind in f.checksums())
        checksum = "by hand" if found.by_hand else ", ".join(kinds) or "unverified"
        table.add_row(f"[bold]{name}[/]", found.title, found.reader, checksum)
    stdout.print(table)


@data.command()
@click.argument("name")
@click.option(
    "--to",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder for the files; pass it to other commands with --data.",
)
@json_option
@command
def fetch(name: str, out: Path, as_json: bool) -> None:
    """Download a public set from its publisher, check it and unpack it, after showing its terms."""
    from persona.data import download

    chosen = download.public_set(name)
    stderr.print(f"[bold]{chosen.title}[/]\nterms: {chosen.terms}\nmore:  {chosen.home}")
    if chosen.files and not chosen.verified():
        stderr.print("[yellow]unverified: its publisher states no checksum[/]")
    with progress_stages() as stages:
        download.fetch(chosen, out, stages(f"downloading {name}"))
    if as_json:
        say_json({"name": name, "path": str(out), "reader": chosen.reader})
        return
    stdout.print(f'{out} is ready: set data.name = "{chosen.reader}" and pass --data {out}')
