"""`persona targets`, `backbones`, `datasets`, `rivals`: what is registered."""

from collections.abc import Callable
from typing import Any

import click
from rich.table import Table

from persona.cli.terminal import command, json_option, say_json, stdout
from persona.registry import Registry


def _targets() -> Registry[Any]:
    from persona_export.targets import targets

    return targets


def _backbones() -> Registry[Any]:
    from persona.backbones import backbones

    return backbones


def _datasets() -> Registry[Any]:
    from persona.data import datasets

    return datasets


def _rivals() -> Registry[Any]:
    from persona.baselines import rivals

    return rivals


def _listing(name: str, registry: Callable[[], Registry[Any]], description: str) -> click.Command:
    @click.command(name, help=description)
    @json_option
    @command
    def show(as_json: bool) -> None:
        summaries = registry().summaries()
        if as_json:
            say_json(summaries)
            return
        table = Table(show_header=False, box=None)
        for entry, summary in summaries.items():
            table.add_row(f"[bold]{entry}[/]", summary)
        stdout.print(table)

    return show


listings = (
    _listing("targets", _targets, "List the runtimes that a bundle can have programs for."),
    _listing("backbones", _backbones, "List the on-device models."),
    _listing("datasets", _datasets, "List the data sets and readers."),
    _listing("rivals", _rivals, "List what an evaluation compares with."),
)
