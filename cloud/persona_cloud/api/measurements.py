"""What devices measured."""

from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Blueprint, Response, request

from persona.formats import schema
from persona.formats.edit import format_time, parse_whole
from persona.formats.measurement import Measurement
from persona.formats.strict_json import MAX_WHOLE
from persona_cloud.identity import enrolled_device
from persona_cloud.incoming import JSON, body, document, media_type
from persona_cloud.openapi import Answer, Body, Operation, Parameter, operation
from persona_cloud.outgoing import answer
from persona_cloud.problems import Problem
from persona_cloud.service import service
from persona_cloud.tables import StoredMeasurement

blueprint = Blueprint("measurements", __name__)

_FILTERS = ("model", "bundle", "target", "precision")
_WHOLE = {"type": "integer", "minimum": 1, "maximum": MAX_WHOLE}


@dataclass(frozen=True)
class Received:
    """A measurement as it was stored."""

    id: int
    received_at: str


@dataclass(frozen=True)
class Entry:
    """A measurement, and when it came."""

    id: int
    received_at: str
    measurement: Measurement


@dataclass(frozen=True)
class Measurements:
    """The newest first."""

    measurements: tuple[Entry, ...]


@blueprint.post("/v1/measurements")
@operation(
    Operation(
        tag="measurements",
        token=True,
        body=Body({JSON: Measurement}),
        answers={201: Answer("Stored", {JSON: Received})},
        problems=("request.too_large", "request.media_type", "request.invalid"),
    )
)
def report() -> Response:
    """Report a measurement."""
    here = service()
    device = enrolled_device()
    media_type(JSON)
    measured = document(Measurement, body(here.config.limits.max_json_bytes))
    stored = StoredMeasurement(
        device=device,
        received_at=datetime.now(UTC),
        model=measured.model,
        bundle=measured.bundle,
        target=measured.target,
        precision=measured.precision,
        document=measured.to_json(),
    )
    here.store.add_measurement(stored)
    return answer(Received(stored.id, format_time(stored.received_at)), 201)


@blueprint.get("/v1/measurements")
@operation(
    Operation(
        tag="measurements",
        token=True,
        parameters=(
            *(Parameter("query", name, f"Only this {name}") for name in _FILTERS),
            Parameter("query", "before", "Only ids below this one: the next page", _WHOLE),
            Parameter("query", "limit", "At most so many", _WHOLE),
        ),
        answers={200: Answer("Measurements, the newest first", {JSON: Measurements})},
        problems=("request.query",),
    )
)
def list_measurements() -> Response:
    """List measurements.

    Of all devices; which device sent one is not told.
    """
    here = service()
    enrolled_device()
    unknown = sorted(set(request.args) - {*_FILTERS, "before", "limit"})
    if unknown:
        raise Problem("request.query", f"There is no parameter {unknown[0]!r:.100}")
    filters = {name: request.args[name] for name in _FILTERS if name in request.args}
    most = here.config.limits.max_list
    limit = min(_whole("limit") or most, most)
    found = here.store.measurements(filters, _whole("before"), limit)
    entries = (
        Entry(row.id, format_time(row.received_at), schema.decode(Measurement, row.document))
        for row in found
    )
    return answer(Measurements(tuple(entries)))


def _whole(name: str) -> int | None:
    if name not in request.args:
        return None
    try:
        number = parse_whole(request.args[name])
    except ValueError as error:
        raise Problem("request.query", f"{name}: {error}") from None
    if number == 0:
        raise Problem("request.query", f"{name}: expected 1 or more, got 0")
    return number
