"""Reading requests: with which body, and what they accept."""

from typing import Any

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from persona.formats import schema
from persona.formats.strict_json import strict_json
from persona_cloud.problems import Problem

JSON = "application/json"


def media_type(*known: str) -> str:
    """The body's Content-Type. Raises Problem `request.media_type` where it is none of `known`."""
    if request.mimetype not in known:
        raise Problem(
            "request.media_type",
            f"Expected Content-Type {' or '.join(known)}, got {request.mimetype[:100] or 'none'}",
            headers={"Accept": ", ".join(known)},
        )
    return request.mimetype


def representation(*offered: str) -> str:
    """The one of `offered` that the client likes best, the first where it does not say.

    Raises Problem `request.accept` where it likes none.
    """
    accepted = request.accept_mimetypes
    best = accepted.best_match(offered) if accepted else offered[0]
    if best is None:
        raise Problem(
            "request.accept", f"Offered are {' and '.join(offered)}, accepted {accepted!s:.100}"
        )
    return best


def body(max_bytes: int) -> bytes:
    """The whole body. Raises Problem `request.too_large`, having read one byte too many at most.

    That one byte tells: a body of unannounced length is cut at werkzeug's limit, without an error.
    """
    request.max_content_length = max_bytes + 1
    try:
        data = request.get_data()
    except RequestEntityTooLarge:
        data = None
    if data is None or len(data) > max_bytes:
        raise Problem(
            "request.too_large",
            f"At most {max_bytes} bytes fit, got {request.content_length or 'more'}",
        )
    return data


def document(kind: Any, data: bytes) -> Any:
    """A JSON body as the dataclass `kind`, or as the one of several that its `kind` names.

    Raises Problem `request.invalid` naming the field.
    """
    try:
        return schema.decode(kind, strict_json(data.decode()), getattr(kind, "__name__", "change"))
    except ValueError as error:
        raise Problem("request.invalid", str(error)) from None
