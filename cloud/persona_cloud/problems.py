"""Errors as RFC 9457 problem documents: a stable code, what was expected and came, what to do.

Codes of `persona.formats` are passed through. `/docs` lists every code that can come.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus

from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import DataError
from werkzeug.exceptions import HTTPException

from persona.formats.errors import Code, FormatError
from persona_cloud.store import AWAY

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """A way to fail. next_step: one sentence for whoever must mend it."""

    code: str
    status: int
    title: str
    next_step: str


_SEND_AGAIN = "Pool the window again with this bundle's observe program and send the result."
_WRITE_AGAIN = "Write the file with a safetensors library, as docs/edit-format.md says."

KINDS = {
    kind.code: kind
    for kind in (
        Kind("request.malformed", 400, "Malformed request", "Correct the request."),
        Kind("request.query", 400, "Unknown or wrong query", "See the parameters at /docs."),
        Kind(
            "request.idempotency_key",
            400,
            "Unusable Idempotency-Key",
            "Send 1 to 200 visible ASCII characters, such as a UUID, or leave the header out.",
        ),
        Kind("token.missing", 401, "No token", "Enrol with POST /v1/devices to get a token."),
        Kind("token.unknown", 401, "Unknown token", "Enrol with POST /v1/devices to get a token."),
        Kind(
            "token.expired",
            401,
            "Expired token",
            "Renew it with POST /v1/devices/{device}/token, or enrol anew where that is refused.",
        ),
        Kind("token.revoked", 401, "Revoked device", "Ask the operator why."),
        Kind("operator.missing", 401, "No operator key", "Make one with `persona operator add`."),
        Kind(
            "operator.unknown",
            401,
            "Unknown or revoked operator key",
            "Make one with `persona operator add`.",
        ),
        Kind(
            "token.other_device",
            403,
            "Token of another device",
            "Send the token that this device was given.",
        ),
        Kind(
            "operator.scope",
            403,
            "Key without this scope",
            "Make a key that has it with `persona operator add --scope`.",
        ),
        Kind(
            "request.other_site",
            403,
            "Form of another site",
            "Open the page itself and send the form from there.",
        ),
        Kind(
            "enrolment.refused",
            403,
            "Device not accepted",
            "Send a fresh attestation from the platform with the enrolment.",
        ),
        Kind("request.path", 404, "No such page", "See the paths at /docs."),
        Kind("device.unknown", 404, "Unknown device", "Take the id from the device's enrolment."),
        Kind(
            "version.unknown",
            404,
            "Unknown version",
            "Ask GET /v1/models/{model} for those there are, or publish it first.",
        ),
        Kind(
            "version.folder",
            404,
            "No such folder",
            "Put run and bundle below the folder for versions on every server, then publish.",
        ),
        Kind("keys.none", 404, "No key document", "Go on with the keys that are trusted now."),
        Kind("model.unknown", 404, "Unknown model", "Ask GET /v1/models for those there are."),
        Kind(
            "bundle.file_unknown",
            404,
            "Not a file of the bundle",
            "Take a name from `files` of GET /v1/models/{model}.",
        ),
        Kind("request.method", 405, "Method not allowed", "Use a method that `Allow` names."),
        Kind("request.accept", 406, "No such representation", "Accept one of those named."),
        Kind("request.slow", 408, "Request too slow", "Send it again, faster."),
        Kind(
            Code.OBSERVATION_OTHER_BASE,
            409,
            "Made for another bundle",
            "Fetch the bundle from `bundle_url`, and observe with its programs.",
        ),
        Kind(
            "rollout.refused",
            409,
            "Not possible in this state",
            "Look at the rollout with GET /v1/models/{model}.",
        ),
        Kind(
            "rollout.changed",
            409,
            "Somebody else changed the rollout",
            "Look at it with GET /v1/models/{model} and decide again.",
        ),
        Kind("request.too_large", 413, "Body too large", "Send a body within the limit."),
        Kind("request.media_type", 415, "Unknown Content-Type", "Send one of those named."),
        Kind("request.range", 416, "Range outside the file", "Ask within `Content-Range`."),
        Kind(
            "idempotency.other_request",
            422,
            "Idempotency-Key of another request",
            "Use a new key for a new request; repeat a request unchanged.",
        ),
        Kind(
            "request.invalid",
            422,
            "Body does not fit its schema",
            "Correct the named field; the schemas are at /openapi.json.",
        ),
        Kind(
            "version.invalid",
            422,
            "Not a version that can be published",
            "Mend what is named and publish again; nothing was registered.",
        ),
        Kind(Code.OBSERVATION_INVALID, 422, "Not an observation", "Correct the named field."),
        Kind(
            Code.OBSERVATION_EMPTY,
            422,
            "Window too short",
            "Wait for more samples.",
        ),
        Kind(Code.OBSERVATION_TOO_LONG, 422, "Window too long", "Send the newest samples only."),
        Kind(Code.OBSERVATION_WIDTH, 422, "Statistics of wrong size", _SEND_AGAIN),
        Kind(Code.OBSERVATION_NOT_FINITE, 422, "NaN or infinity", _SEND_AGAIN),
        *(
            Kind(code, 422, "Not a well-formed safetensors file", _WRITE_AGAIN)
            for code in Code
            if code.startswith("container.")
        ),
        Kind("request.too_many", 429, "Too many requests", "Wait for `Retry-After` seconds."),
        Kind("request.refused", 400, "Refused", "Correct the request."),
        Kind(
            "server.failed",
            500,
            "The server failed",
            "Try again; if it stays, give the operator the incident's id.",
        ),
        Kind("server.stopping", 503, "This server is stopping", "Ask another one."),
        Kind("server.busy", 503, "Too much to do", "Wait for `Retry-After` seconds."),
        Kind("server.store", 503, "The database does not answer", "Try again after a second."),
        Kind(
            "server.version",
            503,
            "A version is not on this server",
            "Try again; operators: put the folders that it was published from on every server.",
        ),
        Kind(
            "server.clock",
            503,
            "A clock is wrong",
            "Try again; operators: set the clocks of this server and of the database by NTP.",
        ),
        Kind(
            "server.key",
            503,
            "No signing key",
            "Try again; operators: put the private key on every server.",
        ),
    )
}

_OF_STATUS = {
    400: "request.malformed",
    404: "request.path",
    405: "request.method",
    406: "request.accept",
    413: "request.too_large",
    415: "request.media_type",
    416: "request.range",
}


@dataclass(frozen=True)
class ProblemDocument:
    """An error (RFC 9457). type: where the code is explained. code: stable, for programs.

    bundle: the right bundle's digest, where another one was named; bundle_url: where its files are.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    bundle: str | None = None
    bundle_url: str | None = None


class Problem(Exception):  # noqa: N818
    """Raised by a request handler. said: what was expected and what came."""

    def __init__(
        self,
        code: str,
        said: str,
        *,
        bundle: str | None = None,
        bundle_url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(said)
        self.code, self.said = code, said
        self.bundle, self.bundle_url = bundle, bundle_url
        self.headers = dict(headers or {})


def handle_problems(app: Flask) -> None:
    """Answer every error of `app` with a problem document."""
    app.register_error_handler(Problem, _problem)
    app.register_error_handler(FormatError, _format_error)
    app.register_error_handler(HTTPException, _http_error)
    for gone in AWAY:
        app.register_error_handler(gone, _store_error)
    app.register_error_handler(DataError, _data_error)
    app.register_error_handler(Exception, _failure)


def _document(problem: Problem, status: int | None = None) -> Response:
    kind = KINDS[problem.code]
    g.problem = str(kind.code)
    said = problem.said if problem.said.endswith((".", "?", "!")) else f"{problem.said}."
    document = ProblemDocument(
        type=f"/docs#{kind.code}",
        title=kind.title,
        status=status or kind.status,
        code=str(kind.code),
        detail=f"{said} {kind.next_step}",
        bundle=problem.bundle,
        bundle_url=problem.bundle_url,
    )
    present = {name: value for name, value in asdict(document).items() if value is not None}
    response = Response(json.dumps(present), document.status, mimetype=MEDIA_TYPE)
    response.headers.update(problem.headers)
    response.headers["Cache-Control"] = "no-store"
    return response


def _problem(problem: Problem) -> Response:
    return _document(problem)


def _format_error(error: FormatError) -> Response:
    return _document(Problem(error.code, str(error.args[0])))


def _http_error(error: HTTPException) -> Response:
    """What Flask and werkzeug refuse by themselves."""
    status = error.code or 500
    if status >= 500:
        return _failure(error)
    kept = {k: v for k, v in error.get_headers() if k not in ("Content-Type", "Content-Length")}
    allowed = f", allowed are {kept['Allow']}" if "Allow" in kept else ""
    said = f"{request.method} {request.path:.100}: {HTTPStatus(status).phrase}{allowed}"
    code = _OF_STATUS.get(status, "request.refused")
    return _document(Problem(code, said, headers=kept), status)


def _data_error(_: DataError) -> Response:
    """Text that the database cannot hold: PostgreSQL has no NUL in it."""
    return _document(Problem("request.refused", "Expected text without control characters"))


def _store_error(error: Exception) -> Response:
    current_app.logger.error("the database does not answer: %s", getattr(error, "orig", error))
    return _document(
        Problem("server.store", "This request was not carried out", headers={"Retry-After": "1"})
    )


def _failure(error: Exception) -> Response:
    incident = g.request_id
    current_app.logger.error("incident %s", incident, exc_info=error)
    return _document(
        Problem("server.failed", f"This request was not answered, incident {incident}")
    )
