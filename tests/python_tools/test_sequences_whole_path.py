"""Sequences, from a real log to an edited model on a device: MovieLens-100K where it is there."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import packs
import pytest

from persona.bundles import open_bundle
from persona.device.client import CloudClient
from persona.device.device import Device
from persona.device.live import OnEdit
from persona.runs import Run, load_run, save_run
from persona.training.config import load_config
from persona.training.pipeline import open_dataset, train
from persona_cloud import CloudConfig, create_app
from persona_cloud.serving import running
from persona_export.export import Wanted, export_bundle


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path | None]:
    """The preset and its data; the generated log, said loudly, where the real one is absent."""
    if not packs.PACKS.is_dir():
        warnings.warn(f"{packs.PACKS} is not there: a generated log stands in for it", stacklevel=2)
        return "drifting-interests", None
    folder = tmp_path_factory.mktemp("ml-100k")
    packs.movielens_100k(folder)
    return "movielens-100k", folder


@pytest.fixture(scope="module")
def run(log: tuple[str, Path | None], tmp_path_factory: pytest.TempPathFactory) -> Run:
    config, _ = load_config(log[0])
    config = replace(
        config,
        backbone=replace(config.backbone, steps=120, batch=256),
        adapter=replace(config.adapter, devices=400, validation_devices=50, steps=40),
        prototypes=replace(config.prototypes, count=4, steps=20, rule_steps=20),
    )
    data = open_dataset(config, log[1])
    path = tmp_path_factory.mktemp("sequences") / "run"
    trained = train(config, data, None, lambda _: lambda _done, _total: None)
    save_run(trained, data.backbone_settings(), path, None)
    return load_run(path)


def test_a_static_ranker_learns_more_than_chance(run: Run):
    """With 100 candidates, chance is a loss of log 100."""
    assert min(run.record.curves["backbone"].loss) < 0.95 * np.log(100)


def test_a_user_gets_an_edit_for_their_history_and_ranks_with_it(run, log, tmp_path):
    """Item ids go over HTTP, the edit comes back signed, and the runtime's scores move."""
    exported = export_bundle(run, (Wanted("executorch-xnnpack"),), tmp_path / "b", lambda _: None)
    (user,) = open_dataset(run.record.config, log[1]).devices("test", 1, 0)
    query = [column[:1] for column in user.queries]
    with running(create_app(CloudConfig(run=run.path, bundle=exported.path))) as url:
        phone = Device(open_bundle(exported.path), tmp_path / "phone")
        before = phone.predict(query).copy()
        with CloudClient(url, run.model) as cloud:
            came = phone.personalise(cloud, user.window)
    assert isinstance(came.state, OnEdit), came.problem
    after = phone.predict(query)
    assert after.shape == before.shape == (1, 100)
    assert np.abs(after - before).max() > 1e-4
    phone.roll_back()
    np.testing.assert_array_equal(phone.predict(query), before)
