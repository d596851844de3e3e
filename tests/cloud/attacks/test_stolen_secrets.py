"""Attacks with what was stolen, or given for something else: the database, a token, a key."""

import pytest
from cloud_phone import Phone, problem
from databases import rows

from persona_cloud.identity import new_operator_key
from persona_cloud.store import Store


@pytest.fixture
def key(config):
    def make(*scopes):
        secret, stored = new_operator_key("somebody", list(scopes))
        Store(config.database).add_operator_key(stored)
        return secret

    return make


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def test_what_a_stolen_database_holds_opens_nothing(phone, observations, config, key):
    key("devices", "metrics")
    stored = rows(config.database, "SELECT sha256 FROM device_tokens")
    stored += rows(config.database, "SELECT sha256 FROM operator_keys")
    assert len(stored) > 1
    for (digest,) in stored:
        thief = Phone(phone.http, phone.bundle, phone.device, digest)
        problem(thief.ask(observations[0]), 401, "token.unknown")
        problem(phone.http.get("/metrics", headers=bearer(digest)), 401, "operator.unknown")


def test_a_token_stolen_before_a_renewal_is_worthless_after_it(phone, observations):
    stolen = phone.token
    place = f"/v1/devices/{phone.device}/token"
    new = phone.http.post(place, headers=phone.authorization).json()["token"]
    Phone(phone.http, phone.bundle, phone.device, new).ask(observations[0])
    problem(phone.http.post(place, headers=bearer(stolen)), 401, "token.unknown")


def test_a_device_is_no_operator_and_an_operator_no_device(phone, observations, key):
    problem(phone.http.get("/metrics", headers=phone.authorization), 401, "operator.unknown")
    place = f"/v1/devices/{phone.device}"
    problem(phone.http.delete(place, headers=phone.authorization), 401, "operator.unknown")
    impostor = Phone(phone.http, phone.bundle, phone.device, key("devices", "metrics"))
    problem(impostor.ask(observations[0]), 401, "token.unknown")


def test_a_key_for_metrics_shuts_no_device_out(phone, observations, key):
    place = f"/v1/devices/{phone.device}"
    problem(phone.http.delete(place, headers=bearer(key("metrics"))), 403, "operator.scope")
    problem(phone.http.get("/metrics", headers=bearer(key("devices"))), 403, "operator.scope")
    phone.verify(phone.ask(observations[0]))


def test_an_attestation_that_cannot_be_checked_lets_nobody_in(other_cloud, url):
    def broken(_):
        raise TimeoutError("the platform does not answer")

    with other_cloud(attest=broken) as http:
        problem(http.post("/v1/devices"), 500, "server.failed")
    assert rows(url, "SELECT count(*) FROM devices") == [(0,)]
