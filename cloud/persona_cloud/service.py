"""What request handlers share: versions, keys, the store, and the host's decisions."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import flask

from persona.runs import load_run
from persona_cloud.batching import Batcher, Places
from persona_cloud.config import CloudConfig
from persona_cloud.metrics import Metrics
from persona_cloud.quotas import QuotaKeeper
from persona_cloud.signing_keys import SigningKeys
from persona_cloud.store import AWAY, Idempotency, SignedEdit, Store, Wish
from persona_cloud.versions import Observed, Versions, compute

_EXTENSION = "persona_cloud"


@dataclass(frozen=True)
class EditRequest:
    """A device's wish for an edit. asked: what the device would know the request by again."""

    device: str
    observed: Observed
    asked: Idempotency | None


@dataclass(frozen=True)
class Service:
    """One process's models and state.

    making: edits for the requests that are under way, as many as `places`: those that come
    together share a forward, then a transaction.
    stopping: set when the process has been told to stop.
    """

    config: CloudConfig
    versions: Versions
    keys: SigningKeys
    places: Places
    making: Batcher[EditRequest, SignedEdit]
    store: Store
    quotas: QuotaKeeper
    metrics: Metrics
    stopping: threading.Event


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

    def make(requests: Sequence[EditRequest]) -> Sequence[SignedEdit | Exception]:
        issuers = [request.observed.issuer for request in requests]
        signing = [issuer.key() for issuer in issuers]
        start = time.perf_counter()
        computed = compute([request.observed for request in requests])
        metrics.adapter_seconds.observe(time.perf_counter() - start)
        metrics.batch.observe(len(requests))
        wishes = []
        for request, issuer, key, made in zip(requests, issuers, signing, computed, strict=True):
            if made.observation is not request.observed.observation:
                raise RuntimeError("the edit was made from another observation")
            sign = partial(issuer.sign, made, key, request.device)
            wishes.append(Wish(request.device, sign, request.asked))
        return store.issue(wishes)

    return Service(
        config,
        versions,
        keys,
        Places(limits.max_waiting),
        Batcher(make, limits.max_batch, shared=AWAY),
        store,
        quotas,
        metrics,
        threading.Event(),
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
