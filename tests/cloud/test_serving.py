"""gunicorn serves it from several processes, says when it is ready, and stops without cutting."""

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
from cloud_phone import enrol_at
from tiny_run import make_bundle

from persona.issuing import KeyNotInBundleError, OtherModelError
from persona.runs import RunError, load_run
from persona.signing import SigningKey
from persona_cloud import create_app
from persona_cloud.serving import ListenError, PortInUseError, serve

SERVER = """
import sys, time
from pathlib import Path
from persona_cloud import CloudConfig, create_app
from persona_cloud.serving import serve

run, bundle, database, delay = sys.argv[1:]
app = create_app(CloudConfig(Path(run), Path(bundle), database))
app.before_request(lambda: time.sleep(float(delay)))
serve(app, port=0, workers=2, ready=print)
print("served")
"""


@pytest.fixture
def server(config, tmp_path):
    """A server in a process of its own; gives the process and its URL."""

    @contextmanager
    def start(delay=0.0):
        database = f"sqlite:///{tmp_path / 'served.sqlite'}"
        arguments = (config.run, config.bundle, database, str(delay))
        command = [sys.executable, "-c", SERVER, *arguments]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                yield process, process.stdout.readline().strip()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    return start


def test_two_workers_serve_one_state_and_a_signal_stops_them(server, bundle, observations):
    with server() as (process, url):
        with httpx.Client(base_url=url) as http:
            phone = enrol_at(http, bundle)
            with ThreadPoolExecutor(6) as pool:
                answers = list(pool.map(phone.ask, observations * 3))
            too_large = http.post("/v1/devices", content=iter([b" " * 100_000]))
        sequences = [phone.verify(answer).info.sequence for answer in answers]
        assert sorted(sequences) == list(range(1, 25))
        assert too_large.status_code == 413
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout.read() == "served\n"


def test_ctrl_c_finishes_what_is_in_flight(server):
    with server(delay=1.0) as (process, url):
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.get(f"{url}/healthz", timeout=10))
        )
        asking.start()
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        asking.join()
        assert answers[0].json() == {"status": "alive"}
        assert process.wait(10) == 0


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
