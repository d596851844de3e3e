"""Whatever is wrong with a request, the answer says what, by a stable code, and what to do."""

import json
import time
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from cloud_phone import enrol_at, problem

from persona.formats.edit import MEDIA_TYPE
from persona.formats.observation import MEDIA_TYPE_SAFETENSORS, Envelope, to_json, to_safetensors


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"count": 0}, "observation.empty"),
        ({"count": 10**6}, "observation.too_long"),
        ({"mean": [0.5]}, "observation.width"),
        ({"mean": "much"}, "observation.invalid"),
        ({"kind": "raw"}, "observation.invalid"),
        ({"format": "persona.observation/2"}, "observation.invalid"),
        ({"extra": 1}, "observation.invalid"),
        ({"bundle": 7}, "observation.invalid"),
    ],
)
def test_a_wrong_observation_is_unprocessable(phone, observations, changed, code):
    problem(phone.ask_json(observations[0], **changed), 422, code)


def test_nan_is_refused_in_both_forms(phone, observations):
    good = observations[0]
    bad = replace(good, mean=good.mean * np.float32("nan"))
    problem(phone.ask(bad), 422, "observation.not_finite")
    text = json.dumps(to_json(Envelope(phone.bundle.digest, bad)))
    headers = {"Content-Type": "application/json", **phone.authorization}
    response = phone.http.post(phone.edits, content=text, headers=headers)
    assert "NaN" in problem(response, 422, "observation.invalid")["detail"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_refused(phone, content):
    headers = {"Content-Type": "application/json", **phone.authorization}
    response = phone.http.post(phone.edits, content=content, headers=headers)
    problem(response, 422, "observation.invalid")


def test_a_cut_file_is_refused_with_the_containers_code(phone, observations):
    data = to_safetensors(Envelope(phone.bundle.digest, observations[0]))
    headers = {"Content-Type": MEDIA_TYPE_SAFETENSORS, **phone.authorization}
    for content, code in (
        (b"", "container.truncated"),
        (data[:4], "container.truncated"),
        (data[:-1], "container.out_of_bounds"),
        (data + b"\0", "container.trailing_bytes"),
    ):
        problem(phone.http.post(phone.edits, content=content, headers=headers), 422, code)


def test_another_bundles_device_learns_of_the_right_one(phone, observations):
    other = "0" * 64
    for response in (
        phone.ask_json(observations[0], bundle=other),
        phone.ask_json(observations[0], bundle=other, mean=[0.5], kind="items"),
        phone.http.post(
            phone.edits,
            content=to_safetensors(Envelope(other, observations[0])),
            headers={"Content-Type": MEDIA_TYPE_SAFETENSORS, **phone.authorization},
        ),
    ):
        document = problem(response, 409, "observation.other_base")
        assert document["bundle"] == phone.bundle.digest


def test_a_body_beyond_the_bundles_limit_is_too_large(phone):
    limit = phone.bundle.manifest.max_observation_bytes
    headers = {"Content-Type": "application/json", **phone.authorization}
    fits, too_large = b" " * limit, b" " * (limit + 1)
    problem(phone.http.post(phone.edits, content=fits, headers=headers), 422, "observation.invalid")
    for content in (too_large, iter([too_large])):
        response = phone.http.post(phone.edits, content=content, headers=headers)
        assert str(limit) in problem(response, 413, "request.too_large")["detail"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/octet-stream", MEDIA_TYPE])
def test_an_unknown_content_type_is_refused(phone, kind):
    headers = phone.authorization | ({"Content-Type": kind} if kind else {})
    response = phone.http.post(phone.edits, content=b"{}", headers=headers)
    assert MEDIA_TYPE_SAFETENSORS in problem(response, 415, "request.media_type")["detail"]


def test_only_representations_that_exist_can_be_accepted(phone, observations):
    problem(phone.ask(observations[0], Accept="text/html"), 406, "request.accept")
    anything = phone.ask(observations[0], Accept="text/html, */*;q=0.1")
    assert anything.headers["Content-Type"] == MEDIA_TYPE


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "token.missing"),
        ("Basic YTpi", "token.missing"),
        ("Bearer", "token.missing"),
        ("Bearer wrong", "token.unknown"),
    ],
)
def test_without_a_known_token_there_is_no_edit(phone, observations, authorization, code):
    response = phone.http.post(
        phone.edits,
        json=to_json(Envelope(phone.bundle.digest, observations[0])),
        headers={"Authorization": authorization} if authorization else {},
    )
    problem(response, 401, code)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_expired_token_is_refused_with_its_time(other_cloud, bundle, observations):
    with other_cloud(token_lifetime=timedelta(milliseconds=50)) as http:
        phone = enrol_at(http, bundle)
        time.sleep(0.06)
        document = problem(phone.ask(observations[0]), 401, "token.expired")
    assert "expired at 20" in document["detail"]


def test_an_unknown_model_is_not_found(phone):
    for path in ("/v1/models/other", "/v1/models/other/bundle/manifest.json"):
        problem(phone.http.get(path), 404, "model.unknown")
    response = phone.http.post("/v1/models/other/edits", headers=phone.authorization)
    assert phone.bundle.manifest.model in problem(response, 404, "model.unknown")["detail"]


def test_the_servers_own_refusals_are_problem_documents_too(http):
    problem(http.get("/nothing"), 404, "request.path")
    problem(http.get("//v1/models"), 404, "request.path")
    response = http.delete("/v1/models")
    assert "GET" in problem(response, 405, "request.method")["detail"]
    assert "GET" in response.headers["Allow"]


def test_every_problem_points_to_its_place_on_the_page(http):
    page = http.get("/docs").text
    document = problem(http.get("/nothing"), 404, "request.path")
    anchor = document["type"].removeprefix("/docs#")
    assert f'id="{anchor}"' in page
