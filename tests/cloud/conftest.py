"""A tiny trained run with its bundle, and the cloud that serves them over real HTTP.

Whatever uses a database runs twice: on SQLite and on a real PostgreSQL.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from cloud_phone import Phone, enrol_at
from databases import MakeDatabase, postgresql_at, sqlite_in
from edits_alone import EditsAlone, edits_alone
from servers import data_folder, free_port, postgresql, redis
from tiny_run import CONFIG, make_bundle, make_run

from persona.bundles import Bundle
from persona.formats.observation import Observation
from persona.runs import Run
from persona.training.devices import observe
from persona.training.pipeline import open_dataset
from persona_cloud import CloudConfig, create_app
from persona_cloud.config import Quotas
from persona_cloud.serving import running

UNLIMITED = Quotas(None, None, None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes; runs with PERSONA_SLOW=1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PERSONA_SLOW" not in os.environ:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="NOT RUN: slow, needs PERSONA_SLOW=1"))


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
def alone(run: Run, bundle: Bundle) -> EditsAlone:
    """What each of a thousand devices must get."""
    return edits_alone(run, bundle, 1000)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    with data_folder() as folder, postgresql(folder, free_port()) as url:
        yield url


@pytest.fixture
def postgresql_folder() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[tuple[str, object]]:
    with redis(tmp_path) as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def make_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> MakeDatabase:
    if request.param == "postgresql":
        return postgresql_at(request.getfixturevalue("postgresql_server"))
    return sqlite_in(tmp_path_factory.mktemp("state"))


@pytest.fixture
def url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture(scope="session")
def config(run: Run, bundle: Bundle, make_database: MakeDatabase) -> CloudConfig:
    return CloudConfig(run.path, bundle.path, make_database(), quotas=UNLIMITED)


@pytest.fixture(scope="session")
def http(config: CloudConfig) -> Iterator[httpx.Client]:
    with (
        running(create_app(config)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def enrol(http: httpx.Client, bundle: Bundle) -> Callable[[], Phone]:
    return lambda: enrol_at(http, bundle)


@pytest.fixture
def phone(enrol: Callable[[], Phone]) -> Phone:
    return enrol()


@pytest.fixture
def other_cloud(
    config: CloudConfig, url: str
) -> Callable[..., AbstractContextManager[httpx.Client]]:
    """A cloud of its own, with an empty database and changes to the configuration."""

    @contextmanager
    def cloud(**changes: object) -> Iterator[httpx.Client]:
        app = create_app(replace(config, **{"database_url": url, **changes}))
        with running(app) as address, httpx.Client(base_url=address, timeout=60) as client:
            yield client

    return cloud
