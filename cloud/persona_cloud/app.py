"""The application factory."""

from flask import Flask

from persona_cloud.api import blueprints
from persona_cloud.config import CloudConfig
from persona_cloud.problems import handle_problems
from persona_cloud.service import install, open_service


def create_app(config: CloudConfig) -> Flask:
    """A WSGI app for one run and its bundle, ready to answer.

    Raises RunError, FormatError, OtherModelError, KeyNotInBundleError or StoreError, each saying
    what to do.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    install(app, open_service(config))
    handle_problems(app)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app
