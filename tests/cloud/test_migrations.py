"""A database of any earlier version becomes one of this version, and keeps what it holds."""

import multiprocessing
import sqlite3
import threading
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from databases import driver, rows
from sqlalchemy import create_engine
from wishes import wish

from persona_cloud.database import StoreError, open_database
from persona_cloud.store import Store
from persona_cloud.tables import DeviceToken, Table

BEFORE_MIGRATIONS = """
CREATE TABLE devices (
    id VARCHAR NOT NULL, token_sha256 VARCHAR NOT NULL, platform VARCHAR NOT NULL,
    enrolled_at DATETIME NOT NULL, expires_at DATETIME NOT NULL, sequence INTEGER NOT NULL,
    PRIMARY KEY (id), UNIQUE (token_sha256)
);
CREATE TABLE issued_edits (
    id INTEGER NOT NULL, device VARCHAR NOT NULL, sequence INTEGER NOT NULL,
    model VARCHAR NOT NULL, bundle VARCHAR NOT NULL, prototype INTEGER,
    issued_at DATETIME NOT NULL, expires_at DATETIME NOT NULL, latent BLOB NOT NULL,
    PRIMARY KEY (id), UNIQUE (device, sequence), FOREIGN KEY(device) REFERENCES devices (id)
);
CREATE INDEX ix_issued_edits_issued_at ON issued_edits (issued_at);
CREATE TABLE kept_answers (
    device VARCHAR NOT NULL, "key" VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
    edit BLOB NOT NULL, key_id VARCHAR NOT NULL, signature BLOB NOT NULL,
    expires_at DATETIME NOT NULL,
    PRIMARY KEY (device, "key"), FOREIGN KEY(device) REFERENCES devices (id)
);
CREATE INDEX ix_kept_answers_expires_at ON kept_answers (expires_at);
CREATE TABLE measurements (
    id INTEGER NOT NULL, device VARCHAR NOT NULL, received_at DATETIME NOT NULL,
    model VARCHAR NOT NULL, bundle VARCHAR NOT NULL, target VARCHAR NOT NULL,
    precision VARCHAR NOT NULL, document JSON NOT NULL,
    PRIMARY KEY (id), FOREIGN KEY(device) REFERENCES devices (id)
);
CREATE INDEX ix_measurements_model ON measurements (model);
INSERT INTO devices VALUES
    ('phone', 'digest', 'ios', '2026-11-01 10:00:00.000000', '2026-12-01 10:00:00.000000', 7);
INSERT INTO issued_edits VALUES (1, 'phone', 7, 'tiny', 'b', 2, '2026-11-02 10:00:00.000000',
    '2026-11-09 10:00:00.000000', x'00');
INSERT INTO kept_answers VALUES
    ('phone', 'k', 'f', x'01', 'id', x'02', '2026-11-09 10:00:00.000000');
INSERT INTO measurements VALUES
    (1, 'phone', '2026-11-02 10:00:00.000000', 'tiny', 'b', 'xnnpack', 'fp32', '{}');
"""
"""What the version before migrations made, with a device that has seven edits."""


@pytest.fixture
def old(tmp_path):
    with sqlite3.connect(tmp_path / "old.sqlite") as database:
        database.executescript(BEFORE_MIGRATIONS)
    return f"sqlite:///{tmp_path / 'old.sqlite'}"


def differences(url):
    """What the tables of a database lack, or have too much, beside those that the code names."""
    with create_engine(driver(url)).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, Table.metadata)


def test_the_migrations_make_the_tables_that_the_code_names(url):
    open_database(url)
    assert differences(url) == []


def test_a_database_from_before_migrations_keeps_its_devices_and_their_sequences(old):
    store = Store(old)
    token = store.token("digest")
    assert (token.device, token.revoked) == ("phone", False)
    assert token.expires_at == datetime(2026, 12, 1, 10, tzinfo=UTC)
    assert len(store.measurements({}, None, 10)) == 1
    assert rows(old, "SELECT device, sequence FROM issued_edits") == [("phone", 7)]
    assert rows(old, "SELECT fingerprint FROM kept_answers") == [("f",)]
    assert differences(old) == []
    (edit,) = store.issue([wish("phone")])
    assert edit.info.sequence == 8


def test_a_migrated_database_still_refuses_rows_of_no_device(old):
    store = Store(old)
    now = datetime.now(UTC)
    with pytest.raises(Exception, match="FOREIGN KEY"):
        store.renew("digest", DeviceToken("other", "nobody", now, now))


def test_a_database_with_broken_references_is_left_as_it_was(old):
    rows(
        old,
        "INSERT INTO measurements SELECT 2, 'gone', received_at, model, bundle, target, "
        "precision, document FROM measurements",
    )
    with pytest.raises(StoreError, match="row of measurements refers"):
        Store(old)
    assert rows(old, "SELECT token_sha256 FROM devices") == [("digest",)]


def test_processes_that_start_at_once_migrate_once(url):
    with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(opened, [url] * 3)) == [True] * 3
    assert differences(url) == []
    assert rows(url, "SELECT count(*) FROM alembic_version") == [(1,)]


def test_a_new_file_that_somebody_is_writing_is_waited_for(tmp_path):
    """SQLite itself refuses at once to change the journal of a file that somebody writes."""
    file = tmp_path / "new.sqlite"
    writer = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, writer.rollback).start()
    assert opened(f"sqlite:///{file}")


def opened(url):
    open_database(url).dispose()
    return True


def test_a_database_of_a_newer_version_is_not_touched(url):
    open_database(url)
    rows(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="made by a newer version"):
        open_database(url)
    assert rows(url, "SELECT version_num FROM alembic_version") == [("9999",)]
