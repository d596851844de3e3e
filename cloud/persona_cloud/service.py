"""What request handlers share: the model, its issuer, the store, and the host's decisions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import flask

from persona.bundles import Bundle, open_bundle
from persona.issuing import Issued, Issuer, Request
from persona.runs import load_run
from persona.signing import PublicKeys
from persona_cloud.batching import Batcher
from persona_cloud.config import CloudConfig
from persona_cloud.metrics import Metrics
from persona_cloud.problems import Problem
from persona_cloud.quotas import QuotaKeeper
from persona_cloud.store import Store

_EXTENSION = "persona_cloud"


@dataclass(frozen=True)
class Service:
    """One process's model and state."""

    config: CloudConfig
    bundle: Bundle
    batcher: Batcher
    store: Store
    quotas: QuotaKeeper
    metrics: Metrics

    def bundle_of(self, model: str) -> Bundle:
        """The bundle of a model. Raises Problem `model.unknown`."""
        here = self.bundle.manifest.model
        if model != here:
            raise Problem("model.unknown", f"There is no model {model!r:.100} here, but {here!r}")
        return self.bundle


def open_service(config: CloudConfig) -> Service:
    """Load and check everything that a request needs.

    Raises RunError, FormatError, OtherModelError, KeyNotInBundleError, StoreError, or ValueError
    for an unreadable quota.
    """
    run = load_run(config.run)
    bundle = open_bundle(config.bundle, PublicKeys([run.bundle_key().public]))
    issuer = Issuer(run, bundle, config.edit_lifetime)
    metrics, limits = Metrics(), config.limits

    def make(requests: Sequence[Request]) -> list[Issued]:
        start = time.perf_counter()
        made = issuer.issue(requests)
        metrics.adapter_seconds.observe(time.perf_counter() - start)
        metrics.batch.observe(len(requests))
        return made

    batcher = Batcher(make, limits.max_batch, limits.max_waiting)
    quotas, store = QuotaKeeper(config.quotas), Store(config.database)
    return Service(config, bundle, batcher, store, quotas, metrics)


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
