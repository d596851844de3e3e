"""Which models are here, in which versions, and what their bundles hold."""

from dataclasses import dataclass

from flask import Blueprint, Response

from persona.bundles import Bundle
from persona.formats.edit import format_time
from persona.formats.manifest import EditKey, File
from persona_cloud.api.bundle_files import bundle_url
from persona_cloud.incoming import JSON
from persona_cloud.openapi import Answer, Operation, operation
from persona_cloud.outgoing import answer
from persona_cloud.rollout import KnownVersion, Line
from persona_cloud.service import service

blueprint = Blueprint("models", __name__)


@dataclass(frozen=True)
class Model:
    """A model. bundle: digest of the stable version's bundle."""

    model: str
    task: str
    bundle: str
    created_at: str


@dataclass(frozen=True)
class Models:
    """The models here."""

    models: tuple[Model, ...]


@dataclass(frozen=True)
class VersionEntry:
    """A version, named by its bundle's digest.

    state: `published` and not rolled out yet, `candidate` of some devices, `stable` of all others,
    `retired` when another took its place, `withdrawn` when it was stopped or rolled back.
    bundle_url: where its files are. reported, failed: devices that told what came of it.
    """

    bundle: str
    model: str
    state: str
    published_at: str
    bundle_url: str
    reported: int
    failed: int


@dataclass(frozen=True)
class RolloutState:
    """Which version devices shall have.

    stable: all but `percent` of them, which shall have the candidate. max_failure_rate: of the
    devices that report; more stop the candidate as soon as `min_reports` have. revision: grows
    with each change. stopped_because: why the last candidate was stopped.
    """

    stable: str
    candidate: str | None
    percent: float
    max_failure_rate: float
    min_reports: int
    revision: int
    changed_at: str
    stopped_because: str | None


@dataclass(frozen=True)
class ModelDetail:
    """A model, its versions, and the stable version's bundle.

    targets: runtimes and processors that it has programs for.
    files: to be fetched from `bundle/{file}`, beside `manifest.json` and `manifest.sig`.
    """

    model: str
    task: str
    bundle: str
    created_at: str
    targets: tuple[str, ...]
    prototypes: int
    max_observation_bytes: int
    max_edit_bytes: int
    edit_keys: tuple[EditKey, ...]
    files: dict[str, File]
    versions: tuple[VersionEntry, ...]
    rollout: RolloutState


def _summary(bundle: Bundle) -> Model:
    manifest = bundle.manifest
    return Model(manifest.model, manifest.task, bundle.digest, manifest.created_at)


def state_of(version: KnownVersion, line: Line) -> str:
    """What became of a version; see `VersionEntry`."""
    if version.bundle == line.stable:
        return "stable"
    if version.bundle == line.candidate:
        return "candidate"
    if version.withdrawn:
        return "withdrawn"
    return "published" if version.retired_at is None else "retired"


def entry(version: KnownVersion, line: Line) -> VersionEntry:
    """A version as it is listed."""
    outcomes = service().versions.rollouts.outcomes(version.bundle)
    return VersionEntry(
        bundle=version.bundle,
        model=version.model,
        state=state_of(version, line),
        published_at=format_time(version.published_at),
        bundle_url=bundle_url(version.model, version.bundle),
        reported=outcomes.reported,
        failed=outcomes.failed,
    )


def rollout_state(line: Line) -> RolloutState:
    """The rollout as it is told."""
    return RolloutState(
        stable=line.stable,
        candidate=line.candidate,
        percent=line.percent,
        max_failure_rate=line.max_failure_rate,
        min_reports=line.min_reports,
        revision=line.revision,
        changed_at=format_time(line.changed_at),
        stopped_because=line.stopped_because,
    )


@blueprint.get("/v1/models")
@operation(
    Operation(
        tag="models",
        answers={200: Answer("All models", {JSON: Models})},
        problems=("server.version",),
    )
)
def list_models() -> Response:
    """List the models."""
    return answer(Models((_summary(service().versions.stable()),)))


@blueprint.get("/v1/models/<model>")
@operation(
    Operation(
        tag="models",
        answers={200: Answer("The model", {JSON: ModelDetail})},
        problems=("model.unknown", "server.version", "server.store"),
    )
)
def show_model(model: str) -> Response:
    """Show a model, its versions, its rollout, and the files of its stable bundle.

    It is found by the name of the model in any of its versions.
    """
    versions = service().versions
    line = versions.of_model(model)
    bundle = versions.bundle(line.stable)
    manifest = bundle.manifest
    return answer(
        ModelDetail(
            **vars(_summary(bundle)),
            targets=tuple(program.target for program in manifest.programs),
            prototypes=manifest.prototype_count,
            max_observation_bytes=manifest.max_observation_bytes,
            max_edit_bytes=manifest.max_edit_bytes,
            edit_keys=manifest.edit_keys,
            files=manifest.files,
            versions=tuple(entry(version, line) for version in line.versions.values()),
            rollout=rollout_state(line),
        )
    )
