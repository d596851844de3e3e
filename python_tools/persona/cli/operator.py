"""`persona operator`: keys for the people and programs that run a cloud, kept in its database."""

from datetime import UTC, datetime
from pathlib import Path

import click

from persona.cli.terminal import CheckFailedError, command, json_option, say_json, stdout

SCOPES = ("devices", "metrics")

_run = click.argument("run", type=click.Path(path_type=Path))
_database = click.option(
    "--database",
    envvar="DATABASE_URL",
    help="SQLAlchemy URL, also from DATABASE_URL.  [default: SQLite in RUN/cloud.sqlite]",
    metavar="URL",
)


@click.group()
def operator() -> None:
    """Keys with which operators shut devices out and read metrics."""


@operator.command()
@_run
@click.option("--name", required=True, help="Whose key it is.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="What it may do; repeat for more.",
)
@_database
@json_option
@command
def add(run: Path, name: str, scopes: tuple[str, ...], database: str | None, as_json: bool) -> None:
    """Make a key. It is shown once; the database keeps its digest."""
    from persona_cloud.identity import SCOPES as KNOWN
    from persona_cloud.identity import new_operator_key
    from persona_cloud.store import Store

    secret, key = new_operator_key(name, [scope for scope in KNOWN if scope in scopes])
    Store(database_of(run, database)).add_operator_key(key)
    if as_json:
        say_json({"id": key.id, "key": secret})
    else:
        stdout.print(f"key [bold]{key.id}[/], shown only now:")
        stdout.print(secret, highlight=False, soft_wrap=True)


@operator.command("list")
@_run
@_database
@json_option
@command
def list_keys(run: Path, database: str | None, as_json: bool) -> None:
    """List the keys, without their secrets."""
    from persona.formats.edit import format_time
    from persona_cloud.store import Store

    keys = Store(database_of(run, database)).operator_keys()
    if as_json:
        shown = [
            {
                "id": key.id,
                "name": key.name,
                "scopes": key.scopes,
                "created_at": format_time(key.created_at),
                "revoked_at": key.revoked_at and format_time(key.revoked_at),
            }
            for key in keys
        ]
        say_json({"keys": shown})
        return
    for key in keys:
        state = f"revoked at {format_time(key.revoked_at)}" if key.revoked_at else "good"
        line = f"{key.id}  {key.name}  {' '.join(key.scopes)}  {state}"
        stdout.print(line, markup=False, highlight=False)


@operator.command()
@_run
@click.argument("key")
@_database
@json_option
@command
def revoke(run: Path, key: str, database: str | None, as_json: bool) -> None:
    """Refuse the key with this id from now on."""
    from persona_cloud.store import Store

    if not Store(database_of(run, database)).revoke_operator_key(key, datetime.now(UTC)):
        raise CheckFailedError(
            "operator.unknown", f"there is no key {key!r}; see `persona operator list`"
        )
    if as_json:
        say_json({"revoked": key})
    else:
        stdout.print(f"key {key} is refused from now on", highlight=False)


def database_of(run: Path, url: str | None) -> str:
    """The database that `persona serve` of this run uses. Raises RunError where there is no run."""
    from persona.runs import load_run
    from persona_cloud.config import default_database

    if url is None:
        load_run(run)
    return url or default_database(run)
