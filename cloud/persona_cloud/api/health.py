"""Is the process alive, can it answer, and what has it done?"""

from dataclasses import dataclass
from typing import Literal

from flask import Blueprint, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from persona_cloud.identity import operator
from persona_cloud.incoming import JSON
from persona_cloud.openapi import Answer, Operation, operation
from persona_cloud.outgoing import answer
from persona_cloud.problems import Problem
from persona_cloud.service import service
from persona_cloud.store import ClockError

blueprint = Blueprint("health", __name__)


@dataclass(frozen=True)
class Health:
    """How the process is."""

    status: Literal["alive", "ready"]


@blueprint.get("/healthz")
@operation(Operation(tag="health", answers={200: Answer("It is", {JSON: Health})}))
def alive() -> Response:
    """Is the process alive?"""
    return answer(Health("alive"))


@blueprint.get("/readyz")
@operation(
    Operation(
        tag="health",
        answers={200: Answer("It can", {JSON: Health})},
        problems=(
            "server.stopping",
            "server.store",
            "server.version",
            "server.key",
            "server.clock",
        ),
    )
)
def ready() -> Response:
    """Can it answer?

    What is rolled out is loaded, a key is there to sign with, the database can be written to, its
    clock is ours, and nobody has told the process to stop.
    """
    if service().stopping.is_set():
        raise Problem("server.stopping", "It finishes what it has taken, and takes nothing new")
    try:
        service().store.check()
    except ClockError as error:
        raise Problem("server.clock", str(error)) from None
    service().versions.check()
    return answer(Health("ready"))


@blueprint.get("/metrics")
@operation(
    Operation(
        tag="health",
        scope="metrics",
        answers={200: Answer("Prometheus's text format", {"text/plain": {"type": "string"}})},
    )
)
def metrics() -> Response:
    """What it has done, for Prometheus."""
    operator("metrics")
    return Response(service().metrics.exposition(), content_type=CONTENT_TYPE_PLAIN_0_0_4)
