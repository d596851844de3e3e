"""Opening a database: SQLite or PostgreSQL, brought to the newest migration by whoever is first."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

BUSY_SECONDS = 30
"""How long a writer waits for another one on SQLite."""

_TURN_SECONDS = 0.002

CONNECT_SECONDS = 5
"""How long PostgreSQL may take to accept a connection."""

FIRST_REVISION = "0001"
"""What databases hold that were made before there were migrations."""

_MIGRATING = 7_305_621
"""PostgreSQL's advisory lock of whoever migrates: any number that is always the same."""


class StoreError(ValueError):
    """A database that cannot be opened; the message says which and what to do."""


def open_database(url: str) -> Engine:
    """An engine for a database that has the tables of this version. Raises StoreError."""
    try:
        parsed = _with_driver(make_url(url))
        _migrate(parsed)
        return _engine(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(
            f"{error}; expected a URL such as sqlite:///cloud.sqlite or "
            "postgresql://user:password@host/database"
        ) from None
    except CommandError as error:
        raise StoreError(
            f"the database {parsed.render_as_string()} was made by a newer version ({error}); "
            "install that version, or restore a backup from before it"
        ) from None
    except DBAPIError as error:
        raise StoreError(
            f"cannot open the database {parsed.render_as_string()}: {error.orig}; "
            "check that it is there, and that it may be written to"
        ) from None


def _with_driver(url: URL) -> URL:
    """PostgreSQL is reached by psycopg, whatever SQLAlchemy's default is."""
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    return url


def _engine(url: URL, *, migrating: bool = False) -> Engine:
    pool: dict[str, Any] = {"poolclass": NullPool} if migrating else {"pool_pre_ping": True}
    settings = {"hide_parameters": True, **pool}
    if url.get_backend_name() != "sqlite":
        waits = {"connect_timeout": CONNECT_SECONDS} if url.get_driver_name() == "psycopg" else {}
        return create_engine(url, connect_args=waits, **settings)
    arguments = {"timeout": BUSY_SECONDS, "isolation_level": None}
    engine = create_engine(url, connect_args=arguments, **settings)
    event.listen(engine, "connect", _prepare_sqlite_to_migrate if migrating else _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def writing(engine: Engine) -> Engine:
    """The same database for transactions that write.

    SQLite's then take the lock when they begin: one that read first could not wait for it.
    """
    return engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")


def _begin_sqlite(connection: Connection) -> None:
    """Python's own module would begin before the first INSERT, and not at all before DDL."""
    begin = connection.get_execution_options().get("sqlite_begin", "BEGIN")
    if begin == "BEGIN":
        connection.exec_driver_sql(begin)
        return
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        _as_soon_as_free(driver, begin)
    except sqlite3.OperationalError:
        connection.exec_driver_sql(begin)
    finally:
        driver.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS:.0f}")


def _as_soon_as_free(driver: Any, statement: str) -> None:
    """Run what needs the file for itself as soon as nobody else has it.

    SQLite itself would sleep for up to 100 ms before it looks again, and so one busy process could
    keep another from its turn for seconds; and to change the journal it does not wait at all.
    """
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            driver.execute(statement)
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > end:
                raise
            time.sleep(_TURN_SECONDS)
        else:
            return


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Readers beside one writer; a commit is on the disk before a number is used."""
    _as_soon_as_free(connection, "PRAGMA journal_mode = WAL")
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_sqlite_to_migrate(connection: Any, _: Any) -> None:
    """A table that others refer to is changed by making it anew: keys are checked afterwards."""
    _prepare_sqlite(connection, _)
    connection.execute("PRAGMA foreign_keys = OFF")


def _migrate(url: URL) -> None:
    """Bring the database to the newest revision, in one transaction that others wait for."""
    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    engine = _engine(url, migrating=True)
    with engine.connect() as connection:
        if MigrationContext.configure(connection).get_current_revision() == newest:
            return
    with writing(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
        config.attributes["connection"] = connection
        tables = inspect(connection).get_table_names()
        if "devices" in tables and "alembic_version" not in tables:
            command.stamp(config, FIRST_REVISION)
        command.upgrade(config, "head")
        if engine.dialect.name == "sqlite":
            _check_references(connection)


def _check_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise StoreError(
            f"a row of {broken[0]} refers to a row of {broken[2]} that is not there; nothing was "
            "changed: restore a backup, or remove that row"
        )
