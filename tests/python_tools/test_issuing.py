"""Issued edits are signed, within bounds, and do on the backbone what their probe promises."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from tiny_run import make_bundle

from persona.bundles import Bundle
from persona.formats import slots as wire
from persona.formats.edit import Edit
from persona.formats.errors import FormatError
from persona.formats.observation import Observation
from persona.formats.verify import verify_edit
from persona.issuing import Issued, Issuer, OtherModelError, Request
from persona.runs import load_run, save_run
from persona.training.devices import observe

NOON = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory) -> Bundle:
    return make_bundle(run, tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture(scope="module")
def issuer(run, bundle) -> Issuer:
    return Issuer(run, bundle)


@pytest.fixture(scope="module")
def observations(run, data) -> list[Observation]:
    return observe(run.backbone, run.record.observation, data.devices("test", 8, 5))


@pytest.fixture(scope="module")
def requests(observations) -> list[Request]:
    return [Request(f"device-{i}", i + 1, o) for i, o in enumerate(observations)]


@pytest.fixture(scope="module")
def issued(issuer, requests) -> list[Issued]:
    return issuer.issue(requests, NOON)


def opened(bundle: Bundle, answer: Issued, request: Request) -> Edit:
    """The edit as its device accepts it."""
    expectation = bundle.expectation(request.device, request.sequence - 1)
    return verify_edit(answer.data, answer.signature, bundle.edit_keys(), expectation, NOON)


def test_each_device_can_verify_its_edit_and_no_other_devices(bundle, requests, issued):
    for index, (request, answer) in enumerate(zip(requests, issued, strict=True)):
        edit = opened(bundle, answer, request)
        assert edit.info == answer.info
        assert (edit.info.device, edit.info.sequence) == (request.device, request.sequence)
        assert (edit.info.model, edit.info.bundle) == (bundle.manifest.model, bundle.digest)
        with pytest.raises(FormatError):
            opened(bundle, answer, requests[index - 1])


def test_an_edit_holds_for_its_lifetime_in_whole_seconds(run, bundle, requests):
    issuer = Issuer(run, bundle, lifetime=timedelta(hours=3))
    (answer,) = issuer.issue(requests[:1], NOON)
    assert answer.info.issued_at == NOON.replace(microsecond=0)
    assert answer.info.expires_at == answer.info.issued_at + timedelta(hours=3)


def test_the_probe_is_the_answer_of_a_copied_backbone_edited_by_hand(run, bundle, requests, issued):
    """Base + prototype + edit from the bundle's and the edit's bytes, in NumPy."""
    image = torch.from_numpy(bundle.golden.inputs[0]["image"].copy())
    answers = []
    for request, answer in zip(requests, issued, strict=True):
        edit = opened(bundle, answer, request)
        prototype = bundle.prototypes.changes[edit.info.prototype]
        values = wire.effective(bundle.manifest.slots, bundle.base, prototype, edit.tensors)
        model = copy.deepcopy(run.backbone)
        for name, value in values.items():
            model.get_parameter(name).data = torch.from_numpy(value.copy())
        with torch.no_grad():
            expected = model(image).numpy()
        np.testing.assert_allclose(edit.probe, expected, rtol=1e-5, atol=1e-5)
        answers.append(edit.probe)
    assert np.std(answers, axis=0).max() > 1e-2, "devices get different answers"


def test_values_are_half_precision_and_within_bounds(bundle, requests, issued):
    for request, answer in zip(requests, issued, strict=True):
        tensors = opened(bundle, answer, request).tensors
        for slot in bundle.manifest.slots:
            for suffix, limit in slot.limits().items():
                value = tensors[f"{slot.name}.{suffix}"]
                assert np.abs(value).max() <= np.float32(limit)
                np.testing.assert_array_equal(value, value.astype(np.float16).astype(np.float32))


def test_the_edit_is_the_adapters_beside_the_devices_prototype(run, bundle, requests, issued):
    rows = np.stack([r.observation.vector() for r in requests])
    with torch.no_grad():
        whole, codes = run.adapter(torch.from_numpy(rows))
    for i, (request, answer) in enumerate(zip(requests, issued, strict=True)):
        edit = opened(bundle, answer, request)
        prototype = bundle.prototypes.changes[edit.info.prototype]
        for name, value in edit.tensors.items():
            np.testing.assert_allclose(
                prototype[name] + value, whole[name][i], rtol=1e-3, atol=1e-3
            )
        np.testing.assert_array_equal(answer.latent, codes[i].flatten())


def test_a_device_alone_gets_the_edit_that_it_gets_in_company(issuer, bundle, requests, issued):
    for request, together in zip(requests, issued, strict=True):
        (alone,) = issuer.issue([request], NOON)
        one, other = opened(bundle, alone, request), opened(bundle, together, request)
        assert one.info == other.info
        for name, value in one.tensors.items():
            np.testing.assert_allclose(value, other.tensors[name], rtol=2e-3, atol=1e-4)


def test_eight_threads_get_what_one_gets(issuer, requests):
    """ECDSA signatures are random, so the signed bytes are compared."""
    expected = [issuer.issue([request], NOON)[0].data for request in requests]
    wanted = requests * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda request: issuer.issue([request], NOON)[0].data, wanted))
    assert found == expected * 8


def test_issuing_leaves_the_backbone_as_it_was(run, issuer, requests):
    before = {name: value.clone() for name, value in run.backbone.state_dict().items()}
    issuer.issue(requests, NOON)
    assert all(torch.equal(v, before[n]) for n, v in run.backbone.state_dict().items())


def test_a_bundle_of_another_run_is_refused_with_what_to_do(trained, data, bundle, tmp_path):
    other = copy.deepcopy(trained.backbone)
    with torch.no_grad():
        other.head[0].weight[0, 0] += 1
    save_run(replace(trained, backbone=other), data.backbone_settings(), tmp_path / "other", None)
    run = load_run(tmp_path / "other")
    with pytest.raises(OtherModelError, match=rf"{bundle.manifest.model}.*export this run again"):
        Issuer(run, bundle)
