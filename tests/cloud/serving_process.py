"""The cloud as it runs in production: gunicorn with worker processes, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SERVER = """
import json, sys, time
from pathlib import Path
from persona_cloud import CloudConfig, create_app, serving, worker
from persona_cloud.config import Limits, Quotas

wanted = json.loads(sys.argv[1])
worker.REQUEST_SECONDS = wanted["request_seconds"]
quotas = Quotas(None, None, wanted["edits_per_device"], wanted["quotas"])
config = CloudConfig(
    Path(wanted["run"]), Path(wanted["bundle"]), wanted["database"],
    quotas=quotas, limits=Limits(**wanted["limits"]),
)
app = create_app(config)
if wanted["delay"]:
    app.before_request(lambda: time.sleep(wanted["delay"]))
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
    """A server; wanted: delay of each request, limits, quotas' storage, edits_per_device."""
    settings = {
        "run": str(run),
        "bundle": str(bundle),
        "database": database,
        "workers": workers,
        "delay": 0.0,
        "limits": {},
        "quotas": "memory://",
        "edits_per_device": None,
        "request_seconds": 10.0,
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
