"""Which models are here, and what their bundles hold."""

from dataclasses import dataclass

from flask import Blueprint, Response

from persona.bundles import Bundle
from persona.formats.manifest import EditKey, File
from persona_cloud.incoming import JSON
from persona_cloud.openapi import Answer, Operation, operation
from persona_cloud.outgoing import answer
from persona_cloud.service import service

blueprint = Blueprint("models", __name__)


@dataclass(frozen=True)
class Model:
    """A model. bundle: digest of the bundle that edits are made for."""

    model: str
    task: str
    bundle: str
    created_at: str


@dataclass(frozen=True)
class Models:
    """The models here."""

    models: tuple[Model, ...]


@dataclass(frozen=True)
class ModelDetail:
    """A model and its bundle.

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


def _summary(bundle: Bundle) -> Model:
    manifest = bundle.manifest
    return Model(manifest.model, manifest.task, bundle.digest, manifest.created_at)


@blueprint.get("/v1/models")
@operation(Operation(tag="models", answers={200: Answer("All models", {JSON: Models})}))
def list_models() -> Response:
    """List the models."""
    return answer(Models((_summary(service().bundle),)))


@blueprint.get("/v1/models/<model>")
@operation(
    Operation(
        tag="models",
        answers={200: Answer("The model", {JSON: ModelDetail})},
        problems=("model.unknown",),
    )
)
def show_model(model: str) -> Response:
    """Show a model and the files of its bundle."""
    bundle = service().bundle_of(model)
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
        )
    )
