"""Operators publish versions, roll them out to some devices or to all, and roll them back."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from flask import Blueprint, Response
from pydantic import Field

from persona.formats.errors import FormatError
from persona.formats.strict_json import MAX_WHOLE
from persona.issuing import KeyNotInBundleError, OtherModelError
from persona.runs import RunError
from persona_cloud.api.models import RolloutState, VersionEntry, entry, rollout_state
from persona_cloud.identity import operator
from persona_cloud.incoming import JSON, body, document, media_type
from persona_cloud.openapi import Answer, Body, Operation, operation
from persona_cloud.outgoing import answer
from persona_cloud.problems import Problem
from persona_cloud.rollout import RolloutError
from persona_cloud.service import service
from persona_cloud.versions import OtherInterfaceError

blueprint = Blueprint("rollout", __name__)

_BAD_BODY = ("request.too_large", "request.media_type", "request.invalid")
_FOLDER = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$"

Folder = Annotated[str, Field(pattern=_FOLDER, max_length=200)]
Percent = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Revision = Annotated[int, Field(ge=1, le=MAX_WHOLE)] | None


@dataclass(frozen=True)
class Publication:
    """A run and the bundle exported from it: folders below the host's folder for versions."""

    run: Folder
    bundle: Folder

    def __post_init__(self) -> None:
        for folder in (self.run, self.bundle):
            if not re.fullmatch(_FOLDER, folder, re.ASCII) or len(folder) > 200:
                raise ValueError(f"{folder!r:.100} is not a folder below the one for versions")


@dataclass(frozen=True)
class Start:
    """Roll a version out to a percentage of devices.

    It is stopped when, of `min_reports` devices or more that reported, a larger share than
    `max_failure_rate` reported a failure. revision: of the rollout that this was decided on.
    """

    kind: Literal["start"]
    bundle: str
    percent: Percent
    max_failure_rate: Share = 0.02
    min_reports: Count = 20
    revision: Revision = None

    def __post_init__(self) -> None:
        _check(self.percent, self.revision)
        if not 0 <= self.max_failure_rate <= 1 or not 1 <= self.min_reports <= 1_000_000:
            raise ValueError("max_failure_rate must be from 0 to 1, min_reports from 1 to 1000000")


@dataclass(frozen=True)
class Resize:
    """Give the candidate to another percentage of devices."""

    kind: Literal["resize"]
    percent: Percent
    revision: Revision = None

    def __post_init__(self) -> None:
        _check(self.percent, self.revision)


@dataclass(frozen=True)
class Promote:
    """Give the candidate to all devices, as the stable version."""

    kind: Literal["promote"]
    revision: Revision = None

    def __post_init__(self) -> None:
        _check(0, self.revision)


@dataclass(frozen=True)
class RollBack:
    """Withdraw the candidate or, where there is none, the stable version for the one before."""

    kind: Literal["roll_back"]
    revision: Revision = None

    def __post_init__(self) -> None:
        _check(0, self.revision)


Change = Start | Resize | Promote | RollBack


def _check(percent: float, revision: int | None) -> None:
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be from 0 to 100, got {percent}")
    if revision is not None and revision < 1:
        raise ValueError(f"revision must be 1 or more, got {revision}")


@blueprint.post("/v1/models/<model>/versions")
@operation(
    Operation(
        tag="models",
        scope="models",
        body=Body({JSON: Publication}),
        answers={
            200: Answer("It was published before", {JSON: VersionEntry}),
            201: Answer("Published; no device has it yet", {JSON: VersionEntry}),
        },
        problems=("model.unknown", "version.folder", "version.invalid", *_BAD_BODY),
    )
)
def publish(model: str) -> Response:
    """Publish a version that lies on the server's disk.

    Run and bundle are checked file by file, against each other, and against what apps of this
    model can run. Nothing is rolled out by that.
    """
    here = service()
    key = operator("models")
    here.versions.of_model(model)
    media_type(JSON)
    wanted = document(Publication, body(here.config.limits.max_json_bytes))
    run, bundle = (_below(here.config.publishable, name) for name in (wanted.run, wanted.bundle))
    try:
        digest, new = here.versions.publish(run, bundle, key.id)
    except (RunError, FormatError, OtherModelError, KeyNotInBundleError, OtherInterfaceError) as e:
        said = str(e).replace(f"{here.config.publishable.resolve()}/", "")
        raise Problem("version.invalid", said) from None
    line = here.versions.line()
    return answer(entry(line.versions[digest], line), 201 if new else 200)


@blueprint.patch("/v1/models/<model>/rollout")
@operation(
    Operation(
        tag="models",
        scope="models",
        body=Body({JSON: Change}),
        answers={200: Answer("The rollout as it is now", {JSON: RolloutState})},
        problems=(
            "model.unknown",
            "version.unknown",
            "rollout.refused",
            "rollout.changed",
            *_BAD_BODY,
        ),
    )
)
def change_rollout(model: str) -> Response:
    """Change the rollout: start, resize, promote or roll back.

    All servers know of it within a second. Devices that have a version which was withdrawn are
    told at their next request.
    """
    here = service()
    key = operator("models")
    here.versions.of_model(model)
    media_type(JSON)
    change: Change = document(Change, body(here.config.limits.max_json_bytes))
    rollouts, by, revision = here.versions.rollouts, key.id, change.revision
    try:
        match change:
            case Start(_, bundle, percent, rate, reports):
                rollouts.start(bundle, percent, rate, reports, by=by, revision=revision)
            case Resize(_, percent):
                rollouts.resize(percent, by=by, revision=revision)
            case Promote():
                rollouts.promote(by=by, revision=revision)
            case RollBack():
                rollouts.roll_back(by=by, revision=revision)
    except RolloutError as error:
        raise Problem(error.code, str(error)) from None
    here.versions.look_again()
    return answer(rollout_state(here.versions.line()))


def _below(root: Path, name: str) -> Path:
    """A folder below the host's, links followed. Raises Problem `version.folder`."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_dir():
        raise Problem("version.folder", f"There is no folder {name!r:.100} for versions here")
    return path
