"""gunicorn's threaded worker, whose own refusals are problem documents, too.

What could not be parsed is neither sent back nor logged: it may hold a token.
"""

import json
from http import HTTPStatus
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

from persona_cloud.observing import JsonFormatter
from persona_cloud.problems import KINDS, MEDIA_TYPE

_STATUS = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.ExpectationFailed: 417,
    errors.UnsupportedTransferCoding: 501,
    errors.ForbiddenProxyRequest: 403,
}


class Worker(ThreadWorker):
    """For `gunicorn --worker-class persona_cloud.worker.Worker`."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Answer a request that never reached the app."""
        if isinstance(exc, errors.ParseException):
            status = next((s for kind, s in _STATUS.items() if isinstance(exc, kind)), 400)
            self.log.warning("a request could not be read: %s", type(exc).__name__)
            code = "request.malformed"
            said = f"{HTTPStatus(status).phrase}: {type(exc).__name__}."
        else:
            status, code = 500, "server.failed"
            self.log.error("a request failed outside the app", exc_info=exc)
            said = "This request was not answered."
        try:
            write_nonblock(client, _answer(status, code, said))
        except OSError:
            self.log.debug("the client did not wait for its refusal")


class JsonLogger(Logger):
    """gunicorn's messages as JSON, beside the app's."""

    def setup(self, cfg: Any) -> None:
        """As gunicorn does, in another form."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonFormatter())


def _answer(status: int, code: str, said: str) -> bytes:
    kind = KINDS[code]
    document = {
        "type": f"/docs#{code}",
        "title": kind.title,
        "status": status,
        "code": code,
        "detail": f"{said} {kind.next_step}",
    }
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Connection: close\r\n"
        f"Content-Type: {MEDIA_TYPE}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
