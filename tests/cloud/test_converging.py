"""Real devices over ExecuTorch get to the version that they shall have, whatever they missed."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from persona.bundles import Bundle, open_bundle
from persona.device.client import CloudClient
from persona.device.device import Device
from persona.device.live import OnEdit
from persona.device.updating import personalise_updated
from persona.formats import container
from persona.training.pipeline import open_dataset
from persona_cloud import CloudConfig, create_app
from persona_cloud.config import Quotas
from persona_cloud.service import service_of
from persona_cloud.serving import running


@pytest.fixture
def versions(digits_run, digits_bundle, resigned, tmp_path):
    """Bundles of three versions; the last one's golden outputs are not what its program gives."""
    golden = digits_bundle.manifest.golden
    tensors, metadata = container.decode((digits_bundle.path / golden).read_bytes())
    arrays = {name: tensor.array() for name, tensor in tensors.items()}
    arrays["base.0"] = arrays["base.0"] + np.float32(1.0)
    made = tmp_path / "made"
    made.mkdir()
    return {
        name: resigned(digits_bundle, digits_run, made / name, files, created_at=name)
        for name, files in {
            "second": {},
            "third": {},
            "bad": {golden: container.encode(arrays, metadata)},
        }.items()
    }


@pytest.fixture
def cloud(digits_run, digits_bundle, tmp_path):
    @contextmanager
    def start():
        url, quotas = f"sqlite:///{tmp_path / 'cloud.sqlite'}", Quotas(None, None, None)
        app = create_app(CloudConfig(digits_run.path, digits_bundle.path, url, quotas=quotas))
        with running(app) as address:
            yield service_of(app).versions, CloudClient(address, digits_run.model)

    return start


@pytest.fixture
def window(digits_run):
    (user,) = open_dataset(digits_run.record.config, None).devices("test", 1, 0)
    return [part.numpy() if isinstance(part, torch.Tensor) else part for part in user.window]


def roll_out(versions, run, bundle: Bundle, percent=100.0, min_reports=1, promote=True):
    versions.publish(run.path, bundle.path, "operator")
    versions.rollouts.start(bundle.digest, percent, 0.0, min_reports, by="operator", revision=None)
    if promote:
        versions.rollouts.promote(by="operator", revision=None)
    versions.look_again()


def test_a_device_that_missed_a_version_goes_to_the_newest_and_stays_who_it_is(
    cloud, versions, digits_run, digits_bundle, window, tmp_path
):
    shelf = tmp_path / "shelf"
    with cloud() as (served, client), client:
        phone = Device(digits_bundle, tmp_path / "phone")
        phone, came = personalise_updated(phone, client, window, shelf)
        assert came.problem is None
        assert phone.bundle.digest == digits_bundle.digest
        roll_out(served, digits_run, versions["second"])
        roll_out(served, digits_run, versions["third"])
        who, sequence = phone.store.state.device, phone.store.state.sequence
        phone, came = personalise_updated(phone, client, window, shelf)
        assert came.problem is None
        assert phone.bundle.digest == versions["third"].digest
        assert isinstance(phone.live.state, OnEdit)
        assert phone.store.state.device == who
        assert phone.store.state.sequence > sequence
        assert [path.name for path in shelf.iterdir()] == [versions["third"].digest]
        served.rollouts.roll_back(by="operator", revision=None)
        served.look_again()
        phone, came = personalise_updated(phone, client, window, shelf)
        assert came.problem is None
        assert phone.bundle.digest == versions["second"].digest
    restarted = Device(open_bundle(shelf / phone.bundle.digest), tmp_path / "phone")
    assert isinstance(restarted.live.state, OnEdit)


def test_a_version_that_fails_on_devices_stops_and_they_go_on_with_what_they_had(
    cloud, versions, digits_run, digits_bundle, window, tmp_path
):
    with cloud() as (served, client), client:
        phones = [Device(digits_bundle, tmp_path / f"phone {i}") for i in range(3)]
        for phone in phones:
            assert phone.personalise(client, window).problem is None
        roll_out(served, digits_run, versions["bad"], min_reports=3, promote=False)
        for phone in phones:
            same, came = personalise_updated(phone, client, window, tmp_path / "shelf")
            assert same is phone
            assert came.problem is None, "it has an edit for the version that it runs"
            assert isinstance(phone.live.state, OnEdit)
        assert "3 of 3 devices" in served.rollouts.line().stopped_because
        served.look_again()
        again = phones[0].personalise(client, window)
        assert again.wanted == digits_bundle.digest


def test_a_fetched_version_that_was_tampered_with_is_not_used(
    cloud, versions, digits_run, digits_bundle, window, tmp_path, monkeypatch
):
    with cloud() as (served, client), client:
        phone = Device(digits_bundle, tmp_path / "phone")
        roll_out(served, digits_run, versions["second"])
        fetch = client.file

        def tampered(version, name):
            data = fetch(version, name)
            return data[:-1] + b"x" if name == digits_bundle.manifest.prototypes else data

        monkeypatch.setattr(client, "file", tampered)
        same, _ = personalise_updated(phone, client, window, tmp_path / "shelf")
        assert same is phone
        assert list((tmp_path / "shelf").iterdir()) == []
