"""Devices enrol themselves and get a token."""

import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Blueprint, Response

from persona.formats.edit import format_time
from persona_cloud.config import Enrolment
from persona_cloud.incoming import JSON, body, document, media_type, token_digest
from persona_cloud.openapi import Answer, Body, Operation, operation
from persona_cloud.outgoing import answer
from persona_cloud.problems import Problem
from persona_cloud.service import service
from persona_cloud.store import Device

blueprint = Blueprint("devices", __name__)


@dataclass(frozen=True)
class Enrolled:
    """A new device. token: keep it secret; it is shown once. model, bundle: what to run."""

    device: str
    token: str
    expires_at: str
    model: str
    bundle: str


@blueprint.post("/v1/devices")
@operation(
    Operation(
        tag="devices",
        body=Body({JSON: Enrolment}, required=False),
        answers={201: Answer("The device's id and token", {JSON: Enrolled})},
        problems=(
            "enrolment.refused",
            "request.too_large",
            "request.media_type",
            "request.invalid",
        ),
    )
)
def enrol() -> Response:
    """Enrol a device.

    The host may demand an attestation of the platform. The body may be left out.
    """
    here = service()
    data = body(here.config.limits.max_json_bytes)
    enrolment = Enrolment()
    if data:
        media_type(JSON)
        enrolment = document(Enrolment, data)
    if not here.config.attest(enrolment):
        raise Problem("enrolment.refused", "The attestation was not accepted")
    token = secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    device = Device(
        id=uuid.uuid4().hex,
        token_sha256=token_digest(token),
        platform=enrolment.platform,
        enrolled_at=now,
        expires_at=now + here.config.token_lifetime,
    )
    here.store.enrol(device)
    enrolled = Enrolled(
        device=device.id,
        token=token,
        expires_at=format_time(device.expires_at),
        model=here.bundle.manifest.model,
        bundle=here.bundle.digest,
    )
    response = answer(enrolled, 201)
    response.headers["Cache-Control"] = "no-store"
    return response
