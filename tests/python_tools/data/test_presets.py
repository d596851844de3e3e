"""Presets fit their data: their settings open files as they are published, the larger in part."""

from pathlib import Path

import numpy as np
import packs
import pytest

from persona.data import datasets
from persona.training.config import load_config
from persona.training.pipeline import build_backbone

PRESETS = {
    "cifar10": "cifar-10",
    "mnist-writers": "mnist-writers",
    "motion-sense": "motion-sense",
    "motion-sense-habits": "motion-sense",
}
LOGS = {
    "movielens-100k": "movielens",
    "movielens-new-session-1": "movielens",
    "movielens-new-session-3": "movielens",
    "movielens-full-window": "movielens",
    "amazon-beauty": "amazon-reviews",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The data sets in their official formats, the larger ones in part."""
    if not packs.PACKS.is_dir():
        pytest.skip(f"the real data are not at {packs.PACKS}")
    out = tmp_path_factory.mktemp("presets")
    return {
        "cifar-10": packs.cifar10(out / "cifar", each=700),
        "mnist-writers": packs.mnist(out / "mnist"),
        "motion-sense": packs.motion_sense(out / "motion", rows=2200),
    }


@pytest.mark.parametrize(("name", "data_name"), PRESETS.items())
def test_the_preset_opens_its_data_and_its_backbone_takes_them(folders, name, data_name):
    config, _ = load_config(name)
    assert config.data.name == data_name
    data = datasets[data_name](folders[data_name], **config.data.settings)
    backbone = build_backbone(config, data.backbone_settings(), None)
    (device,) = data.devices("test", 1, 0)
    assert [spec.shape[1:] for spec in backbone.input_specs()] == [device.window[0].shape[1:]]
    asked = config.adapter.validation_devices
    assert len(data.devices("validation", asked, 1000)) == asked
    assert np.any(np.asarray(data.scenario.habits) > 0) == (name != "motion-sense")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MovieLens-100K for all sizes of MovieLens, and Amazon's reviews."""
    out = {name: tmp_path_factory.mktemp(name) for name in ("movielens", "amazon-reviews")}
    packs.movielens_100k(out["movielens"])
    packs.amazon_beauty(out["amazon-reviews"])
    return out


@pytest.mark.parametrize(("name", "data_name"), LOGS.items())
def test_the_preset_of_a_log_opens_its_data_and_its_backbone_takes_them(logs, name, data_name):
    config, _ = load_config(name)
    assert config.data.name == data_name
    data = datasets[data_name](logs[data_name], **config.data.settings)
    assert data.faults == ()
    backbone = build_backbone(config, data.backbone_settings(), None)
    (device,) = data.devices("test", 1, 0)
    asked = [spec.shape[1:] for spec in backbone.input_specs()]
    assert asked[0] == device.queries[0].shape[1:]
