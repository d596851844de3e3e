"""What request handlers share: the model, its issuer, the store, and the host's decisions."""

from dataclasses import dataclass

import flask

from persona.bundles import Bundle, open_bundle
from persona.issuing import Issuer
from persona.runs import load_run
from persona.signing import PublicKeys
from persona_cloud.config import CloudConfig
from persona_cloud.problems import Problem
from persona_cloud.store import Store

_EXTENSION = "persona_cloud"


@dataclass(frozen=True)
class Service:
    """One process's model and state."""

    config: CloudConfig
    bundle: Bundle
    issuer: Issuer
    store: Store

    def bundle_of(self, model: str) -> Bundle:
        """The bundle of a model. Raises Problem `model.unknown`."""
        here = self.bundle.manifest.model
        if model != here:
            raise Problem("model.unknown", f"There is no model {model!r:.100} here, but {here!r}")
        return self.bundle


def open_service(config: CloudConfig) -> Service:
    """Load and check everything that a request needs.

    Raises RunError, FormatError, OtherModelError, KeyNotInBundleError or StoreError.
    """
    run = load_run(config.run)
    bundle = open_bundle(config.bundle, PublicKeys([run.bundle_key().public]))
    issuer = Issuer(run, bundle, config.edit_lifetime)
    return Service(config, bundle, issuer, Store(config.database))


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
