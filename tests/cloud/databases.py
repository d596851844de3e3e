"""Databases for tests: an empty one by name, on SQLite or on a real PostgreSQL."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text

MakeDatabase = Callable[[], str]
"""Makes an empty database; returns its URL."""


def sqlite_in(folder: Path) -> MakeDatabase:
    """Empty SQLite files in a folder."""
    made: list[str] = []

    def make() -> str:
        made.append(f"sqlite:///{folder / f'cloud{len(made)}.sqlite'}")
        return made[-1]

    return make


def postgresql_at(server: str, prefix: str = "cloud") -> MakeDatabase:
    """Empty databases on a PostgreSQL server, whose names begin with a prefix of their own."""
    made: list[str] = []

    def make() -> str:
        name = f"{prefix}{len(made)}"
        engine = create_engine(driver(server), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        made.append(make_url(server).set(database=name).render_as_string(hide_password=False))
        return made[-1]

    return make


def driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def rows(url: str, query: str, **values: Any) -> list[tuple[Any, ...]]:
    """What a query gives, past everything of the cloud."""
    engine = create_engine(driver(url))
    with engine.begin() as connection:
        found = connection.execute(text(query), values)
        result = [tuple(row) for row in found] if found.returns_rows else []
    engine.dispose()
    return result


def everything_in(url: str) -> bytes:
    """All bytes that a database has stored, as files or as a dump."""
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        return b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
    tables = [
        name for (name,) in rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    cells = (
        cell for table in tables for row in rows(url, f"SELECT * FROM {table}") for cell in row
    )
    return b"\0".join(c if isinstance(c, bytes) else str(c).encode() for c in cells)
