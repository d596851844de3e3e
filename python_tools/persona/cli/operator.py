"""`persona operator`: keys for the people and programs that run a cloud, and keys that sign."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from persona.cli.terminal import CheckFailedError, command, json_option, say_json, stdout

if TYPE_CHECKING:
    from persona_cloud.signing_keys import SigningKeys

SCOPES = ("dashboard", "devices", "metrics", "models")
ROLES = ("edit", "bundle")

_run = click.argument("run", type=click.Path(path_type=Path))
_database = click.option(
    "--database",
    envvar="DATABASE_URL",
    help="SQLAlchemy URL, also from DATABASE_URL.  [default: SQLite in RUN/cloud.sqlite]",
    metavar="URL",
)


@click.group()
def operator() -> None:
    """Keys with which operators use the API and the dashboard, and keys that sign."""


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


@operator.group("signing-key")
def signing_key() -> None:
    """Keys that sign edits and bundles; phones learn changes by themselves.

    \b
    A new edit key, with the old one's edits good until they expire:
      persona operator signing-key add RUN --role edit
      persona operator signing-key retire RUN OLD
    An edit key that was stolen:
      persona operator signing-key add RUN --role edit
      persona operator signing-key revoke RUN STOLEN
    """


@signing_key.command("add")
@_run
@click.option(
    "--role",
    type=click.Choice(ROLES),
    required=True,
    help="`edit` signs edits from now on; `bundle` signs bundles and tells phones of keys.",
)
@_database
@json_option
@command
def add_signing_key(run: Path, role: str, database: str | None, as_json: bool) -> None:
    """Make a key in RUN/keys and tell phones to trust it."""
    from persona_cloud.signing_keys import ROLES as KNOWN

    (known,) = (name for name in KNOWN if name == role)
    keys = _signing_keys(run, database)
    key = keys.add(known)
    if as_json:
        say_json({"id": key.id, "role": key.role, "document": keys.sequence()})
    else:
        stdout.print(f"{role} key [bold]{key.id}[/], made in {run / 'keys'}", highlight=False)
        stdout.print("copy it to every server before the next restart; back it up")


@signing_key.command("list")
@_run
@_database
@json_option
@command
def list_signing_keys(run: Path, database: str | None, as_json: bool) -> None:
    """List the keys and what becomes of them."""
    keys = _signing_keys(run, database)
    current = keys.current().id
    shown = [_described(key, current) for key in keys.all_keys()]
    if as_json:
        say_json({"document": keys.sequence(), "keys": shown})
        return
    for key in shown:
        line = f"{key['id']}  {key['role']:<6}  {key['state']}"
        if key["until"]:
            line += f" {key['until']}"
        stdout.print(line, markup=False, highlight=False)
    stdout.print(f"newest key document: {keys.sequence() or 'none'}", highlight=False)


@signing_key.command("retire")
@_run
@click.argument("key")
@_database
@json_option
@command
def retire_signing_key(run: Path, key: str, database: str | None, as_json: bool) -> None:
    """Sign nothing more with an edit key; what it signed stays good until it expires."""
    from persona.formats.edit import format_time
    from persona_cloud.config import CloudConfig

    until = _signing_keys(run, database).retire(key, CloudConfig.edit_lifetime)
    if as_json:
        say_json({"retired": key, "until": format_time(until)})
    else:
        stdout.print(
            f"key {key} signs no more; it verifies until {format_time(until)}", highlight=False
        )


@signing_key.command("revoke")
@_run
@click.argument("key")
@_database
@json_option
@command
def revoke_signing_key(run: Path, key: str, database: str | None, as_json: bool) -> None:
    """Tell phones to trust a key no more, at once: it was stolen, or nothing needs it."""
    _signing_keys(run, database).revoke(key)
    if as_json:
        say_json({"revoked": key})
    else:
        stdout.print(
            f"key {key} is revoked; phones refuse it when they next reach the cloud",
            highlight=False,
        )


def _signing_keys(run: Path, database: str | None) -> "SigningKeys":
    from persona.runs import load_run
    from persona_cloud.signing_keys import SigningKeys
    from persona_cloud.store import Store

    load_run(run)
    return SigningKeys(Store(database_of(run, database)), run / "keys")


def _described(key: Any, current: str) -> dict[str, Any]:
    from persona.formats.edit import format_time

    end = key.revoked_at or key.until
    if key.revoked_at:
        state = "revoked at"
    elif key.until:
        over = key.until <= datetime.now(UTC)
        state = "expired at" if over else "verifies until"
    else:
        state = "signs" if key.id == current or key.role == "bundle" else "verifies"
    return {
        "id": key.id,
        "role": key.role,
        "state": state,
        "until": end and format_time(end),
        "added_at": format_time(key.added_at),
    }


def database_of(run: Path, url: str | None) -> str:
    """The database that `persona serve` of this run uses. Raises RunError where there is no run."""
    from persona.runs import load_run
    from persona_cloud.config import default_database

    if url is None:
        load_run(run)
    return url or default_database(run)
