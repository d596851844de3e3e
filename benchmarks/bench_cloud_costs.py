"""Figures, no claim: what one edit costs in time, bytes and writes; docs/scaling.md uses them.

Computing is processor time of one core, with the adapters of `bench_cloud.py`. Writing is wall
time, one request after the other: the database is SQLite in a file, every commit on the disk, and
beside it the empty one of DATABASE_URL, where there is one.
"""

import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bench_cloud import ADAPTERS, prepare
from sqlalchemy import func, select, text

from persona.bundles import Bundle
from persona.formats.observation import (
    MEDIA_TYPE_SAFETENSORS,
    Envelope,
    Observation,
    from_safetensors,
    parse_json,
    to_json,
    to_safetensors,
)
from persona.issuing import Issued, Issuer, Request
from persona.offline_edits import FORWARD, PartMaker, plan_edits
from persona.runs import Run
from persona.training.devices import encoder_input
from persona_cloud import CloudConfig, create_app
from persona_cloud.config import Quotas
from persona_cloud.identity import new_token
from persona_cloud.store import Idempotency, Store, Wish
from persona_cloud.tables import Device

FLEETS = (10**4, 10**6, 10**8)
PEAK, BUSY = 3.0, 0.5
"""The busiest moment against the day's mean; how busy cores may be to keep latencies short."""

CORE_HOUR, OBJECT_GB_MONTH, DATABASE_GB_MONTH = 0.04, 0.023, 0.12
"""Dollars, of the order that large providers ask; put in your own."""

MONTH_DAYS = 30

WRITES = 400
TOGETHER = 25
ROWS = 20 * FORWARD


def microseconds(action: Callable[[], object], times: int = 30) -> float:
    """Median processor time of an action: what it takes of a core, whoever else is at work."""
    found = []
    for _ in range(times):
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return 1e6 * statistics.median(found)


def row(name: str, value: float, unit: str) -> None:
    print(f"  {name:52}{value:12,.1f} {unit}", flush=True)


@dataclass(frozen=True)
class Costs:
    """Of one edit: processor time in µs offline and in the app, bytes in object storage."""

    offline: float
    online: float
    stored: float


def computing(
    run: Run, bundle: Bundle, observations: list[Observation], folder: Path
) -> tuple[Issued, Costs]:
    """Time and bytes of an edit; returns one."""
    issuer, spec = Issuer(run, bundle), run.record.observation
    requests = [
        Request(f"{i:032x}", 1, observations[i % len(observations)]) for i in range(FORWARD)
    ]
    rows = np.stack([encoder_input(spec, r.observation) for r in requests])
    personaliser, inputs = run.personaliser(), torch.from_numpy(rows)
    envelope = Envelope(bundle.digest, observations[0])
    data, document = to_safetensors(envelope), json.dumps(to_json(envelope)).encode()
    with torch.inference_mode():
        row(
            f"forward alone, {FORWARD} in a batch",
            microseconds(lambda: personaliser(inputs), 8) / FORWARD,
            "µs an edit",
        )
    row(
        f"edit with probe and signature, {FORWARD} in a batch",
        microseconds(lambda: issuer.issue(requests), 8) / FORWARD,
        "µs an edit",
    )
    row("… one in a batch", microseconds(lambda: issuer.issue(requests[:1])), "µs an edit")
    row("signature alone", microseconds(lambda: run.edit_key().sign(data)), "µs")
    row(
        "read an observation, safetensors", microseconds(lambda: from_safetensors(spec, data)), "µs"
    )
    row("read an observation, JSON", microseconds(lambda: parse_json(spec, document)), "µs")
    (issued,) = issuer.issue(requests[:1])
    row("observation, safetensors", len(data), "bytes")
    row("observation, JSON", len(document), "bytes")
    row("edit", len(issued.data), "bytes")
    online = answering(run, bundle, data, f"sqlite:///{folder}/app.sqlite")
    row("a request in the app, one in a forward", online, "µs")
    offline, stored = _offline(run, bundle, data, folder)
    return issued, Costs(offline, online, stored)


def answering(run: Run, bundle: Bundle, data: bytes, url: str) -> float:
    """Processor time of a request in the app, one in a forward: all but the reading of HTTP."""
    app = create_app(CloudConfig(run.path, bundle.path, url, quotas=Quotas(None, None, None)))
    client = app.test_client()
    token = client.post("/v1/devices").get_json()["token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": MEDIA_TYPE_SAFETENSORS}
    path = f"/v1/models/{bundle.manifest.model}/edits"
    assert client.post(path, data=data, headers=headers).status_code == 200
    return microseconds(lambda: client.post(path, data=data, headers=headers))


def _offline(run: Run, bundle: Bundle, data: bytes, folder: Path) -> tuple[float, float]:
    """`persona edits` with one process, from Parquet to a finished part."""
    file, out = folder / "observations.parquet", folder / "edits"
    columns = {
        "device": [f"{i:032x}" for i in range(ROWS)],
        "sequence": [1] * ROWS,
        "observation": [data] * ROWS,
    }
    pq.write_table(pa.table(columns), file)
    plan_edits(file, run.path, bundle.path, out, timedelta(days=7), ROWS)
    maker = PartMaker(run.path, bundle.path, out)
    start = time.process_time()
    maker.make(0)
    each = 1e6 * (time.process_time() - start) / ROWS
    row("`persona edits`", each, "µs an edit")
    index = next((out / "index").iterdir()).stat().st_size
    archive = next((out / "edits").iterdir()).stat().st_size
    row("… in the archive", archive / ROWS, "bytes an edit")
    row("… in the index", index / ROWS, "bytes an edit")
    return each, (archive + index) / ROWS


def fleets(costs: Costs, kept: float) -> None:
    """What follows for fleets; every assumption stands above.

    kept: bytes of the database for each edit. Offline, dollars are for the cores of one run and a
    month of the archive; online, for a month of as many cores as the peak needs, rented all the
    time, and for keeping the rows of that month. Traffic and the database's own cores are in
    neither.
    """
    print("  devices    offline, all at once            online, each once a day")
    print(
        "             core-hours     GB       $      cores at peak   writes/s   GB a month of rows"
        "   $ a month"
    )
    for devices in FLEETS:
        hours = devices * costs.offline / 3.6e9
        stored = devices * costs.stored / 1e9
        dollars = hours * CORE_HOUR + stored * OBJECT_GB_MONTH
        peak = devices / 86_400 * PEAK
        cores = peak * costs.online / 1e6 / BUSY
        rows = devices * MONTH_DAYS * kept / 1e9
        monthly = cores * 24 * MONTH_DAYS * CORE_HOUR + rows * DATABASE_GB_MONTH
        print(
            f"  {devices:11,}{hours:10,.1f}{stored:9,.1f}{dollars:9,.2f}{cores:15,.1f}"
            f"{peak:13,.0f}{rows:15,.1f}{monthly:17,.2f}"
        )


def writing(url: str, issued: Issued) -> float:
    """What the server writes for each edit, one request after the other; bytes without a key."""
    store, devices = Store(url), [secrets.token_hex(16) for _ in range(WRITES)]
    now = datetime.now(UTC)
    start = time.perf_counter()
    for device in devices:
        _, token = new_token(device, timedelta(days=1))
        store.enrol(Device(device, "other", now), token)
    row("enrol a device", 1e6 * (time.perf_counter() - start) / WRITES, "µs")
    before, found = _size(store), []
    for what, together, kept in (
        ("alone", 1, False),
        (f"{TOGETHER} together", TOGETHER, False),
        ("alone, with an Idempotency-Key", 1, True),
    ):
        wishes = [
            Wish(
                device,
                partial(_replaced, issued, device),
                Idempotency("key", "0" * 64) if kept else None,
            )
            for device in devices
        ]
        start = time.perf_counter()
        for first in range(0, WRITES, together):
            store.issue(wishes[first : first + together])
        seconds = (time.perf_counter() - start) / WRITES
        after = _size(store)
        row(f"number and record, {what}: 1 transaction", 1e6 * seconds, "µs an edit")
        row("… kept in the database", (after - before) / WRITES, "bytes an edit")
        found.append((after - before) / WRITES)
        before = after
    return found[0]


def _replaced(issued: Issued, device: str, sequence: int) -> Issued:
    return replace(issued, info=replace(issued.info, device=device, sequence=sequence))


def _size(store: Store) -> int:
    """Bytes of the database, after what is waiting has been written."""
    with store._engine.connect() as connection:
        if store._engine.dialect.name == "postgresql":
            return int(connection.scalar(select(func.pg_database_size(func.current_database()))))
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        pages = connection.scalar(text("PRAGMA page_count"))
        return int(pages) * int(connection.scalar(text("PRAGMA page_size")))


def main() -> int:
    """Print all figures."""
    torch.set_num_threads(1)
    print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for adapter, config in ADAPTERS.items():
        with tempfile.TemporaryDirectory() as name:
            run, bundle, observations = prepare(config, Path(name))
            print(adapter)
            issued, costs = computing(run, bundle, observations, Path(name))
            urls = {"SQLite": f"sqlite:///{name}/cloud.sqlite"}
            if "DATABASE_URL" in os.environ:
                urls["DATABASE_URL"] = os.environ["DATABASE_URL"]
            for where, url in urls.items():
                print(f" {where}")
                kept = writing(url, issued)
            fleets(costs, kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
