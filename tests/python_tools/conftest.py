"""A tiny trained run on the embedded digits, shared by every test that needs a trained system."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from persona.data import Dataset
from persona.runs import Run, load_run, save_run
from persona.training.config import (
    AdapterConfig,
    BackboneConfig,
    DataConfig,
    PrototypeConfig,
    RunConfig,
)
from persona.training.devices import DeviceTensors, to_tensors
from persona.training.pipeline import Trained, open_dataset, train


@pytest.fixture(autouse=True, scope="session")
def one_thread_for_all() -> Iterator[None]:
    """Small tensors run many times slower on several threads when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def config() -> RunConfig:
    return RunConfig(
        "tiny",
        DataConfig("digits", {"window": 20, "queries": 10, "rotation": 30.0}),
        BackboneConfig(
            "image-net",
            {"width": 8, "hidden": 12},
            steps=400,
            batch=64,
            learning_rate=5e-3,
            checks=4,
        ),
        AdapterConfig(
            devices=300,
            validation_devices=40,
            latent=8,
            hidden=32,
            dropout=0.2,
            steps=150,
            learning_rate=1e-3,
            weight_decay=0.1,
            checks=5,
            strength=True,
        ),
        PrototypeConfig(count=3, steps=20),
    )


@pytest.fixture(scope="session")
def data(config: RunConfig) -> Dataset:
    return open_dataset(config, None)


@pytest.fixture(scope="session")
def trained(config: RunConfig, data: Dataset) -> Trained:
    """The result of every stage; tests must not change it."""
    return train(config, data, None, lambda _: lambda _done, _all: None)


@pytest.fixture(scope="session")
def run(trained: Trained, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same, saved and loaded; tests must not change it or its folder."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    save_run(trained, data.backbone_settings(), path, None)
    return load_run(path)


@pytest.fixture(scope="session")
def unseen(run: Run, data: Dataset) -> DeviceTensors:
    """Twelve test devices."""
    devices = data.devices("test", 12, 5)
    return to_tensors(run.backbone, run.record.slots, run.record.observation, devices)


@pytest.fixture(scope="session")
def far_apart(run: Run) -> Run:
    """The run with group edits far from each other and a rule that chooses all of them."""
    generator = torch.Generator().manual_seed(8)
    bank = copy.deepcopy(run.bank)
    for index in range(bank.count):
        values = {
            f"{s.name}.{x}": s.limits()[x] * (2 * torch.rand(shape, generator=generator) - 1)
            for s in run.record.slots
            for x, shape in s.tensors().items()
        }
        bank.set_group(index, values)
    rule = replace(run.rule, weight=torch.randn(run.rule.weight.shape, generator=generator))
    return replace(run, bank=bank, rule=rule)


@pytest.fixture
def copied_run(run: Run, tmp_path: Path) -> Path:
    """A copy of the run's folder that a test may damage."""
    path = tmp_path / "copied"
    path.mkdir()
    for file in run.path.iterdir():
        if file.is_file():
            (path / file.name).write_bytes(file.read_bytes())
    return path
