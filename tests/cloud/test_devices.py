"""Devices enrol, each with a secret of its own that the cloud does not keep."""

import hashlib

import pytest
from cloud_phone import problem
from databases import everything_in, rows

from persona.formats.edit import parse_time


def test_an_enrolled_device_knows_its_token_and_what_to_run(http, bundle):
    response = http.post("/v1/devices", json={"platform": "android"})
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    said = response.json()
    assert (said["model"], said["bundle"]) == (bundle.manifest.model, bundle.digest)
    assert parse_time(said["expires_at"])


def test_no_two_devices_share_a_name_or_a_secret(enrol):
    phones = [enrol() for _ in range(5)]
    assert len({p.device for p in phones}) == len({p.token for p in phones}) == 5


def test_only_the_digest_of_a_token_is_stored(phone, config):
    query = "SELECT sha256 FROM device_tokens WHERE device = :device"
    ((stored,),) = rows(config.database, query, device=phone.device)
    assert stored == hashlib.sha256(phone.token.encode()).hexdigest()
    assert phone.token.encode() not in everything_in(config.database)


def test_a_host_can_demand_an_attestation(other_cloud):
    with other_cloud(attest=lambda enrolment: enrolment.attestation == "genuine") as http:
        problem(http.post("/v1/devices"), 403, "enrolment.refused")
        genuine = {"platform": "ios", "attestation": "genuine"}
        assert http.post("/v1/devices", json=genuine).status_code == 201


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"json": {"platform": "fridge"}}, 422, "request.invalid"),
        ({"json": {"name": "mine"}}, 422, "request.invalid"),
        ({"json": []}, 422, "request.invalid"),
        ({"data": {"platform": "ios"}}, 415, "request.media_type"),
        ({"content": b" " * 65_537}, 413, "request.too_large"),
    ],
)
def test_a_wrong_enrolment_is_refused(http, body, status, code):
    problem(http.post("/v1/devices", **body), status, code)
