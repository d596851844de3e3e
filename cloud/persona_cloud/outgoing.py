"""Writing answers."""

import json
from typing import Any

from flask import Response

from persona.formats import schema


def answer(value: Any, status: int = 200) -> Response:
    """A dataclass as JSON."""
    return Response(json.dumps(schema.encode(value)), status, mimetype="application/json")
