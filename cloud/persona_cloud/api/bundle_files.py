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


@blueprint.get("/v1/models/<model>/bundle/<path:file>")
@operation(
    Operation(
        tag="models",
        parameters=(
            Parameter("header", "Range", "Which bytes, such as `bytes=0-1023`"),
            Parameter("header", "If-None-Match", "The ETag of what the device has"),
        ),
        answers={
            200: Answer("The file", {_BYTES: BINARY}, _HEADERS),
            206: Answer("The range", {_BYTES: BINARY}, _HEADERS),
            304: Answer("The device has it"),
        },
        problems=("model.unknown", "bundle.file_unknown", "request.range"),
    )
)
def fetch(model: str, file: str) -> Response:
    """Fetch a file of the bundle.

    Files are those that the manifest names, `manifest.json` and `manifest.sig`. A device checks
    the manifest's signature and every file's digest before it uses any.
    """
    bundle = service().bundle_of(model)
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
