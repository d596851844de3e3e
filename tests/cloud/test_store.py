"""Sequence numbers are given out once, whoever asks at the same time."""

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import pytest
from databases import rows
from sqlalchemy import Engine, event, func, select
from wishes import wish

from persona.issuing import Issuer
from persona_cloud.database import StoreError
from persona_cloud.store import Idempotency, NoDeviceError, OtherRequestError, Store, Wish
from persona_cloud.tables import Device, DeviceToken


def device(name):
    now = datetime.now(UTC)
    return Device(name, "other", now), DeviceToken(f"digest of {name}", name, now, now)


@pytest.fixture(scope="module")
def issuer(run, bundle):
    return Issuer(run, bundle)


def numbers(edits):
    return [edit.info.sequence for edit in edits]


def take(url, name, count):
    store = Store(url)
    return [number for _ in range(count) for number in numbers(store.issue([wish(name)]))]


def take_together(url, names, seed, calls):
    """Numbers of several devices at once, asked for in any order."""
    store, chance, given = Store(url), random.Random(seed), []
    for _ in range(calls):
        some = chance.sample(names, len(names)) + chance.sample(names, 2)
        given += [(e.info.device, e.info.sequence) for e in store.issue([wish(n) for n in some])]
    return given


def test_threads_never_get_the_same_number(url):
    store = Store(url)
    store.enrol(*device("a"))
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda _: store.issue([wish("a")]), range(100)))
    assert sorted(numbers(edit for edits in given for edit in edits)) == list(range(1, 101))


def test_processes_never_get_the_same_number_nor_wait_for_each_other_forever(url):
    store, names = Store(url), [f"device {number}" for number in range(6)]
    for name in names:
        store.enrol(*device(name))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(take_together, url, names, seed, 30) for seed in range(2)]
        first, second = (part.result() for part in parts)
    for name in names:
        mine = [[n for device, n in part if device == name] for part in (first, second)]
        assert sorted(mine[0] + mine[1]) == list(range(1, len(mine[0] + mine[1]) + 1))
        assert all(numbers == sorted(numbers) for numbers in mine)


def test_what_is_read_together_is_of_one_moment(url):
    store, other = Store(url), Store(url)
    store.enrol(*device("a"))
    count = select(func.count()).select_from(Device)
    with store.reading() as session:
        before = session.scalar(count)
        other.enrol(*device("b"))
        assert (before, session.scalar(count)) == (1, 1)
    with store.reading() as session:
        assert session.scalar(count) == 2


def test_numbers_go_on_after_a_restart(url):
    Store(url).enrol(*device("a"))
    assert take(url, "a", 2) + take(url, "a", 2) == [1, 2, 3, 4]


def test_what_is_wrong_with_one_wish_holds_up_no_other(url, issuer, observations):
    store, now = Store(url), datetime.now(UTC)
    for name in ("good", "shut out", "again"):
        store.enrol(*device(name))
    store.revoke_device("shut out", now)
    (computed,) = issuer.compute(observations[:1])

    def again(key, fingerprint):
        return Wish(
            "again",
            partial(issuer.sign, computed, issuer.key(), "again"),
            Idempotency(key, fingerprint),
        )

    (before,) = store.issue([again("before", "this")])
    wishes = [
        wish("good"),
        wish("nobody"),
        wish("shut out"),
        again("before", "this"),
        again("before", "that"),
        again("now", "this"),
        again("now", "this"),
        again("now", "that"),
        wish("good"),
    ]
    good, nobody, shut_out, same, other, now, now_same, now_other, more = store.issue(wishes)
    assert numbers((good, more)) == [1, 2]
    assert [type(error) for error in (nobody, shut_out)] == [NoDeviceError] * 2
    assert [type(error) for error in (other, now_other)] == [OtherRequestError] * 2
    assert same == before
    assert now_same == now != before
    assert store.kept_answer("again", Idempotency("now", "this"), datetime.now(UTC)) == now
    written = rows(url, "SELECT device, sequence FROM issued_edits")
    assert sorted(written) == [("again", 1), ("again", 2), ("good", 1), ("good", 2)]


def test_where_one_edit_cannot_be_signed_nothing_is_written(url):
    store = Store(url)
    for name in "ab":
        store.enrol(*device(name))

    def fail(_):
        raise LookupError("no key")

    with pytest.raises(LookupError, match="no key"):
        store.issue([wish("a"), Wish("b", fail)])
    assert rows(url, "SELECT * FROM issued_edits") == []
    assert numbers(store.issue([wish("a"), wish("b")])) == [1, 1]


def test_moments_come_back_in_utc(url):
    store, sent = Store(url), device("a")
    store.enrol(*sent)
    token = store.token("digest of a")
    assert (token.issued_at, token.expires_at) == (sent[1].issued_at, sent[1].expires_at)
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
