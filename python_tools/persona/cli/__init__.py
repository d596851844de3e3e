"""The `persona` command: one file a command. Heavy libraries load when a command needs them."""

import sys
from typing import Any

import click

from persona import __version__
from persona.cli.bench import bench
from persona.cli.bundle import bundle
from persona.cli.data import data
from persona.cli.demo import demo
from persona.cli.device import device
from persona.cli.edit import edit
from persona.cli.edits import edits
from persona.cli.evaluate import evaluate
from persona.cli.export import export
from persona.cli.listings import listings
from persona.cli.operator import operator
from persona.cli.refine import refine
from persona.cli.serve import serve
from persona.cli.terminal import say_json
from persona.cli.train import train

EPILOG = """\b
The whole path, on your own data and model:
  persona train my.toml --data DIR --out RUN      backbone, adapter, prototypes
  persona evaluate RUN --data DIR --out DIR       what editing gains, with controls
  persona export RUN --target all --out BUNDLE    what an app ships
  persona serve RUN --bundle BUNDLE               the cloud adapter
  persona device BUNDLE --cloud URL --data DIR    a phone, on this machine

Exit codes: 0 done, 1 the check failed, 2 wrong usage.
"""


class Commands(click.Group):
    """Wrong usage is one JSON object, too, where --json is asked for."""

    def main(self, args: Any = None, **settings: Any) -> Any:  # type: ignore[override]
        given = sys.argv[1:] if args is None else list(args)
        try:
            return super().main(given, **settings | {"standalone_mode": False})
        except click.ClickException as error:
            if "--json" in given:
                say_json({"error": {"code": "usage.command", "message": error.format_message()}})
            error.show()
            sys.exit(error.exit_code)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="persona")
def main() -> None:
    """Models on phones that adapt to their owner without being retrained there.

    `persona demo` shows all of it in three minutes; it needs no data and no network.
    """


for command in (
    demo,
    data,
    train,
    evaluate,
    export,
    bundle,
    edit,
    edits,
    serve,
    refine,
    operator,
    device,
    bench,
):
    main.add_command(command)
for command in listings:
    main.add_command(command)
