"""What goes wrong in production, done to real processes: nothing is lost, and nobody is told wrong.

PERSONA_SLOW=1 runs the long versions, too.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection

import httpx
import pytest
from cloud_phone import enrol_at, problem
from databases import postgresql_at, rows
from load import SECONDS, Load, Probes, check_each_is_its_own, ready, until
from servers import free_port, postgresql, redis
from serving_process import starts_in

from persona.formats.errors import Code, FormatError
from persona_cloud.serving import THREADS


@pytest.fixture
def cloud(run, bundle, tmp_path):
    return starts_in(tmp_path, run, bundle)


def ask_until_answered(phone, observation, key):
    """What phones do: the same request again until there is an answer."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            response = phone.ask(observation, **{"Idempotency-Key": key})
        except httpx.TransportError:
            continue
        if response.status_code == 200:
            return response
        assert response.status_code in (429, 503), response.text
        time.sleep(0.1)
    raise AssertionError("no answer")


def test_a_worker_killed_in_mid_request_costs_a_repetition(cloud, bundle, observations):
    with cloud(delay=0.3) as (server, http), ThreadPoolExecutor(12) as pool:
        phones = list(pool.map(lambda _: enrol_at(http, bundle), range(12)))

        def ask_all():
            return [
                pool.submit(ask_until_answered, phone, observations[i % 8], f"key-{i}")
                for i, phone in enumerate(phones)
            ]

        asked = ask_all()
        time.sleep(0.15)
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        answers = [one.result() for one in asked]
        check_each_is_its_own(list(zip(phones, answers, strict=True)))
        until(lambda: victim not in server.workers() and len(server.workers()) == 2)
        for before, again in zip(answers, ask_all(), strict=True):
            assert again.result().content == before.content
        assert ready(http)


def without_database(cloud, bundle, observations, folder, seconds):
    port = free_port()
    with ExitStack() as rest:
        with postgresql(folder, port) as url:
            server, http = rest.enter_context(cloud(url))
            phones = [enrol_at(http, bundle) for _ in range(4)]
            load = rest.enter_context(Load(phones, observations, 0.02))
            until(lambda: load.statuses()[200] > 8)
        gone = time.monotonic()
        while time.monotonic() < gone + seconds:
            problem(http.get("/readyz"), 503, "server.store")
            assert http.get("/healthz").status_code == 200
            assert http.get("/v1/models").status_code == 200
            time.sleep(0.2)
        with postgresql(folder, port) as url:
            took = until(lambda: ready(http))
            before = load.statuses()[200]
            until(lambda: load.statuses()[200] > before + 8)
            load.stopped.set()
            load.pool.shutdown()
            assert set(load.statuses()) <= {200, 503}
            assert load.statuses()[503] > 0
            assert load.lost == []
            check_each_is_its_own(load.edits())
            told = {(p.device, int(r.headers["Persona-Sequence"])) for p, r in load.edits()}
            assert told <= set(rows(url, "SELECT device, sequence FROM issued_edits"))
            print(
                f"database gone for {seconds} s: {dict(load.statuses())}, ready after {took:.1f} s"
            )
            server.process.terminate()
            server.process.wait(SECONDS)


def test_the_database_may_go_and_come_back(cloud, bundle, observations, postgresql_folder):
    without_database(cloud, bundle, observations, postgresql_folder, 2)


@pytest.mark.slow
def test_the_database_may_be_gone_for_ten_seconds(cloud, bundle, observations, postgresql_folder):
    without_database(cloud, bundle, observations, postgresql_folder, 10)


def test_without_redis_edits_go_on_and_are_counted(cloud, bundle, observations, tmp_path):
    with (
        redis(tmp_path) as (url, server),
        cloud(quotas=url, edits_per_device="20/minute") as (_, http),
    ):
        phone = enrol_at(http, bundle)
        assert phone.ask(observations[0]).status_code == 200
        server.kill()
        server.wait()
        answers = Counter(phone.ask(observations[0]).status_code for _ in range(60))
        assert ready(http), "it can answer; it counts by itself"
    assert set(answers) == {200, 429}
    assert 19 <= answers[200] <= 40, "two processes, each with a count of its own"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("NOT TESTED: a full disk needs root and mount, for a tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(file):
    """Write until there is no space left."""
    with suppress(OSError), file.open("wb", buffering=0) as written:
        while True:
            written.write(bytes(4096))


def test_a_full_disk_refuses_and_leaves_nothing_half_written(
    cloud, bundle, observations, small_disk
):
    url = f"sqlite:///{small_disk / 'cloud.sqlite'}"
    with cloud(url) as (_, http):
        phone = enrol_at(http, bundle)
        first = phone.ask(observations[0], **{"Idempotency-Key": "first"})
        filler = small_disk / "filler"
        fill(filler)
        until(lambda: phone.ask(observations[1]).status_code == 503)
        problem(phone.ask(observations[1]), 503, "server.store")
        until(lambda: not ready(http), 5)
        problem(http.get("/readyz"), 503, "server.store")
        assert http.get("/healthz").status_code == 200
        filler.unlink()
        until(lambda: ready(http), 5)
        again = phone.ask(observations[0], **{"Idempotency-Key": "first"})
        assert again.content == first.content
        sequence = phone.verify(phone.ask(observations[1]), 1).info.sequence
        kept = rows(url, "SELECT sequence FROM issued_edits ORDER BY id")
        assert kept[0] == (1,)
        assert kept[-1] == (sequence,)
        assert rows(url, "PRAGMA integrity_check") == [("ok",)]


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    long ahead = 0;
    FILE *file = clock == CLOCK_REALTIME ? fopen(getenv("CLOCK_FILE"), "r") : NULL;
    if (file != NULL) {
        if (fscanf(file, "%ld", &ahead) == 1) now->tv_sec += ahead;
        fclose(file);
    }
    return result;
}
"""
"""A library that puts the clock of a process ahead by as many seconds as a file says."""


@pytest.fixture
def clock(tmp_path):
    """Sets the clock of processes that are started with this environment, in seconds ahead."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TESTED with another clock: needs a C compiler")
    source, library, file = (tmp_path / name for name in ("clock.c", "clock.so", "clock"))
    source.write_text(CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)

    def set_to(seconds):
        file.with_suffix(".new").write_text(f"{seconds}\n")
        file.with_suffix(".new").replace(file)

    set_to(0)
    return set_to, {"LD_PRELOAD": str(library), "CLOCK_FILE": str(file)}


def test_a_clock_that_jumps_by_an_hour_gives_no_edit_that_a_phone_would_take_for_good(
    cloud, bundle, observations, clock, postgresql_server
):
    set_to, environment = clock
    url = postgresql_at(postgresql_server, "clock")()
    with cloud(url, environment=environment) as (_, http):
        phone = enrol_at(http, bundle)
        assert phone.verify(phone.ask(observations[0])).info.sequence == 1
        assert ready(http)
        set_to(3600)
        problem(http.get("/readyz"), 503, "server.clock")
        ahead = phone.ask(observations[0])
        with pytest.raises(FormatError) as refused:
            phone.verify(ahead, 1)
        assert refused.value.code == Code.FROM_FUTURE
        set_to(-3600)
        problem(http.get("/readyz"), 503, "server.clock")
        behind = phone.verify(phone.ask(observations[0]), 1)
        assert behind.info.sequence == 3
        set_to(0)
        until(lambda: ready(http), 5)
        good = phone.verify(phone.ask(observations[0]), 3).info
        assert good.sequence == 4
        assert abs(good.issued_at - datetime.now(UTC)) < timedelta(seconds=30)


def overload(cloud, bundle, observations, seconds, clients):
    with cloud(workers=1, limits={"max_waiting": 4, "max_batch": 4}) as (server, http):
        phones = [enrol_at(http, bundle) for _ in range(clients)]
        for phone in phones[:4]:
            phone.ask(observations[0])
        before = server.memory()
        with Load(phones, observations) as load, Probes(server.address) as probes:
            end, alive = time.monotonic() + seconds, []
            while time.monotonic() < end:
                alive.append(http.get("/healthz").status_code)
                time.sleep(0.1)
            during = server.memory()
        stopped = time.monotonic()
        until(lambda: phones[0].ask(observations[0]).status_code == 200 and ready(http), 5)
        recovered = time.monotonic() - stopped
        statuses = load.statuses()
        assert set(statuses) == {200, 503}, statuses
        assert statuses[503] > statuses[200] / 4
        assert set(alive) == {200}
        assert set(probes.said()) == {200}, "it can do its work: there is too much of it"
        assert load.lost == []
        refused = [r for _, r, _, _ in load.answers if r.status_code == 503]
        assert all(r.headers["Retry-After"] == "1" for r in refused)
        check_each_is_its_own(load.edits())
        assert during - before < 150 * 2**20
        print(
            f"overload for {seconds} s with {clients} clients: {dict(statuses)}, "
            f"{(during - before) / 2**20:.0f} MiB more, as before after {recovered:.2f} s, "
            f"/readyz after {probes.slowest():.2f} s at most"
        )


def test_too_many_at_once_are_refused_and_then_all_is_as_before(cloud, bundle, observations):
    overload(cloud, bundle, observations, 4, 100)


@pytest.mark.slow
def test_a_minute_of_overload(cloud, bundle, observations):
    overload(cloud, bundle, observations, 60, 100)


def test_while_every_thread_is_busy_a_probe_does_not_wait(cloud):
    with cloud(workers=1, delay=4.0) as (server, http), ThreadPoolExecutor(THREADS) as pool:
        asked = [pool.submit(http.post, "/v1/devices") for _ in range(THREADS)]
        time.sleep(1)
        with Probes(server.address) as probes:
            until(lambda: probes.seen)
        assert set(probes.said()) == {200}
        assert probes.slowest() < 2
        assert {one.result().status_code for one in asked} == {201}


def test_probes_whose_bodies_never_come_hold_up_no_other_probe(cloud):
    """gunicorn waits five seconds for what was announced and is not there."""
    with cloud(workers=1) as (server, http), ExitStack() as stack:
        host, port = server.address.removeprefix("http://").split(":")
        for _ in range(8):
            stalled = stack.enter_context(socket.create_connection((host, int(port))))
            stalled.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 1" + b"0" * 15)
            stalled.sendall(b"\r\n\r\n")
        time.sleep(0.5)
        assert http.get("/readyz", timeout=3).status_code == 200


def slow_clients(cloud, bundle, observations, request_seconds, watched):
    """200 connections that send a byte now and then; others must not notice."""
    with ExitStack() as rest:
        server, http = rest.enter_context(cloud(workers=1, request_seconds=request_seconds))
        phone = enrol_at(http, bundle)
        host, port = server.address.removeprefix("http://").split(":")
        slow = []
        for number in range(200):
            connection = rest.enter_context(socket.create_connection((host, int(port))))
            beginning = b"POST /v1/devices HTTP/1.1\r\nHost: a\r\n"
            if number % 2:
                beginning += b"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
            connection.sendall(beginning)
            slow.append(connection)
        begun, took, alive = time.monotonic(), [], set(slow)
        while alive and time.monotonic() < begun + watched:
            for connection in list(alive):
                try:
                    connection.sendall(b"x")
                except OSError:
                    alive.discard(connection)
            start = time.monotonic()
            assert phone.verify(phone.ask(observations[0])).info.sequence > 0
            assert ready(http)
            took.append(time.monotonic() - start)
            time.sleep(0.1)
        assert not alive, "each was refused"
        answers = Counter(_status(connection) for connection in slow)
        middle, most = sorted(took)[len(took) // 2] * 1e3, max(took) * 1e3
        print(
            f"200 slow clients: refused after {time.monotonic() - begun:.1f} s {dict(answers)}, "
            f"others took {middle:.0f} ms, at most {most:.0f}"
        )
        assert set(answers) <= {"408", "gone"}
        assert answers["408"] > 0
        assert max(took) < request_seconds


def _status(connection):
    try:
        said = connection.recv(4096)
    except OSError:
        return "gone"
    return said[9:12].decode() or "gone"


def test_slow_clients_hold_up_nobody(cloud, bundle, observations):
    slow_clients(cloud, bundle, observations, 3.0, 20)


@pytest.mark.slow
def test_slow_clients_hold_up_nobody_for_as_long_as_requests_may_take(cloud, bundle, observations):
    slow_clients(cloud, bundle, observations, 10.0, 40)


def test_a_connection_that_idled_is_served_and_delays_no_stop(cloud, bundle, observations):
    """A load balancer keeps connections for a minute and more, and sends without asking."""
    with cloud() as (server, http):
        phone = enrol_at(http, bundle)
        kept = [connected(server) for _ in range(2)]
        for connection in kept:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        time.sleep(6)
        idled, idle = kept
        before = idled.sock.getsockname()
        idled.request("GET", "/readyz")
        answer = idled.getresponse()
        assert (answer.status, idled.sock.getsockname()) == (200, before)
        answer.read()
        assert phone.ask(observations[0]).status_code == 200
        begun = time.monotonic()
        server.process.terminate()
        assert server.process.wait(SECONDS) == 0
        assert time.monotonic() - begun < 10
        assert idle.sock.recv(1) == b"", "closed, not reset"


def test_idle_connections_keep_nobody_out(cloud):
    with cloud(workers=1, connections=THREADS + 16) as (server, http), ExitStack() as rest:
        idle = [connected(server) for _ in range(16)]
        for connection in idle:
            rest.callback(connection.close)
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("Connection")) == (200, "keep-alive")
            answer.read()
        for _ in range(THREADS):
            rest.callback(half_sent(server).close)
        assert http.get("/readyz", timeout=3).status_code == 200
        idle[-1].request("GET", "/healthz")
        assert idle[-1].getresponse().status == 200, "those that idle longest go first"
        assert idle[0].sock.recv(1) == b""


def half_sent(server):
    """A connection with a request that goes on never."""
    connection = connected(server)
    connection.connect()
    connection.sock.sendall(b"GET /")
    return connection


def test_connections_that_come_to_idle_in_a_full_house_make_room(cloud):
    with cloud(workers=1, connections=THREADS + 8) as (server, http), ExitStack() as rest:
        connections = [half_sent(server) for _ in range(THREADS + 8)]
        for connection in connections:
            rest.callback(connection.close)
        for connection in connections[:4]:
            connection.sock.sendall(b"healthz HTTP/1.1\r\nHost: here\r\n\r\n")
            assert connection.sock.recv(12) == b"HTTP/1.1 200"
        assert http.get("/readyz", timeout=3).status_code == 200


def test_a_request_on_a_connection_that_has_to_make_room_ends_no_process(cloud):
    """It comes in the same moment as who needs the place: the process reads of both at once."""
    with cloud(workers=1, connections=THREADS + 4) as (server, http), ExitStack() as rest:
        http.close()  # Its connection would idle longest.
        idle = [connected(server) for _ in range(4)]
        for connection in idle:
            rest.callback(connection.close)
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        for _ in range(THREADS - 1):
            rest.callback(half_sent(server).close)
        (worker,) = server.workers()
        time.sleep(0.5)  # All are let in.
        os.kill(worker, signal.SIGSTOP)
        new = connected(server)
        rest.callback(new.close)
        for connection in (new, idle[0]):
            connection.request("GET", "/healthz")
        time.sleep(0.2)
        os.kill(worker, signal.SIGCONT)
        assert new.getresponse().status == 200
        assert idle[0].getresponse().status == 200
        assert server.workers() == [worker]


def test_the_largest_unfinished_request_may_go_on_in_the_moment_that_it_is_refused(cloud):
    """More of it is read in the same round: the process has to know that it is gone."""
    announced = b"POST /v1/devices HTTP/1.1\r\nHost: here\r\nContent-Length: 900000\r\n\r\n"
    with cloud(workers=1, collected=200_000) as (server, http), ExitStack() as rest:
        large, small = (connected(server) for _ in range(2))
        for connection, begun in ((large, 150_000), (small, 0)):
            rest.callback(connection.close)
            connection.connect()
            connection.sock.sendall(announced + b"a" * begun)
        time.sleep(0.5)  # Both are read.
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        for connection, more in ((small, 60_000), (large, 100)):
            connection.sock.sendall(b"a" * more)
            time.sleep(0.2)
        os.kill(worker, signal.SIGCONT)
        assert http.get("/readyz", timeout=3).status_code == 200
        assert server.workers() == [worker]


def connected(server):
    host, port = server.address.removeprefix("http://").split(":")
    return HTTPConnection(host, int(port), timeout=SECONDS)


def test_sigterm_under_load_answers_all_that_was_accepted(cloud, bundle, observations, tmp_path):
    url = f"sqlite:///{tmp_path / 'cloud.sqlite'}"
    with cloud(url) as (server, http):
        phones = [enrol_at(http, bundle) for _ in range(16)]
        with Load(phones, observations) as load:
            until(lambda: load.statuses()[200] > 60)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(SECONDS) == 0
        assert set(load.statuses()) == {200}
        told = [(p.device, int(r.headers["Persona-Sequence"])) for p, r in load.edits()]
        accepted = rows(url, "SELECT device, sequence FROM issued_edits")
        assert sorted(told) == sorted(accepted), "what was made was answered"
        assert load.lost, "the phones went on asking after the server was gone"


def test_from_sigterm_on_a_server_takes_nothing_new_and_says_so(cloud, bundle, observations):
    with cloud(delay=2.0) as (server, http), ThreadPoolExecutor(6) as pool:
        phones = list(pool.map(lambda _: enrol_at(http, bundle), range(6)))
        with Probes(server.address) as probes, httpx.Client(base_url=server.address) as kept:
            asked = [pool.submit(phone.ask, observations[0]) for phone in phones]
            time.sleep(0.5)
            said = [kept.get("/readyz")]
            assert said[0].status_code == 200
            server.process.send_signal(signal.SIGTERM)

            def stopping():
                said.append(kept.get("/readyz"))
                return said[-1].status_code == 503

            until(stopping, 1)
            problem(said[-1], 503, "server.stopping")
            check_each_is_its_own(list(zip(phones, [one.result() for one in asked], strict=True)))
            answered = time.monotonic()
            assert server.process.wait(SECONDS) == 0
        first = next(probe for probe in probes.seen if probe.said == "ConnectionRefusedError")
        assert first.ended < answered, "while it was still answering"
        assert set(probes.said(first.begun)) <= {"ConnectionRefusedError"}
        assert set(probes.said()) <= {200, 503, "ConnectionRefusedError"}, "none let in and dropped"
