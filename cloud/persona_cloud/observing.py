"""Every request gets an id, a line in the log, and its place in the metrics.

A line says route, status, time and device: never a header, a query, a body or a token.
"""

import json
import logging
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, g, request

from persona_cloud.service import service

REQUEST_ID = "X-Request-ID"

_log = logging.getLogger("persona_cloud.requests")
_usable = re.compile(r"[A-Za-z0-9._-]{1,64}")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its `fields`, and the traceback where there is one."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_as_json() -> None:
    """Write this package's log to stderr, a JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("persona_cloud")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def observe_requests(app: Flask) -> None:
    """Give every request of `app` an id, a line and a count."""
    app.before_request(_arrived)
    app.after_request(_answered)


def _arrived() -> None:
    sent = request.headers.get(REQUEST_ID, "")
    g.request_id = sent if _usable.fullmatch(sent) else uuid.uuid4().hex
    g.arrived = time.perf_counter()


def _answered(response: Response) -> Response:
    response.headers[REQUEST_ID] = g.request_id
    seconds = time.perf_counter() - g.arrived
    route = request.url_rule.rule if request.url_rule else "none"
    metrics, code = service().metrics, g.get("problem")
    known = request.method if request.url_rule else "any"
    metrics.requests.labels(known, route, str(response.status_code)).inc()
    metrics.seconds.labels(route).observe(seconds)
    fields = {
        "request_id": g.request_id,
        "method": known,
        "route": route,
        "status": response.status_code,
        "milliseconds": round(seconds * 1000, 2),
    }
    if code is not None:
        metrics.problems.labels(code).inc()
        fields["problem"] = code
    if "device" in g:
        fields["device"] = g.device
    _log.info("request", extra={"fields": fields})
    return response
