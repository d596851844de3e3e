"""Attacks by an enrolled device on another one."""

from dataclasses import replace

import pytest
from cloud_phone import enrol_at, problem

from persona.formats.errors import Code, FormatError
from persona_cloud.config import Quotas


def test_a_token_renews_no_other_device(enrol, observations):
    attacker, victim = enrol(), enrol()
    place = f"/v1/devices/{victim.device}/token"
    problem(victim.http.post(place, headers=attacker.authorization), 403, "token.other_device")
    victim.verify(victim.ask(observations[0]))


def test_the_idempotency_key_of_another_device_gives_nothing_of_it(enrol, observations):
    attacker, victim = enrol(), enrol()
    key = {"Idempotency-Key": "victims"}
    theirs, mine = victim.ask(observations[0], **key), attacker.ask(observations[0], **key)
    assert attacker.verify(mine).info.device == attacker.device
    assert mine.content != theirs.content


def test_an_observation_cannot_name_the_device_that_it_is_for(enrol, observations):
    attacker, victim = enrol(), enrol()
    response = attacker.ask_json(observations[0], device=victim.device)
    problem(response, 422, "observation.invalid")


def test_an_edit_of_another_device_is_refused_by_the_device(enrol, observations):
    attacker, victim = enrol(), enrol()
    with pytest.raises(FormatError) as refused:
        victim.verify(attacker.ask(observations[0]))
    assert refused.value.code == Code.OTHER_DEVICE


def test_a_greedy_device_does_not_spend_the_quota_of_another(other_cloud, bundle, observations):
    with other_cloud(quotas=Quotas(edits_per_device="1/hour")) as http:
        attacker, victim = enrol_at(http, bundle), enrol_at(http, bundle)
        attacker.ask(observations[0])
        pretending = replace(attacker, device=victim.device)
        problem(pretending.ask(observations[0]), 429, "request.too_many")
        victim.verify(victim.ask(observations[0]))
