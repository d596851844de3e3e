"""Thousands of requests of a thousand devices, many at a time: each is answered with its own edit.

They are sent over HTTP to several processes, and every answer is compared with the edit that is
computed alone. PERSONA_SLOW=1 makes it 100,000 requests.
"""

import re
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cloud_phone import Phone
from databases import rows
from load import SECONDS
from serving_process import starts_in

from persona_cloud.identity import new_operator_key, new_token
from persona_cloud.store import Store
from persona_cloud.tables import Device

WORKERS, THREADS = 4, 64


@pytest.fixture
def phones(bundle, alone, url):
    """Devices that are enrolled, each with its token shown before; they lack a connection."""
    store, now, found = Store(url), datetime.now(UTC), []
    with store.writing() as session:
        for number in range(alone.devices):
            token, stored = new_token(f"device {number}", timedelta(days=1))
            session.add(Device(stored.device, "other", now))
            session.flush()
            stored.used = True
            session.add(stored)
            found.append(Phone(None, bundle, stored.device, token))
    store.close()
    return found


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_each_request_is_answered_with_the_edit_it_would_get_alone(
    run, bundle, alone, phones, url, tmp_path, count
):
    assert alone.nearest() > 10, "no edit can be taken for another one"
    secret, key = new_operator_key("counting", ["metrics"])
    Store(url).add_operator_key(key)
    counts = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    start = starts_in(tmp_path, run, bundle)
    with start(url, workers=WORKERS, environment=counts) as (_, http):
        refused = []

        def ask(request):
            phone = replace(phones[alone.device(request)], http=http)
            end = time.monotonic() + SECONDS
            response = phone.ask(alone.observation(request))
            while response.status_code == 503 and time.monotonic() < end:
                refused.append(request)
                time.sleep(float(response.headers["Retry-After"]) / 10)
                response = phone.ask(alone.observation(request))
            info = phone.verify(response).info
            alone.check(request, info.prototype, response.content)
            return info.device, info.sequence

        begun = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            given = list(pool.map(ask, range(count)))
        seconds = time.monotonic() - begun
        told = http.get("/metrics", headers={"Authorization": f"Bearer {secret}"}).text
    numbers = defaultdict(list)
    for device, sequence in given:
        numbers[device].append(sequence)
    assert len(numbers) == alone.devices
    assert all(sorted(mine) == list(range(1, len(mine) + 1)) for mine in numbers.values())
    issued = rows(url, "SELECT device, sequence FROM issued_edits")
    assert sorted(issued) == sorted(given), "what is written was given out, once"
    batches, computed = (
        float(re.search(rf"^persona_batch_size_{what} (.*)$", told, re.M)[1])
        for what in ("count", "sum")
    )
    assert computed == count
    assert batches < count, "forwards were shared"
    print(
        f"{count} requests of {len(numbers)} devices over {THREADS} connections to {WORKERS} "
        f"processes in {seconds:.0f} s, {computed / batches:.1f} a forward, {len(refused)} times "
        f"refused with 503 and sent again; each edit is the one computed alone, from which the "
        f"nearest other is {alone.nearest():.0f} tolerances away"
    )
