"""Versions roll out to the share of devices asked for, stop by themselves, and roll back."""

import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cloud_phone import enrol_at, problem
from databases import rows
from publishing import Operator, republished, shelf_in
from sqlalchemy import Engine, event

from persona.bundles import open_bundle
from persona_cloud import create_app
from persona_cloud.identity import new_operator_key
from persona_cloud.rollout import fails_too_often, place
from persona_cloud.rollouts import Rollouts
from persona_cloud.service import service_of
from persona_cloud.serving import running
from persona_cloud.store import Store


@pytest.fixture
def shelf(run, bundle, tmp_path):
    return shelf_in(tmp_path, run, bundle, ("second", "third"))


@pytest.fixture
def cloud(config, bundle, url, shelf):
    """A cloud with versions to publish, and its operator."""

    @contextmanager
    def start(**changes):
        app = create_app(replace(config, database_url=url, versions=shelf, **changes))
        secret, key = new_operator_key("rollout", ["metrics", "models"])
        service_of(app).store.add_operator_key(key)
        with running(app) as address, httpx.Client(base_url=address, timeout=60) as http:
            yield Operator(http, bundle.manifest.model, secret)

    return start


def report(phone, version, outcome):
    place = f"/v1/models/{phone.bundle.manifest.model}/outcomes"
    asked = {"bundle": version, "outcome": outcome}
    return phone.http.post(place, json=asked, headers=phone.authorization)


def phones_of(operator, bundle, version, count):
    """So many newly enrolled devices that shall have a version."""
    found = []
    while len(found) < count:
        said = operator.http.post("/v1/devices").json()
        if said["bundle"] == version:
            found.append(replace(enrol_at(operator.http, bundle), **pick(said)))
    return found


def pick(said):
    return {"device": said["device"], "token": said["token"]}


def test_a_device_stays_chosen_as_the_percentage_grows_and_another_candidate_chooses_others():
    devices = [f"device {i}" for i in range(20_000)]
    shares = (0.01, 0.05, 0.2, 1.0)
    chosen = [{d for d in devices if place(d, "one") < share} for share in shares]
    for smaller, larger, share in zip(chosen, chosen[1:], shares[1:], strict=False):
        assert smaller < larger
        assert len(larger) == pytest.approx(share * len(devices), rel=0.06)
    other = {d for d in devices if place(d, "other") < 0.05}
    assert len(other & chosen[1]) == pytest.approx(0.05 * 0.05 * len(devices), abs=25)


@pytest.mark.parametrize(
    ("failed", "reported", "stops"),
    [(19, 19, False), (20, 20, True), (0, 10_000, False), (2, 100, False), (3, 100, True)],
)
def test_a_candidate_stops_above_its_threshold_once_enough_reported(failed, reported, stops):
    assert fails_too_often(failed, reported, 0.02, 20) is stops


def test_publishing_alone_changes_nothing_for_devices(cloud, bundle):
    with cloud() as operator:
        digest = operator.published()
        assert operator.states() == {bundle.digest: "stable", digest: "published"}
        assert operator.http.post("/v1/devices").json()["bundle"] == bundle.digest
        assert operator.publish().status_code == 200, "the same again is no other version"
        assert len(operator.states()) == 2


def test_a_share_of_devices_gets_the_candidate_and_the_others_do_not(cloud, bundle):
    with cloud() as operator:
        digest = operator.published()
        assert operator.change("start", bundle=digest, percent=30).json()["percent"] == 30
        given = Counter(operator.http.post("/v1/devices").json()["bundle"] for _ in range(200))
        assert set(given) == {bundle.digest, digest}
        assert 35 <= given[digest] <= 85
        assert operator.states() == {bundle.digest: "stable", digest: "candidate"}


def test_promotion_gives_it_to_all_and_one_call_takes_it_back(cloud, bundle, observations, shelf):
    with cloud() as operator:
        digest = operator.published()
        before = enrol_at(operator.http, bundle)
        operator.change("start", bundle=digest, percent=1)
        operator.change("promote")
        assert operator.states() == {bundle.digest: "retired", digest: "stable"}
        still = before.ask(observations[0])
        assert before.verify(still).info.bundle == bundle.digest
        assert still.headers["Persona-Bundle"] == digest
        new = replace(before, bundle=open_bundle(shelf / "second"))
        assert new.verify(new.ask(observations[0]), 1).info.bundle == digest
        operator.change("roll_back")
        assert operator.states() == {bundle.digest: "stable", digest: "withdrawn"}
        sent_back = problem(new.ask(observations[0]), 409, "observation.other_base")
        assert sent_back["bundle"] == bundle.digest
        manifest = operator.http.get(f"{sent_back['bundle_url']}manifest.json")
        assert manifest.content == (bundle.path / "manifest.json").read_bytes()
        problem(operator.change("roll_back"), 409, "rollout.refused")


def test_an_older_version_is_served_for_as_long_as_the_host_allows(cloud, bundle, observations):
    with cloud(retention=timedelta(0)) as operator:
        digest = operator.published()
        phone = enrol_at(operator.http, bundle)
        operator.change("start", bundle=digest, percent=0)
        assert phone.verify(phone.ask(observations[0])).info.bundle == bundle.digest
        operator.change("promote")
        told = problem(phone.ask(observations[0]), 409, "observation.other_base")
        assert told["bundle"] == digest
        assert told["bundle_url"].endswith(f"/versions/{digest}/bundle/")


def test_failures_on_devices_stop_a_candidate_and_send_them_back(cloud, bundle, url):
    with cloud() as operator:
        digest = operator.published()
        operator.change("start", bundle=digest, percent=50, max_failure_rate=0.2, min_reports=8)
        phones = phones_of(operator, bundle, digest, 8)
        for phone in phones[:6]:
            assert report(phone, digest, "ok").status_code == 204
        for _ in range(3):
            report(phones[6], digest, "probe.mismatch")
        assert operator.states()[digest] == "candidate", "one device counts once"
        metrics = operator.http.get("/metrics", headers=operator.headers).text
        assert 'persona_outcomes_total{outcome="probe.mismatch"} 3.0' in metrics
        report(phones[7], digest, "bundle.golden_mismatch")
        detail = operator.detail()
        assert detail["rollout"]["candidate"] is None
        assert "2 of 8 devices" in detail["rollout"]["stopped_because"]
        assert operator.states() == {bundle.digest: "stable", digest: "withdrawn"}
        assert operator.http.post("/v1/devices").json()["bundle"] == bundle.digest
        events = rows(url, "SELECT what FROM rollout_events ORDER BY id")
        assert [what for (what,) in events] == [
            "published",
            "started",
            "published",
            "rollout started",
            "stopped",
        ]
        operator.change("start", bundle=digest, percent=50, min_reports=8)
        assert operator.detail()["rollout"]["stopped_because"] is None
        assert [v["reported"] for v in operator.detail()["versions"]] == [0, 0]


def test_a_device_on_which_the_candidate_failed_keeps_the_stable_version(
    cloud, bundle, observations
):
    with cloud() as operator:
        digest = operator.published()
        operator.change("start", bundle=digest, percent=100)
        (phone,) = phones_of(operator, bundle, digest, 1)
        assert phone.ask(observations[0]).headers["Persona-Bundle"] == digest
        report(phone, digest, "bundle.golden_mismatch")
        report(phone, digest, "ok")
        assert phone.ask(observations[0]).headers["Persona-Bundle"] == bundle.digest


def test_a_decision_on_an_old_revision_is_refused(cloud):
    with cloud() as operator:
        digest = operator.published()
        revision = operator.detail()["rollout"]["revision"]
        operator.change("start", bundle=digest, percent=5, revision=revision)
        late = operator.change("resize", percent=90, revision=revision)
        problem(late, 409, "rollout.changed")
        assert operator.detail()["rollout"]["percent"] == 5


def test_what_was_read_before_a_process_changed_something_is_not_what_it_knows_afterwards(
    config, url, shelf, monkeypatch
):
    versions = service_of(create_app(replace(config, database_url=url, versions=shelf))).versions
    read, begun, mine = versions.rollouts.line, threading.Semaphore(0), threading.current_thread()
    gates = [threading.Event(), threading.Event()]
    waiting = iter(gates)

    def slowly():
        found = read()
        if threading.current_thread() is not mine:
            begun.release()
            assert next(waiting).wait(60)
        return found

    monkeypatch.setattr(versions.rollouts, "line", slowly)
    versions.look_again()
    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(versions.line)
        assert begun.acquire(timeout=60)
        digest, _ = versions.publish(shelf / "run", shelf / "second", "operator")
        after = pool.submit(versions.line)
        assert begun.acquire(timeout=60)
        gates[0].set()
        before.result(60)
        known = versions.line()
        gates[1].set()
        assert digest in known.versions
        assert digest in after.result(60).versions


def test_of_two_operators_at_once_one_rolls_out(cloud):
    with cloud() as operator:
        second, third = operator.published("second"), operator.published("third")
        revision = operator.detail()["rollout"]["revision"]
        barrier = threading.Barrier(2)

        def start(digest):
            barrier.wait()
            return operator.change("start", bundle=digest, percent=10, revision=revision)

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(start, (second, third)))
        assert sorted(a.status_code for a in answers) == [200, 409]
        won = next(a.json() for a in answers if a.status_code == 200)
        told = operator.detail()["rollout"]
        assert told == won
        assert told["revision"] == revision + 1


def test_a_process_that_looks_during_a_change_sees_what_was_before_and_no_mixture(
    cloud, bundle, run, url
):
    with cloud() as operator:
        operator.change("start", bundle=operator.published(), percent=1)
        operator.change("promote")
        changes = [lambda: operator.change("roll_back")]

        def change(_connection, _cursor, statement, *_):
            if "FROM rollouts" in statement and changes:
                assert changes.pop()().status_code == 200

        event.listen(Engine, "after_cursor_execute", change)
        line = Rollouts(Store(url), run.record.config.name).line()
        event.remove(Engine, "after_cursor_execute", change)
        assert not changes, "it was rolled back between the first query and the second"
        assert line.serves(bundle.digest, datetime.now(UTC), timedelta(days=1))
        assert line.stable != bundle.digest
        assert operator.states()[bundle.digest] == "stable"


def test_two_operators_that_publish_the_same_at_once_publish_it_once(cloud, url):
    with cloud() as operator:
        barrier = threading.Barrier(4)

        def publish(_):
            barrier.wait()
            return operator.publish().status_code

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(publish, range(4))) == [200, 200, 200, 201]
        published = rows(url, "SELECT count(*) FROM rollout_events WHERE what = 'published'")
        assert published == [(2,)], "with the one that the server was started with"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("resize", {"percent": 5}), ("promote", {}), ("roll_back", {})],
)
def test_without_a_candidate_there_is_nothing_to_change(cloud, kind, fields):
    with cloud() as operator:
        problem(operator.change(kind, **fields), 409, "rollout.refused")


def test_what_is_no_change_is_refused(cloud, bundle):
    with cloud() as operator:
        digest = operator.published()
        refused = {"start": {"bundle": "0" * 64, "percent": 5}}
        problem(operator.change("start", **refused["start"]), 404, "version.unknown")
        for kind, fields in (
            ("start", {"bundle": digest}),
            ("start", {"bundle": digest, "percent": 101}),
            ("start", {"bundle": digest, "percent": 5, "min_reports": 0}),
            ("resize", {"percent": "5"}),
            ("promote", {"bundle": digest}),
            ("delete", {}),
        ):
            problem(operator.change(kind, **fields), 422, "request.invalid")
        problem(operator.change("start", bundle=bundle.digest, percent=5), 409, "rollout.refused")


def corrupt_adapter(shelf):
    file = shelf / "run" / "adapter.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def corrupt_bundle(shelf):
    file = shelf / "second" / "golden.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def strange_signature(shelf):
    file = shelf / "second" / "manifest.json"
    file.write_bytes(file.read_bytes() + b" ")


def cut_record(shelf):
    file = shelf / "run" / "run.json"
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize(
    ("corrupt", "said"),
    [
        (corrupt_adapter, "was changed since training"),
        (corrupt_bundle, "golden.safetensors must have"),
        (strange_signature, "does not match manifest.json"),
        (cut_record, "is not JSON"),
    ],
)
def test_a_corrupt_version_is_refused_and_nothing_is_registered(cloud, shelf, corrupt, said):
    corrupt(shelf)
    with cloud() as operator:
        before = operator.detail()
        document = problem(operator.publish(), 422, "version.invalid")
        assert said in document["detail"]
        assert str(shelf) not in document["detail"]
        assert operator.detail() == before
        assert operator.http.get("/readyz").status_code == 200


def test_a_version_that_apps_could_not_run_is_refused(cloud, run, bundle, shelf):
    republished(run, bundle, shelf / "other", task="ranking")
    with cloud() as operator:
        document = problem(operator.publish("other"), 422, "version.invalid")
        assert "other task than the stable version" in document["detail"]


@pytest.mark.parametrize("folder", ["nothing", "second/manifest.json"])
def test_only_folders_below_the_hosts_can_be_published(cloud, folder, shelf, tmp_path):
    with cloud() as operator:
        problem(operator.publish(folder), 404, "version.folder")
        (shelf / "link").symlink_to(tmp_path)
        problem(operator.publish("link"), 404, "version.folder")
        for name in ("../second", "/etc", "", "second/../second", "a\0b"):
            problem(operator.publish(name), 422, "request.invalid")


def test_a_server_without_the_folders_of_a_version_says_so_and_is_not_ready(
    cloud, bundle, shelf, observations
):
    with cloud() as operator:
        digest = operator.published()
        operator.change("start", bundle=digest, percent=100)
    shutil.rmtree(shelf / "second")
    with cloud() as operator:
        problem(operator.http.get("/readyz"), 503, "server.version")
        phone = enrol_at(operator.http, bundle)
        assert phone.verify(phone.ask(observations[0])).info.bundle == bundle.digest
        operator.change("roll_back")
        assert operator.http.get("/readyz").status_code == 200


def test_a_server_that_is_started_again_goes_on_with_the_rollout(cloud):
    with cloud() as operator:
        digest = operator.published()
        operator.change("start", bundle=digest, percent=25)
        before = operator.detail()
    with cloud() as operator:
        assert operator.detail() == before


def test_a_server_that_is_started_with_another_bundle_serves_that(cloud, shelf, bundle):
    with cloud():
        pass
    with cloud(bundle=shelf / "third") as operator:
        assert operator.detail()["bundle"] == open_bundle(shelf / "third").digest
        assert operator.states()[bundle.digest] == "retired"
