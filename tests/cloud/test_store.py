"""Sequence numbers are given out once, whoever asks at the same time."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, event

from persona_cloud.database import StoreError
from persona_cloud.store import Store
from persona_cloud.tables import Device, DeviceToken


def device(name):
    now = datetime.now(UTC)
    return Device(name, "other", now), DeviceToken(f"digest of {name}", name, now, now)


def take(url, name, count):
    store = Store(url)
    return [store.next_sequence(name) for _ in range(count)]


def test_threads_never_get_the_same_number(url):
    store = Store(url)
    store.enrol(*device("a"))
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda _: store.next_sequence("a"), range(100)))
    assert sorted(given) == list(range(1, 101))


def test_processes_never_get_the_same_number(url):
    store = Store(url)
    for name in "ab":
        store.enrol(*device(name))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(take, url, "a", 60) for _ in range(2)]
        first, second = (part.result() for part in parts)
    assert sorted(first + second) == list(range(1, 121))
    assert first == sorted(first)
    assert store.next_sequence("b") == 1


def test_numbers_go_on_after_a_restart(url):
    Store(url).enrol(*device("a"))
    assert take(url, "a", 2) + take(url, "a", 2) == [1, 2, 3, 4]


def test_moments_come_back_in_utc(url):
    store, sent = Store(url), device("a")
    store.enrol(*sent)
    found, token = store.token("digest of a")
    assert (found.enrolled_at, token.expires_at) == (sent[0].enrolled_at, sent[1].expires_at)
    assert store.token("digest of b") is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("sqlite:////nowhere/at/all/cloud.sqlite", "check that it is there"),
        ("cloud.sqlite", "expected a URL such as"),
        ("dbase://cloud", "expected a URL such as"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named(bad, said):
    with pytest.raises(StoreError, match=said):
        Store(bad)


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("remember the milk " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store(f"sqlite:///{file}")
    assert file.read_text().startswith("remember the milk")


def test_a_password_is_not_shown():
    with pytest.raises(StoreError) as refused:
        Store("postgresql+unknown://persona:secret@db/persona")
    assert "secret" not in str(refused.value)


def test_a_new_process_opens_its_own_connections(url):
    store, opened = Store(url), []
    store.check()

    def note(*_):
        opened.append(True)

    event.listen(Engine, "connect", note)
    try:
        store.check()
        assert not opened
        store.after_fork()
        store.check()
        assert opened
    finally:
        event.remove(Engine, "connect", note)
