"""Tokens are short-lived and renewed without a new device; operators shut devices out."""

from datetime import UTC, datetime, timedelta

import pytest
from cloud_phone import Phone, enrol_at, problem
from databases import everything_in, rows

from persona_cloud.identity import digest, new_operator_key
from persona_cloud.store import Store


def renew(phone):
    return phone.http.post(f"/v1/devices/{phone.device}/token", headers=phone.authorization)


def renewed(phone):
    response = renew(phone)
    assert response.status_code == 201, response.text
    assert response.headers["Cache-Control"] == "no-store"
    return Phone(phone.http, phone.bundle, phone.device, response.json()["token"])


def expire(url, phone):
    """Make it an hour since the tokens of a device expired."""
    then = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1)
    query = "UPDATE device_tokens SET expires_at = :then WHERE device = :device"
    rows(url, query, then=then, device=phone.device)


@pytest.fixture
def operator(config):
    """Makes a key with scopes; returns its id and the header that shows it."""

    def make(*scopes):
        secret, key = new_operator_key("somebody", list(scopes))
        Store(config.database).add_operator_key(key)
        return key.id, {"Authorization": f"Bearer {secret}"}

    return make


def test_a_renewed_token_is_for_the_same_device_and_its_sequence_goes_on(phone, observations):
    assert phone.verify(phone.ask(observations[0])).info.sequence == 1
    info = renewed(phone).verify(renewed(phone).ask(observations[0])).info
    assert (info.device, info.sequence) == (phone.device, 2)


def test_the_old_token_is_good_until_the_new_one_is_used(phone, observations):
    new = renewed(phone)
    phone.verify(phone.ask(observations[0]))
    new.verify(new.ask(observations[0]))
    problem(phone.ask(observations[0]), 401, "token.unknown")
    problem(renew(phone), 401, "token.unknown")


def test_an_answer_that_got_lost_costs_nothing(phone, observations):
    lost = renewed(phone)
    again = renewed(phone)
    again.verify(again.ask(observations[0]))
    problem(lost.ask(observations[0]), 401, "token.unknown")


def test_a_device_has_two_tokens_at_most(phone, config):
    for _ in range(5):
        renewed(phone)
    query = "SELECT count(*) FROM device_tokens WHERE device = :device"
    assert rows(config.database, query, device=phone.device) == [(2,)]


def test_an_expired_token_can_be_renewed_and_nothing_else(phone, observations, config):
    expire(config.database, phone)
    problem(phone.ask(observations[0]), 401, "token.expired")
    new = renewed(phone)
    assert new.verify(new.ask(observations[0])).info.device == phone.device


def test_after_the_grace_a_token_cannot_be_renewed(other_cloud, bundle, url):
    with other_cloud(renewal_grace=timedelta(minutes=59)) as http:
        phone = enrol_at(http, bundle)
        expire(url, phone)
        problem(renew(phone), 401, "token.expired")


def test_a_revoked_device_gets_nothing_more(enrol, observations, operator):
    phone, other = enrol(), enrol()
    _, key = operator("devices")
    for _ in range(2):
        response = phone.http.delete(f"/v1/devices/{phone.device}", headers=key)
        assert (response.status_code, response.content) == (204, b"")
    problem(phone.ask(observations[0]), 401, "token.revoked")
    problem(renew(phone), 401, "token.revoked")
    other.verify(other.ask(observations[0]))


def test_an_unknown_device_cannot_be_revoked(http, operator):
    _, key = operator("devices")
    problem(http.delete("/v1/devices/nobody", headers=key), 404, "device.unknown")


def test_a_revoked_key_is_refused_at_once(http, config, operator):
    name, key = operator("metrics")
    assert http.get("/metrics", headers=key).status_code == 200
    Store(config.database).revoke_operator_key(name, new_operator_key("", [])[1].created_at)
    problem(http.get("/metrics", headers=key), 401, "operator.unknown")


def test_only_the_digest_of_a_key_is_stored(config, operator):
    name, key = operator("metrics")
    secret = key["Authorization"].removeprefix("Bearer ")
    query = "SELECT sha256 FROM operator_keys WHERE id = :id"
    assert rows(config.database, query, id=name) == [(digest(secret),)]
    assert secret.encode() not in everything_in(config.database)
