"""The files of a bundle, whole or by ranges."""

import hashlib

from flask import Blueprint, Response, send_file

from persona.bundles import Bundle
from persona.formats.manifest import MANIFEST, SIGNATURE
from persona_cloud.openapi import BINARY, Answer, Operation, Parameter, operation
from persona_cloud.problems import Problem
from persona_cloud.service import service

blueprint = Blueprint("bundle_files", __name__)

_BYTES = "application/octet-stream"
_HEADERS = {"ETag": "sha256 of the file", "Accept-Ranges": "bytes"}


_PARAMETERS = (
    Parameter("header", "Range", "Which bytes, such as `bytes=0-1023`"),
    Parameter("header", "If-None-Match", "The ETag of what the device has"),
)
_ANSWERS = {
    200: Answer("The file", {_BYTES: BINARY}, _HEADERS),
    206: Answer("The range", {_BYTES: BINARY}, _HEADERS),
    304: Answer("The device has it"),
}
_PROBLEMS = ("model.unknown", "bundle.file_unknown", "request.range", "server.version")


@blueprint.get("/v1/models/<model>/bundle/<path:file>")
@operation(Operation(tag="models", parameters=_PARAMETERS, answers=_ANSWERS, problems=_PROBLEMS))
def fetch(model: str, file: str) -> Response:
    """Fetch a file of the stable version's bundle.

    Files are those that the manifest names, `manifest.json` and `manifest.sig`. A device checks
    the manifest's signature and every file's digest before it uses any.
    """
    versions = service().versions
    return _file(versions.bundle(versions.of_model(model).stable), file)


@blueprint.get("/v1/models/<model>/versions/<version>/bundle/<path:file>")
@operation(
    Operation(
        tag="models",
        parameters=_PARAMETERS,
        answers=_ANSWERS,
        problems=(*_PROBLEMS, "version.unknown"),
    )
)
def fetch_of_version(model: str, version: str, file: str) -> Response:
    """Fetch a file of a version's bundle.

    A version is named by its bundle's digest, so what is here never changes.
    """
    versions = service().versions
    versions.of_model(model)
    return _file(versions.bundle(version), file)


def bundle_url(model: str, version: str) -> str:
    """Where the files of a version's bundle are."""
    return f"/v1/models/{model}/versions/{version}/bundle/"


def _file(bundle: Bundle, file: str) -> Response:
    etag = _digest(bundle, file)
    if etag is None:
        raise Problem("bundle.file_unknown", f"The bundle has no file {file!r:.100}")
    path = (bundle.path / file).absolute()
    return send_file(path, mimetype=_BYTES, etag=etag, conditional=True, last_modified=None)


def _digest(bundle: Bundle, file: str) -> str | None:
    """sha256 of a file that may be fetched. Names are looked up, never joined to a path unseen."""
    if file == MANIFEST:
        return bundle.digest
    if file == SIGNATURE:
        return hashlib.sha256((bundle.path / SIGNATURE).read_bytes()).hexdigest()
    listed = bundle.manifest.files.get(file)
    return listed.sha256 if listed else None
