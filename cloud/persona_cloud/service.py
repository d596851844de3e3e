"""What request handlers share: versions, keys, the store, and the host's decisions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import flask

from persona.issuing import Computed
from persona.runs import load_run
from persona_cloud.batching import Batcher, Places
from persona_cloud.config import CloudConfig
from persona_cloud.metrics import Metrics
from persona_cloud.quotas import QuotaKeeper
from persona_cloud.signing_keys import SigningKeys
from persona_cloud.store import AWAY, SignedEdit, Store, Wish
from persona_cloud.versions import Observed, Versions, compute

_EXTENSION = "persona_cloud"


@dataclass(frozen=True)
class Service:
    """One process's models and state.

    computing, issuing: what the requests that are under way, as many as `places`, do together:
    a forward, then a transaction. While one batch is written, the next one is computed.
    """

    config: CloudConfig
    versions: Versions
    keys: SigningKeys
    places: Places
    computing: Batcher[Observed, Computed]
    issuing: Batcher[Wish, SignedEdit]
    store: Store
    quotas: QuotaKeeper
    metrics: Metrics


def open_service(config: CloudConfig) -> Service:
    """Load and check everything that a request needs.

    Raises RunError, FormatError, OtherModelError, KeyNotInBundleError, SigningKeyError,
    StoreError, or ValueError for an unreadable quota.
    """
    run = load_run(config.run)
    quotas, store = QuotaKeeper(config.quotas), Store(config.database)
    keys = SigningKeys(store, config.run / "keys")
    versions = Versions(config, store, keys, run)
    metrics, limits = Metrics(), config.limits

    def make(requests: Sequence[Observed]) -> list[Computed]:
        start = time.perf_counter()
        made = compute(requests)
        metrics.adapter_seconds.observe(time.perf_counter() - start)
        metrics.batch.observe(len(requests))
        return made

    return Service(
        config,
        versions,
        keys,
        Places(limits.max_waiting),
        Batcher(make, limits.max_batch),
        Batcher(store.issue, limits.max_batch, shared=AWAY),
        store,
        quotas,
        metrics,
    )


def install(app: flask.Flask, service: Service) -> None:
    """Give the service to the app."""
    app.extensions[_EXTENSION] = service


def service_of(app: flask.Flask) -> Service:
    """The service of an app."""
    service: Service = app.extensions[_EXTENSION]
    return service


def service() -> Service:
    """The service of the app that is handling this request."""
    return service_of(flask.current_app)
