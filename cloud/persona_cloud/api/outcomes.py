"""What devices found when they tried a version: what a rollout is stopped by."""

from dataclasses import dataclass
from typing import Literal

from flask import Blueprint, Response

from persona_cloud.identity import enrolled_device
from persona_cloud.incoming import JSON, body, document, media_type
from persona_cloud.openapi import Answer, Body, Operation, operation
from persona_cloud.problems import Problem
from persona_cloud.rollout import RolloutError
from persona_cloud.service import service

blueprint = Blueprint("outcomes", __name__)


@dataclass(frozen=True)
class Report:
    """What came of a version on a device.

    bundle: its digest. outcome: `ok` where its golden vectors, and the probe of an edit, held;
    else the code of what failed.
    """

    bundle: str
    outcome: Literal["ok", "bundle.golden_mismatch", "probe.mismatch", "probe.no_effect"]


@blueprint.post("/v1/models/<model>/outcomes")
@operation(
    Operation(
        tag="models",
        token=True,
        body=Body({JSON: Report}),
        answers={204: Answer("Counted")},
        problems=(
            "model.unknown",
            "version.unknown",
            "request.too_large",
            "request.media_type",
            "request.invalid",
        ),
    )
)
def report_outcome(model: str) -> Response:
    """Report whether a version works on this device.

    A device counts once a version, and a failure stays. A candidate that fails on too many
    devices is stopped.
    """
    here = service()
    data = body(here.config.limits.max_json_bytes)
    here.versions.of_model(model)
    device = enrolled_device()
    media_type(JSON)
    report = document(Report, data)
    code = None if report.outcome == "ok" else report.outcome
    try:
        stopped = here.versions.rollouts.report(device, report.bundle, code)
    except RolloutError as error:
        raise Problem(error.code, str(error)) from None
    if stopped:
        here.versions.look_again()
    here.metrics.outcomes.labels(report.outcome).inc()
    return Response(status=204)
