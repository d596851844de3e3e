"""A tiny trained run with its bundle, and the cloud that serves them over real HTTP."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from cloud_phone import Phone, enrol_at
from tiny_run import CONFIG, make_bundle, make_run

from persona.bundles import Bundle
from persona.formats.observation import Observation
from persona.runs import Run
from persona.training.devices import observe
from persona.training.pipeline import open_dataset
from persona_cloud import CloudConfig, create_app
from persona_cloud.serving import running


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(run, tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture(scope="session")
def observations(run: Run) -> list[Observation]:
    """What eight test devices would upload."""
    devices = open_dataset(CONFIG, None).devices("test", 8, 0)
    return observe(run.backbone, run.record.observation, devices)


@pytest.fixture(scope="session")
def config(run: Run, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> CloudConfig:
    file = tmp_path_factory.mktemp("state") / "cloud.sqlite"
    return CloudConfig(run.path, bundle.path, f"sqlite:///{file}")


@pytest.fixture(scope="session")
def http(config: CloudConfig) -> Iterator[httpx.Client]:
    with running(create_app(config)) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def enrol(http: httpx.Client, bundle: Bundle) -> Callable[[], Phone]:
    return lambda: enrol_at(http, bundle)


@pytest.fixture
def phone(enrol: Callable[[], Phone]) -> Phone:
    return enrol()


@pytest.fixture
def other_cloud(
    config: CloudConfig, tmp_path: Path
) -> Callable[..., AbstractContextManager[httpx.Client]]:
    """A cloud of its own, with an empty database and changes to the configuration."""

    @contextmanager
    def cloud(**changes: object) -> Iterator[httpx.Client]:
        empty = f"sqlite:///{tmp_path / 'other.sqlite'}"
        app = create_app(replace(config, **{"database_url": empty, **changes}))
        with running(app) as url, httpx.Client(base_url=url) as client:
            yield client

    return cloud
