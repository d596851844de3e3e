"""Devices enrol themselves, renew their tokens, and are shut out by operators."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Blueprint, Response, request

from persona.formats.edit import format_time
from persona_cloud.config import Enrolment
from persona_cloud.identity import new_token, operator, renewing_device
from persona_cloud.incoming import JSON, body, document, media_type
from persona_cloud.openapi import Answer, Body, Operation, operation
from persona_cloud.outgoing import answer
from persona_cloud.problems import Problem
from persona_cloud.quotas import address_group
from persona_cloud.service import service
from persona_cloud.tables import Device

blueprint = Blueprint("devices", __name__)


@dataclass(frozen=True)
class Enrolled:
    """A new device. token: keep it secret; it is shown once. model, bundle: what to run."""

    device: str
    token: str
    expires_at: str
    model: str
    bundle: str


@dataclass(frozen=True)
class Renewed:
    """A new token. Once it is used, the one before is refused."""

    token: str
    expires_at: str


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
            "server.store",
        ),
    )
)
def enrol() -> Response:
    """Enrol a device.

    The host may demand an attestation of the platform. The body may be left out.
    """
    here = service()
    data = body(here.config.limits.max_json_bytes)
    here.quotas.spend(
        here.quotas.enrolments, "enrolments of an address", address_group(request.remote_addr)
    )
    enrolment = Enrolment()
    if data:
        media_type(JSON)
        enrolment = document(Enrolment, data)
    if not here.config.attest(enrolment):
        raise Problem("enrolment.refused", "The attestation was not accepted")
    device = Device(uuid.uuid4().hex, enrolment.platform, datetime.now(UTC))
    secret, token = new_token(device.id, here.config.token_lifetime)
    here.store.enrol(device, token)
    wanted = here.versions.wanted(device.id)
    enrolled = Enrolled(
        device=device.id,
        token=secret,
        expires_at=format_time(token.expires_at),
        model=here.versions.line().versions[wanted].model,
        bundle=wanted,
    )
    return _secret_answer(enrolled)


@blueprint.post("/v1/devices/<device>/token")
@operation(
    Operation(
        tag="devices",
        token=True,
        answers={201: Answer("Another token", {JSON: Renewed})},
        problems=("token.other_device",),
    )
)
def renew(device: str) -> Response:
    """Renew a device's token.

    An expired token will do, too, for as long as the host allows. The token that was sent stays
    good until the new one is used: an answer that gets lost costs nothing.
    """
    here = service()
    shown = renewing_device(device)
    secret, token = new_token(device, here.config.token_lifetime)
    here.store.renew(shown.sha256, token)
    return _secret_answer(Renewed(secret, format_time(token.expires_at)))


@blueprint.delete("/v1/devices/<device>")
@operation(
    Operation(
        tag="devices",
        scope="devices",
        answers={204: Answer("It is shut out")},
        problems=("device.unknown",),
    )
)
def revoke(device: str) -> Response:
    """Shut a device out.

    Its tokens are refused from now on. The edit that it runs stays good until it expires.
    """
    operator("devices")
    if not service().store.revoke_device(device, datetime.now(UTC)):
        raise Problem("device.unknown", f"There is no device {device!r:.100}")
    return Response(status=204)


def _secret_answer(value: Enrolled | Renewed) -> Response:
    response = answer(value, 201)
    response.headers["Cache-Control"] = "no-store"
    return response
