"""The application factory."""

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from persona_cloud import dashboard
from persona_cloud.api import blueprints
from persona_cloud.config import CloudConfig
from persona_cloud.observing import observe_requests
from persona_cloud.problems import handle_problems
from persona_cloud.quotas import address_group
from persona_cloud.security_headers import add_security_headers
from persona_cloud.service import install, open_service, service


def create_app(config: CloudConfig) -> Flask:
    """A WSGI app for one run and its bundle, ready to answer.

    Raises RunError, FormatError, OtherModelError, KeyNotInBundleError or StoreError, each saying
    what to do.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    install(app, open_service(config))
    handle_problems(app)
    observe_requests(app)
    app.before_request(_count_request)
    app.after_request(add_security_headers)
    if config.proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=config.proxies, x_proto=config.proxies
        )
    for blueprint in (*blueprints, dashboard.blueprint):
        app.register_blueprint(blueprint)
    return app


def _count_request() -> None:
    """Every request counts against its address, but for the probes of an orchestrator."""
    if request.path not in ("/healthz", "/readyz"):
        quotas = service().quotas
        quotas.spend(quotas.requests, "requests of an address", address_group(request.remote_addr))
