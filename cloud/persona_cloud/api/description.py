"""The API describes itself: for programs and, without the internet, for people."""

import json
from typing import Any

from flask import Blueprint, Response, current_app, render_template

from persona_cloud.api.edits import observation_schema
from persona_cloud.incoming import JSON
from persona_cloud.openapi import Answer, Operation, openapi, operation
from persona_cloud.problems import KINDS
from persona_cloud.service import service

blueprint = Blueprint("description", __name__)


def _document() -> dict[str, Any]:
    return openapi(current_app, {"Observation": observation_schema(service().versions.stable())})


@blueprint.get("/openapi.json")
@operation(
    Operation(
        tag="description",
        answers={200: Answer("This document", {JSON: {"type": "object"}})},
    )
)
def document() -> Response:
    """The API as an OpenAPI 3.1 document."""
    return Response(json.dumps(_document(), indent=1), mimetype=JSON)


@blueprint.get("/docs")
@operation(
    Operation(
        tag="description",
        answers={200: Answer("The page", {"text/html": {"type": "string"}})},
    )
)
def page() -> str:
    """The API and its error codes as a page."""
    return render_template("docs.html", api=_document(), kinds=KINDS.values())
