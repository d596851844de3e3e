"""Requests that come together share a forward, and nobody waits for company or gets another's."""

import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np
import pytest
from cloud_phone import enrol_at, problem
from databases import rows
from held import Held
from load import until

from persona.bundles import open_bundle
from persona.issuing import Issuer, Request
from persona_cloud.batching import Batcher, BusyError, Places
from persona_cloud.config import Limits


@pytest.fixture(scope="module")
def issuer(run, bundle):
    return Issuer(run, open_bundle(bundle.path))


def request_of(observations, index):
    return Request(f"device {index}", index + 1, observations[index % len(observations)])


def test_a_request_alone_is_made_at_once_by_its_own_thread(issuer, observations):
    threads = []

    def make(requests):
        threads.append(threading.current_thread())
        return issuer.issue(requests)

    batcher = Batcher(make, max_batch=32)
    for index in range(3):
        batcher.answer(request_of(observations, index))
    assert threads == [threading.current_thread()] * 3


def test_those_who_come_during_a_forward_share_the_next(issuer, observations):
    making = Held(issuer.issue)
    batcher = Batcher(making.called, max_batch=4)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.answer, request_of(observations, 0))
        assert making.begun.acquire(timeout=60)
        others = [pool.submit(batcher.answer, request_of(observations, i)) for i in range(1, 7)]
        until(lambda: len(batcher._queue) == 6)
        making.open.set()
        answers = [first.result(10), *(other.result(10) for other in others)]
    assert making.sizes == [1, 4, 2]
    assert [answer.info.sequence for answer in answers] == list(range(1, 8))


def test_a_request_that_fails_fails_alone(issuer, observations):
    good = request_of(observations, 1)
    bad = replace(good, observation=replace(good.observation, mean=np.zeros(1, np.float32)))
    making = Held(issuer.issue)
    batcher = Batcher(making.called, max_batch=8)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batcher.answer, good)
        assert making.begun.acquire(timeout=60)
        others = [pool.submit(batcher.answer, request) for request in (good, bad, good)]
        until(lambda: len(batcher._queue) == 3)
        making.open.set()
        failures = [future.exception(10) for future in (first, *others)]
    assert [failure is not None for failure in failures] == [False, False, True, False]
    assert batcher.answer(good).info.device == good.device


def test_where_no_request_is_to_blame_all_fail_at_once_and_none_is_tried_again():
    def away(_):
        raise ConnectionError

    making = Held(away)
    batcher = Batcher(making.called, max_batch=8, shared=(ConnectionError,))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batcher.answer, 0)
        assert making.begun.acquire(timeout=60)
        others = [pool.submit(batcher.answer, number) for number in range(1, 4)]
        until(lambda: len(batcher._queue) == 3)
        making.open.set()
        failures = [future.exception(10) for future in (first, *others)]
    assert [type(failure) for failure in failures] == [ConnectionError] * 4
    assert making.sizes == [1, 3]


def test_an_edit_made_from_anothers_observation_is_never_handed_out(
    other_cloud, bundle, observations, url, monkeypatch
):
    def confused(self, _):
        return compute_one(self, [observations[1]])

    compute_one = Issuer.compute
    with other_cloud() as http:
        phone = enrol_at(http, bundle)
        with monkeypatch.context() as broken:
            broken.setattr(Issuer, "compute", confused)
            problem(phone.ask(observations[0]), 500, "server.failed")
        assert rows(url, "SELECT * FROM issued_edits") == []
        assert phone.verify(phone.ask(observations[0])).info.sequence == 1


def test_there_are_only_so_many_places():
    places = Places(2)
    with places.take(), places.take(), pytest.raises(BusyError), places.take():
        pass
    with places.take():
        pass


def test_an_overloaded_cloud_says_when_to_come_again_and_recovers(
    other_cloud, bundle, observations, monkeypatch
):
    making = Held(Issuer.compute)
    monkeypatch.setattr(Issuer, "compute", making.called)
    with other_cloud(limits=Limits(max_waiting=2)) as http, ThreadPoolExecutor(3) as pool:
        phone = enrol_at(http, bundle)
        asked = [pool.submit(phone.ask, observations[0]) for _ in range(3)]
        done, held_back = wait(asked, timeout=60, return_when=FIRST_COMPLETED)
        making.open.set()
        (refused,) = (answer.result() for answer in done)
        problem(refused, 503, "server.busy")
        assert refused.headers["Retry-After"] == "1"
        sequences = {phone.verify(answer.result(60)).info.sequence for answer in held_back}
        assert len(sequences) == 2
        assert phone.verify(phone.ask(observations[1])).info.sequence > max(sequences)
