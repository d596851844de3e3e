"""Operators publish to a cloud of several processes, at once and bad files, while phones ask.

Either a change is made in full, or it was refused with a code and left nothing; afterwards every
process serves the same, and the phones have noticed nothing.
"""

import hashlib
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from cloud_phone import enrol_at, problem
from cryptography.hazmat.primitives.asymmetric import ec
from databases import rows
from load import Load, Probes, check_each_is_its_own, until
from publishing import Operator, shelf_in
from serving_process import Server, starts_in

from persona.signing import SigningKey, encode_signature
from persona_cloud.identity import new_operator_key
from persona_cloud.store import Store

PUBLISHED = "SELECT * FROM versions ORDER BY bundle"
ROLLED_OUT = "SELECT * FROM rollouts"
HAPPENED = "SELECT * FROM rollout_events ORDER BY id"


@dataclass(frozen=True)
class Site:
    """A cloud of four processes with a shelf of versions, and an operator's key."""

    server: Server
    url: str
    shelf: Path
    model: str
    secret: str

    @contextmanager
    def operator(self):
        with httpx.Client(base_url=self.server.address, timeout=30) as http:
            yield Operator(http, self.model, self.secret)

    def at_once(self, *calls):
        """What comes of two operators' calls at the same moment, each to a process of its own."""
        with ExitStack() as rest:
            first, second = (rest.enter_context(self.operator()) for _ in range(2))
            while process(first.http.get("/healthz")) == process(second.http.get("/healthz")):
                second = rest.enter_context(self.operator())
            barrier = threading.Barrier(2)

            def make(call, operator):
                barrier.wait()
                return call(operator)

            with ThreadPoolExecutor(2) as pool:
                return list(pool.map(make, calls, (first, second)))

    def registered(self):
        """All that publishing and rolling out write."""
        return [rows(self.url, query) for query in (PUBLISHED, ROLLED_OUT, HAPPENED)]

    def files(self):
        """Every file of the shelf."""
        files = (path for path in self.shelf.rglob("*") if path.is_file())
        return {path: hashlib.sha256(path.read_bytes()).digest() for path in files}

    def agreed(self):
        """What all processes say of versions and rollout once they know of it, and are ready."""

        def ask(http):
            known = Operator(http, self.model, self.secret).detail()
            return http.get("/readyz").status_code, known

        agreed = []

        def same():
            agreed[:] = self.server.each_says(ask)
            return agreed == [(200, agreed[0][1])] * 4

        until(same)
        return agreed[0][1]


def process(answer):
    return answer.headers["Process"]


@pytest.fixture
def site(run, bundle, tmp_path, url):
    """Starts a cloud with versions of these names; phones ask it until the block ends."""

    @contextmanager
    def start(*names):
        shelf = shelf_in(tmp_path, run, bundle, names)
        begin = starts_in(tmp_path, run, bundle)
        secret, key = new_operator_key("publishing", ["models"])
        with begin(url, workers=4, versions=str(shelf)) as (server, http):
            Store(url).add_operator_key(key)
            phones = [enrol_at(http, bundle) for _ in range(4)]
            yield Site(server, url, shelf, bundle.manifest.model, secret), phones

    return start


@contextmanager
def unnoticed(site, phones, observations):
    """Phones that ask all the while, and a load balancer: nothing but edits, and always ready."""
    with Load(phones, observations, 0.05) as load, Probes(site.server.address) as probes:
        until(lambda: load.statuses()[200] > 12)
        yield
        before = load.statuses()[200]
        until(lambda: load.statuses()[200] > before + 12)
    assert set(load.statuses()) == {200}
    assert load.lost == []
    assert set(probes.said()) == {200}
    check_each_is_its_own(load.edits())


def cut(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def sign_by_a_stranger(manifest):
    key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    signature = encode_signature(key.sign(manifest.read_bytes()), key.public)
    manifest.with_suffix(".sig").write_bytes(signature)


class Damage(NamedTuple):
    """what: of a publication is damaged. said: what the operator must be told."""

    what: str
    file: str
    do: Callable[[Path], None]
    said: str


DAMAGES = {
    "adapter-cut": Damage("run", "adapter.safetensors", cut, "was changed since training"),
    "adapter-flipped": Damage("run", "adapter.safetensors", flip, "was changed since training"),
    "record-cut": Damage("run", "run.json", cut, "is not JSON"),
    "base-cut": Damage("bundle", "base.safetensors", cut, "base.safetensors must have"),
    "base-flipped": Damage("bundle", "base.safetensors", flip, "base.safetensors must have"),
    "manifest-flipped": Damage("bundle", "manifest.json", flip, "does not match manifest.json"),
    "signature-cut": Damage("bundle", "manifest.sig", cut, "manifest.sig"),
    "signature-of-a-stranger": Damage("bundle", "manifest.json", sign_by_a_stranger, "key"),
}


def test_a_damaged_version_is_refused_by_every_process_and_leaves_nothing(site, observations):
    with site("second") as (here, phones), here.operator() as operator:
        for name, damage in DAMAGES.items():
            sound = "run" if damage.what == "run" else "second"
            shutil.copytree(here.shelf / sound, here.shelf / name)
            damage.do(here.shelf / name / damage.file)
        registered, files = here.registered(), here.files()

        def publish(name):
            with here.operator() as one:
                return name, one.publish(**{DAMAGES[name].what: name})

        with unnoticed(here, phones, observations):
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(publish, [*DAMAGES] * 4))
            for name, answer in answers:
                document = problem(answer, 422, "version.invalid")
                assert DAMAGES[name].said in document["detail"], name
                assert str(here.shelf) not in document["detail"]
            assert len({process(answer) for _, answer in answers}) > 1
            assert here.registered() == registered
            assert here.files() == files
            digest = operator.published("second")
        assert here.registered()[0] != registered[0]
        assert here.files() == files
        assert states(here.agreed())[digest] == "published"


def states(detail):
    return {version["bundle"]: version["state"] for version in detail["versions"]}


def test_a_version_damaged_after_publication_is_given_to_nobody_and_taken_back_in_one_call(
    site, observations
):
    with site("second") as (here, phones), here.operator() as operator:
        digest = operator.published("second")
        sound = (here.shelf / "second" / "base.safetensors").read_bytes()
        flip(here.shelf / "second" / "base.safetensors")
        with Load(phones, observations, 0.02) as load:
            operator.change("start", bundle=digest, percent=100)

            def told(http):
                return http.get("/readyz")

            until(lambda: load.statuses()[200] > 12)
            load.stopped.set()
        until(lambda: all(r.status_code == 503 for r in here.server.each_says(told)))
        for response in here.server.each_says(told):
            problem(response, 503, "server.version")
        assert set(load.statuses()) == {200}
        check_each_is_its_own(load.edits())
        operator.change("roll_back")
        assert states(here.agreed())[digest] == "withdrawn"
        (here.shelf / "second" / "base.safetensors").write_bytes(sound)
        operator.change("start", bundle=digest, percent=100)
        assert states(here.agreed())[digest] == "candidate"


def write_slowly(url, table):
    """Writers of a table take their time on PostgreSQL, so that two of them meet.

    SQLite's come one after the other: a transaction that writes locks the database.
    """
    if url.startswith("postgresql"):
        body = "BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END"
        rows(url, f"CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
        when = f"BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW"
        rows(url, f"CREATE TRIGGER slowly {when} EXECUTE FUNCTION slowly()")


def test_operators_of_two_processes_who_publish_at_once_publish_whole_versions_once(
    site, observations
):
    same, pairs = [f"same-{i}" for i in range(5)], [(f"one-{i}", f"two-{i}") for i in range(5)]
    names = [*same, *(name for pair in pairs for name in pair)]
    with site(*names) as (here, phones):
        write_slowly(here.url, "versions")
        with unnoticed(here, phones, observations):
            raced = []
            for one, two in [*zip(same, same, strict=True), *pairs]:
                answers = here.at_once(methodcaller("publish", one), methodcaller("publish", two))
                statuses = sorted(answer.status_code for answer in answers)
                assert statuses == ([200, 201] if one == two else [201, 201])
                raced.append(len(set(map(process, answers))) == 2)
            assert sum(raced) > len(raced) / 2, "processes, not threads of one"
        agreed = here.agreed()
        assert Counter(states(agreed).values()) == {"published": len(names), "stable": 1}
        events = rows(here.url, "SELECT bundle FROM rollout_events WHERE what = 'published'")
        assert sorted(events) == sorted((bundle,) for bundle in states(agreed))


def one_refused(answers, code):
    """Of two changes at once one was made, the other refused with this code; what was made."""
    made, refused = sorted(answers, key=lambda answer: answer.status_code)
    assert made.status_code == 200, made.text
    problem(refused, 409, code)
    return made.json()


def test_operators_of_two_processes_who_change_the_rollout_at_once_are_told_who_was_faster(
    site, observations
):
    def start(percent, **revision):
        return methodcaller("change", "start", bundle=digest[percent], percent=percent, **revision)

    with site("five", "nine") as (here, phones), here.operator() as operator:
        digest = {5: operator.published("five"), 9: operator.published("nine")}
        write_slowly(here.url, "rollouts")
        expected = dict(states(operator.detail()))
        with unnoticed(here, phones, observations):
            revision = operator.detail()["rollout"]["revision"]
            for _ in range(4):
                decided = {"revision": revision}
                answers = here.at_once(start(5, **decided), start(9, **decided))
                started = one_refused(answers, "rollout.changed")
                assert started["candidate"] == digest[started["percent"]]
                decided = {"revision": started["revision"]}
                ends = (
                    methodcaller("change", kind, **decided) for kind in ("promote", "roll_back")
                )
                ended = one_refused(here.at_once(*ends), "rollout.changed")
                assert ended["candidate"] is None
                expected[started["candidate"]] = "withdrawn"
                if ended["stable"] == started["candidate"]:
                    assert operator.change("roll_back").status_code == 200
                started = one_refused(here.at_once(start(5), start(9)), "rollout.refused")
                assert started["candidate"] == digest[started["percent"]]
                expected[started["candidate"]] = "withdrawn"
                revision = operator.change("roll_back").json()["revision"]
        agreed = here.agreed()
        assert agreed["rollout"]["revision"] == revision
        made = rows(here.url, "SELECT what FROM rollout_events WHERE what <> 'published'")
        assert len(made) == revision, "each change once, the refused ones not at all"
        assert states(agreed) == expected, "whichever was faster"
