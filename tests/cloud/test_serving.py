"""gunicorn serves it from several processes, says when it is ready, and stops without cutting."""

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from cloud_phone import enrol_at, problem
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser
from tiny_run import make_bundle

from persona.issuing import KeyNotInBundleError, OtherModelError
from persona.runs import RunError, load_run
from persona.signing import SigningKey
from persona_cloud import create_app
from persona_cloud.identity import new_operator_key
from persona_cloud.serving import ListenError, PortInUseError, serve
from persona_cloud.store import Store
from persona_cloud.worker import Worker

SERVER = """
import sys, time
from pathlib import Path
from persona_cloud import CloudConfig, create_app
from persona_cloud.config import Quotas
from persona_cloud.serving import serve

run, bundle, database, delay, workers = sys.argv[1:]
quotas = Quotas(None, None, None)
app = create_app(CloudConfig(Path(run), Path(bundle), database, quotas=quotas))
app.before_request(lambda: time.sleep(float(delay)))
serve(app, port=0, workers=int(workers), ready=print)
print("served")
"""


@pytest.fixture
def server(run, bundle, tmp_path):
    """A server in a process of its own; gives the process and its address.

    Its log is in `log`, its metrics are shared by its workers.
    """

    @contextmanager
    def start(url, delay=0.0, workers=2):
        arguments = (run.path, bundle.path, url, str(delay), str(workers))
        command = [sys.executable, "-c", SERVER, *arguments]
        metrics = tmp_path / "metrics"
        metrics.mkdir()
        with (
            (tmp_path / "log").open("w") as log,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)},
            ) as process,
        ):
            try:
                yield process, process.stdout.readline().strip()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    return start


def test_four_workers_serve_one_state_and_a_signal_stops_them(
    server, bundle, observations, url, tmp_path
):
    secret, key = new_operator_key("prometheus", ["metrics"])
    Store(url).add_operator_key(key)
    with server(url, workers=4) as (process, address):
        with httpx.Client(
            base_url=address, timeout=30, limits=httpx.Limits(max_connections=64)
        ) as http:
            phone = enrol_at(http, bundle)
            with ThreadPoolExecutor(64) as pool:
                answers = list(pool.map(phone.ask, observations * 24))
            one, two = (phone.verify(phone.ask(observations[0])).info.sequence for _ in range(2))
            too_large = http.post("/v1/devices", content=iter([b" " * 100_000]))
            scrape = http.get("/metrics", headers={"Authorization": f"Bearer {secret}"})
        sequences = [phone.verify(answer).info.sequence for answer in answers]
        assert sorted(sequences) == list(range(1, 193))
        assert (one, two) == (193, 194)
        assert too_large.status_code == 413
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stdout.read() == "served\n"
    counted = dict(line.rsplit(" ", 1) for line in scrape.text.splitlines() if line[0] != "#")
    edits = {n: float(v) for n, v in counted.items() if n.startswith("persona_edits_total")}
    assert sum(edits.values()) == 194
    batched = float(counted["persona_batch_size_sum"])
    assert batched == 194
    assert float(counted["persona_batch_size_count"]) < batched
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sum(line.get("device") == phone.device for line in lines) == 194
    assert phone.token not in (tmp_path / "log").read_text()


def test_ctrl_c_finishes_what_is_in_flight(server, tmp_path):
    with server(f"sqlite:///{tmp_path / 'cloud.sqlite'}", delay=1.0) as (process, address):
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.get(f"{address}/healthz", timeout=60))
        )
        asking.start()
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        asking.join()
        assert answers[0].json() == {"status": "alive"}
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer SECRET\r\n\r\n", 400),
        (b"SECRET\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_http_is_refused_with_a_problem_document_and_no_echo(sent, status):
    ours, theirs = socket.socketpair()
    worker = Worker.__new__(Worker)
    worker.log = logging.getLogger("test")
    with ours, theirs:
        with pytest.raises(ParseException) as malformed:
            next(RequestParser(Config(), iter([sent]), ("127.0.0.1", 1)))
        worker.handle_error(None, ours, None, malformed.value)
        ours.shutdown(socket.SHUT_WR)
        response = httpx_response(theirs)
    assert "SECRET" not in problem(response, status, "request.malformed")["detail"]


def httpx_response(connection):
    reader = http.client.HTTPResponse(connection)
    reader.begin()
    return httpx.Response(reader.status, headers=reader.getheaders(), content=reader.read())


def test_a_port_in_use_is_named_with_what_to_do(config):
    app = create_app(config)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"port {port} is in use.*choose another"):
            serve(app, port=port)
    with pytest.raises(ListenError, match="choose another host"):
        serve(app, host="192.0.2.1", port=0)


def test_a_bundle_of_another_run_is_not_served(config, run, tmp_path):
    other = tmp_path / "other"
    with pytest.raises(RunError, match="persona train"):
        create_app(replace(config, run=other))
    record = replace(run.record, config=replace(run.record.config, name="renamed"))
    bundle = make_bundle(replace(run, record=record), tmp_path / "bundle")
    with pytest.raises(OtherModelError, match="persona export"):
        create_app(replace(config, bundle=bundle.path))


def test_a_bundle_that_does_not_know_the_key_is_not_served(config, run, tmp_path):
    stranger = SigningKey.load_or_create(tmp_path / "key.pem")
    bundle = make_bundle(load_run(run.path), tmp_path / "bundle", stranger.public)
    with pytest.raises(KeyNotInBundleError, match="keys folder"):
        create_app(replace(config, bundle=bundle.path))


def test_the_state_lies_in_the_run_unless_told_otherwise(config):
    database = replace(config, database_url=None).database
    assert database == f"sqlite:///{config.run}{os.sep}cloud.sqlite"
