"""The cloud as it runs in production: gunicorn with worker processes, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from persona.bundles import Bundle
from persona.runs import Run
from persona_cloud.serving import CONNECTIONS
from persona_cloud.worker import MAX_COLLECTED

T = TypeVar("T")

_SERVER = """
import json, os, sys, time
from pathlib import Path
from flask import request
from persona_cloud import CloudConfig, create_app, serving, worker
from persona_cloud.config import Limits, Quotas

wanted = json.loads(sys.argv[1])
worker.REQUEST_SECONDS = wanted["request_seconds"]
worker.MAX_COLLECTED = wanted["collected"]
serving.CONNECTIONS = wanted["connections"]
quotas = Quotas(None, None, wanted["edits_per_device"], wanted["quotas"])
config = CloudConfig(
    Path(wanted["run"]), Path(wanted["bundle"]), wanted["database"],
    quotas=quotas, limits=Limits(**wanted["limits"]),
    versions=wanted["versions"] and Path(wanted["versions"]),
)
app = create_app(config)

@app.after_request
def say_which(response):
    response.headers["Process"] = str(os.getpid())
    return response

if wanted["delay"]:
    app.before_request(lambda: time.sleep(wanted["delay"] * (request.method == "POST")))
serving.serve(app, port=0, workers=wanted["workers"], ready=print)
print("served")
"""


@dataclass(frozen=True)
class Server:
    """A running cloud."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    def workers(self) -> list[int]:
        """The processes that answer."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def each_says(self, ask: Callable[[httpx.Client], T]) -> list[T]:
        """What every worker answers, one after the other, while the rest of them stand still."""
        said, workers = [], self.workers()
        for asked in workers:
            others = [pid for pid in workers if pid != asked]
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            try:
                with httpx.Client(base_url=self.address, timeout=30) as http:
                    assert http.get("/healthz").headers["Process"] == str(asked)
                    said.append(ask(http))
            finally:
                for pid in others:
                    os.kill(pid, signal.SIGCONT)
        return said

    def memory(self) -> int:
        """Bytes that its processes hold, none counted twice."""
        pages = 0
        for pid in (self.process.pid, *self.workers()):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            pages += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return pages * 1024


@contextmanager
def serving(
    folder: Path,
    run: Path,
    bundle: Path,
    database: str,
    *,
    workers: int = 2,
    environment: Mapping[str, str] | None = None,
    **wanted: Any,
) -> Iterator[Server]:
    """A server whose answers name the process that made them.

    wanted: delay of each POST, limits, quotas' storage, edits_per_device, versions' folder,
    request_seconds, connections, collected.
    """
    settings = {
        "run": str(run),
        "bundle": str(bundle),
        "database": database,
        "workers": workers,
        "delay": 0.0,
        "limits": {},
        "quotas": "memory://",
        "edits_per_device": None,
        "versions": None,
        "request_seconds": 10.0,
        "connections": CONNECTIONS,
        "collected": MAX_COLLECTED,
    } | wanted
    log = folder / "server.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", _SERVER, json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env=os.environ | dict(environment or {}),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, log.read_text()
            yield Server(process, address, log)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


Start = Callable[..., AbstractContextManager[tuple[Server, httpx.Client]]]


def starts_in(folder: Path, run: Run, bundle: Bundle) -> Start:
    """Starts a cloud of several processes, on SQLite unless told; gives it with an HTTP client."""

    @contextmanager
    def start(database: str | None = None, **wanted: Any) -> Iterator[tuple[Server, httpx.Client]]:
        database = database or f"sqlite:///{folder / 'cloud.sqlite'}"
        connections = httpx.Limits(max_connections=256, max_keepalive_connections=256)
        with (
            serving(folder, run.path, bundle.path, database, **wanted) as server,
            httpx.Client(base_url=server.address, timeout=30, limits=connections) as http,
        ):
            yield server, http

    return start
