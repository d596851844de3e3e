"""Observations come in over HTTP, and the right device gets the right edit, signed."""

import base64
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import numpy as np
import pytest
import torch
from cloud_phone import enrol_at, problem
from databases import driver, everything_in, rows
from sqlalchemy import create_engine, text

from persona.formats.edit import MEDIA_TYPE
from persona.formats.errors import Code, FormatError
from persona.formats.observation import Envelope, to_json
from persona.issuing import Issuer
from persona.method.slots import applied
from persona.training.devices import encoder_input


@pytest.fixture(scope="module")
def eager(run):
    """Edit, prototype and latent for an observation, straight from the adapter and the bank."""

    def compute(observation):
        row = encoder_input(run.record.observation, observation)
        with torch.no_grad():
            whole, codes = run.adapter.eval()(torch.from_numpy(row)[None])
            prototype = run.bank.assign(whole)
            relative = run.bank.relative(whole, prototype)
        return {n: v[0].numpy() for n, v in relative.items()}, int(prototype), codes.flatten()

    return compute


def test_an_edit_over_http_verifies_and_holds_what_the_adapter_computes(phone, observations, eager):
    for index, observation in enumerate(observations[:3]):
        edit = phone.verify(phone.ask(observation), sequence=index)
        expected, prototype, _ = eager(observation)
        assert edit.info.prototype == prototype
        assert set(edit.tensors) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(edit.tensors[name], values, rtol=1e-3, atol=1e-7)


def test_different_windows_give_different_edits(phone, observations):
    one, other = (phone.verify(phone.ask(o)).tensors for o in observations[:2])
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_the_probe_is_what_the_edited_backbone_makes_of_the_golden_input(
    phone, observations, run, bundle
):
    edit = phone.verify(phone.ask(observations[0]))
    prototype = bundle.prototypes.changes[edit.info.prototype]
    change = {n: torch.from_numpy(prototype[n] + v) for n, v in edit.tensors.items()}
    with applied(run.backbone, run.record.slots, change), torch.no_grad():
        output = run.backbone(torch.from_numpy(bundle.golden.inputs[0]["image"]))
    np.testing.assert_allclose(edit.probe, output.numpy(), rtol=1e-4, atol=1e-5)
    assert not np.array_equal(edit.probe, bundle.golden.base[0])


def test_the_headers_say_what_the_signed_bytes_say(phone, observations):
    response = phone.ask(observations[0])
    info, said = phone.verify(response).info, response.headers
    assert said["Content-Type"] == MEDIA_TYPE
    assert int(said["Persona-Sequence"]) == info.sequence == 1
    assert parsedate_to_datetime(said["Expires"]) == info.expires_at
    assert said["ETag"] == f'"{hashlib.sha256(response.content).hexdigest()}"'


def test_json_and_safetensors_observations_make_the_same_edit(phone, observations):
    as_file, as_json = phone.ask(observations[0]), phone.ask_json(observations[0])
    one, other = phone.verify(as_file), phone.verify(as_json)
    for name, values in one.tensors.items():
        np.testing.assert_array_equal(values, other.tensors[name])


def test_an_edit_as_json_carries_the_very_bytes_that_were_signed(phone, observations):
    key = {"Idempotency-Key": "one"}
    as_file = phone.ask(observations[0], **key)
    as_json = phone.ask(observations[0], Accept="application/json", **key)
    document = as_json.json()
    assert base64.b64decode(document["edit"]) == as_file.content
    assert document["signature"] == as_file.headers["Persona-Signature"]
    assert document["device"] == phone.device
    assert as_json.headers["ETag"] != as_file.headers["ETag"]


def test_absurd_but_finite_statistics_still_make_an_edit_within_bounds(phone, observations):
    good = observations[0]
    for name in ("mean", "deviation", "class_prior"):
        absurd = replace(good, **{name: np.full_like(getattr(good, name), -3e38)})
        phone.verify(phone.ask(absurd))


def test_sequences_grow_by_one(phone, observations):
    sequences = [phone.verify(phone.ask(observations[0])).info.sequence for _ in range(4)]
    assert sequences == [1, 2, 3, 4]


def test_an_edit_expires_when_the_host_says(other_cloud, bundle, observations):
    with other_cloud(edit_lifetime=timedelta(hours=2)) as http:
        phone = enrol_at(http, bundle)
        info = phone.verify(phone.ask(observations[0])).info
    assert info.expires_at - info.issued_at == timedelta(hours=2)


def test_a_repeated_request_gets_the_identical_answer(phone, observations):
    first, second = (phone.ask(observations[0], **{"Idempotency-Key": "a"}) for _ in range(2))
    assert second.content == first.content
    assert second.headers["Persona-Signature"] == first.headers["Persona-Signature"]
    assert phone.verify(phone.ask(observations[0])).info.sequence == 2


def test_a_request_sent_many_times_at_once_is_answered_once(phone, observations, config):
    def ask(_):
        return phone.ask(observations[0], **{"Idempotency-Key": "b"}).content

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(ask, range(12)))) == 1
    query = "SELECT count(*) FROM issued_edits WHERE device = :device"
    assert rows(config.database, query, device=phone.device) == [(1,)]


def test_a_key_used_for_another_request_is_refused(phone, observations):
    phone.ask(observations[0], **{"Idempotency-Key": "c"})
    response = phone.ask(observations[1], **{"Idempotency-Key": "c"})
    problem(response, 422, "idempotency.other_request")


def test_a_key_is_free_again_when_its_edit_has_expired(other_cloud, bundle, observations):
    with other_cloud(edit_lifetime=timedelta(seconds=1)) as http:
        phone = enrol_at(http, bundle)
        first = phone.ask(observations[0], **{"Idempotency-Key": "d"})
        time.sleep(1.1)
        second = phone.ask(observations[1], **{"Idempotency-Key": "d"})
    assert (first.headers["Persona-Sequence"], second.headers["Persona-Sequence"]) == ("1", "2")


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "tab\there"])
def test_an_unusable_key_is_refused(phone, observations, key):
    response = phone.ask(observations[0], **{"Idempotency-Key": key})
    problem(response, 400, "request.idempotency_key")


def test_one_devices_key_and_token_give_nothing_of_anothers(enrol, observations):
    mine, theirs = enrol(), enrol()
    key = {"Idempotency-Key": "shared"}
    first, second = mine.ask(observations[0], **key), theirs.ask(observations[0], **key)
    assert mine.verify(first).info.device != theirs.verify(second).info.device
    with pytest.raises(FormatError) as refused:
        mine.verify(second)
    assert refused.value.code == Code.OTHER_DEVICE


def test_devices_that_ask_at_once_each_get_their_own(enrol, observations, eager):
    phones = [enrol() for _ in range(4)]
    asked = [(phone, observation) for phone in phones for observation in observations[:6]]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: pair[0].ask(pair[1]), asked))
    sequences = {phone.device: [] for phone in phones}
    for (phone, observation), response in zip(asked, answers, strict=True):
        edit = phone.verify(response)
        sequences[phone.device].append(edit.info.sequence)
        for name, values in eager(observation)[0].items():
            np.testing.assert_allclose(edit.tensors[name], values, rtol=1e-3, atol=1e-7)
    assert all(sorted(given) == [1, 2, 3, 4, 5, 6] for given in sequences.values())


def test_the_latent_is_kept_and_the_observation_is_not(phone, observations, eager, config):
    observation = observations[5]
    phone.ask(observation)
    phone.ask_json(observation)
    query = "SELECT latent FROM issued_edits WHERE device = :device"
    for (stored,) in rows(config.database, query, device=phone.device):
        latent = np.frombuffer(stored, "<f4")
        np.testing.assert_allclose(latent, eager(observation)[2].numpy(), rtol=1e-5, atol=1e-6)
    written = everything_in(config.database)
    assert phone.device.encode() in written
    assert observation.mean.tobytes() not in written
    assert json.dumps(to_json(Envelope("", observation))["mean"])[1:60].encode() not in written


def test_a_failure_inside_tells_nothing_and_leaves_nothing_half_done(
    phone, observations, config, monkeypatch
):
    def fail(*_):
        raise RuntimeError("adapter.safetensors at some private place")

    with monkeypatch.context() as broken:
        broken.setattr(Issuer, "compute", fail)
        response = phone.ask(observations[0], **{"Idempotency-Key": "e"})
    assert "private" not in problem(response, 500, "server.failed")["detail"]
    for table in ("issued_edits", "kept_answers"):
        query = f"SELECT * FROM {table} WHERE device = :device"
        assert not rows(config.database, query, device=phone.device)
    again = phone.ask(observations[0], **{"Idempotency-Key": "e"})
    assert phone.verify(again).info.issued_at <= datetime.now(UTC)


def test_a_busy_database_is_a_reason_to_try_later(
    other_cloud, bundle, observations, url, monkeypatch
):
    monkeypatch.setattr("persona_cloud.database.BUSY_SECONDS", 0.1)
    if url.startswith("postgresql"):
        pytest.skip("PostgreSQL's writers wait for rows, not for the database")
    with other_cloud() as http:
        phone = enrol_at(http, bundle)
        engine = create_engine(driver(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as another:
            another.execute(text("BEGIN IMMEDIATE"))
            response = phone.ask(observations[0])
            another.execute(text("ROLLBACK"))
        problem(response, 503, "server.store")
        assert response.headers["Retry-After"] == "1"
        assert phone.verify(phone.ask(observations[0])).info.sequence == 1
