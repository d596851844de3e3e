"""Attacks on what the cloud tells: its log, its errors, and browsers that read them."""

import json
import logging

import pytest
from cloud_phone import problem
from sqlalchemy.exc import DBAPIError

from persona.issuing import Issuer
from persona_cloud.observing import JsonFormatter
from persona_cloud.store import Store
from persona_cloud.tables import DeviceToken


@pytest.fixture
def log(caplog):
    """Everything that is logged, formatted as it would be written."""
    caplog.set_level(logging.INFO, "persona_cloud")
    return lambda: [JsonFormatter().format(record) for record in caplog.records]


def test_tokens_keys_and_observations_never_reach_the_log(phone, observations, log, monkeypatch):
    key = "idempotency-of-mine"
    phone.ask(observations[0], **{"Idempotency-Key": key})
    new = phone.http.post(f"/v1/devices/{phone.device}/token", headers=phone.authorization)
    phone.http.get("/metrics", headers=phone.authorization)
    phone.http.get("/v1/measurements", params={"model": phone.token}, headers=phone.authorization)
    phone.http.get(f"/{phone.token}")
    with monkeypatch.context() as broken:
        broken.setattr(Issuer, "compute", lambda *_: 1 / 0)
        phone.ask(observations[0])
    written = "\n".join(log())
    assert "ZeroDivisionError" in written
    assert phone.device in written
    for secret in (phone.token, new.json()["token"], key, str(observations[0].mean[0])):
        assert secret not in written


def test_a_failing_database_does_not_spell_out_the_row(config):
    store = Store(config.database)
    with pytest.raises(DBAPIError) as failure:
        store.renew("", DeviceToken("secret digest", None, None, None))  # type: ignore[arg-type]
    assert "secret digest" not in str(failure.value).split("[SQL")[-1]


def test_a_line_of_the_log_cannot_be_forged(http, log):
    forged = 'x"}\n{"level": "info", "message": "all is well'
    http.get("/v1/models/" + forged.replace("\n", "%0A"))
    http.get("/healthz", headers={"X-Request-ID": "a b"})
    for line in log():
        assert "\n" not in line
        assert "all is well" not in line
        json.loads(line)


def test_a_request_id_is_kept_where_it_is_harmless(http):
    assert (
        http.get("/healthz", headers={"X-Request-ID": "abc-1.2_3"}).headers["X-Request-ID"]
        == "abc-1.2_3"
    )
    for harmful in ("a b", "a" * 65, '"', ""):
        given = http.get("/healthz", headers={"X-Request-ID": harmful}).headers["X-Request-ID"]
        assert len(given) == 32
        assert harmful == "" or harmful not in given


@pytest.mark.parametrize("path", ["/<script>alert(1)</script>", "/docs", "/v1/models", "/healthz"])
def test_a_browser_makes_nothing_of_an_answer(http, path):
    response = http.get(path)
    said = response.headers
    assert said["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in said["Content-Security-Policy"]
    assert "script-src" not in said["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in said
    assert (said["Content-Type"].startswith("text/html")) == (path == "/docs")


def test_a_failure_tells_an_incident_and_nothing_else(phone, observations, log, monkeypatch):
    def fail(*_):
        raise RuntimeError("/srv/keys/edits.pem")

    monkeypatch.setattr(Issuer, "compute", fail)
    response = phone.ask(observations[0])
    detail = problem(response, 500, "server.failed")["detail"]
    assert "/srv" not in response.text
    assert response.headers["X-Request-ID"] in detail
    assert any(response.headers["X-Request-ID"] in line for line in log())
