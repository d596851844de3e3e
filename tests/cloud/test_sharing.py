"""What requests that come together share: one forward and then one transaction."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from cloud_phone import enrol_at
from held import Held
from load import until

from persona.issuing import Issuer
from persona_cloud import create_app
from persona_cloud.service import service_of
from persona_cloud.serving import running
from persona_cloud.store import Store


@pytest.mark.parametrize("waits", ["forward", "transaction"])
def test_those_who_come_while_edits_are_made_share_the_next_forward_and_transaction(
    config, bundle, observations, url, monkeypatch, waits
):
    calls = {"forward": Held(Issuer.compute), "transaction": Held(Store.issue)}
    monkeypatch.setattr(Issuer, "compute", calls["forward"].called)
    monkeypatch.setattr(Store, "issue", calls["transaction"].called)
    for name, call in calls.items():
        if name != waits:
            call.open.set()
    app = create_app(replace(config, database_url=url))
    with (
        running(app) as address,
        httpx.Client(base_url=address, timeout=60) as http,
        ThreadPoolExecutor(6) as pool,
    ):
        phones = [enrol_at(http, bundle) for _ in range(6)]
        first = pool.submit(phones[0].ask, observations[0])
        assert calls[waits].begun.acquire(timeout=60)
        others = [pool.submit(phone.ask, observations[1]) for phone in phones[1:]]
        until(lambda: len(service_of(app).making._queue) == 5)
        calls[waits].open.set()
        answers = [asked.result(60) for asked in (first, *others)]
        for phone, answer in zip(phones, answers, strict=True):
            assert phone.verify(answer).info.sequence == 1
    assert calls["forward"].sizes == calls["transaction"].sizes == [1, 5]
