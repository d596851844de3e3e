"""Attacks by text: what the database, the paths and the metrics make of it."""

import pytest
from cloud_phone import problem
from databases import rows
from test_measurements import listed, measured, report

from persona_cloud.identity import new_operator_key
from persona_cloud.store import Store


@pytest.mark.parametrize("text", ["' OR 1=1 --", "x'; DROP TABLE devices; --", '"', "%", "_"])
def test_sql_in_a_filter_or_a_report_is_just_text(phone, config, text):
    report(phone, measured(model="innocent"))
    assert listed(phone, model=text) == []
    assert report(phone, measured(target=text)).status_code == 201
    assert all(entry["measurement"]["target"] == text for entry in listed(phone, target=text))
    assert rows(config.database, "SELECT count(*) FROM devices") > [(0,)]


def test_text_that_a_database_cannot_hold_is_refused_or_stored(phone):
    sent = report(phone, measured(model="a\0b"))
    asked = phone.http.get(
        "/v1/measurements", params={"model": "a\0b"}, headers=phone.authorization
    )
    if sent.status_code != 201:
        problem(sent, 400, "request.refused")
        problem(asked, 400, "request.refused")
    else:
        assert asked.json()["measurements"][0]["measurement"]["model"] == "a\0b"


def test_clients_cannot_make_metrics_of_their_own(http, config):
    for n in range(20):
        http.get(f"/made-up-{n}")
        http.request(f"MADEUP{n}", "/v1/models")
    secret, key = new_operator_key("prometheus", ["metrics"])
    Store(config.database).add_operator_key(key)
    text = http.get("/metrics", headers={"Authorization": f"Bearer {secret}"}).text
    assert "made-up" not in text
    assert "MADEUP" not in text
    assert 'persona_requests_total{method="any",route="none",status="404"}' in text
