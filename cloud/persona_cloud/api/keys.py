"""Key documents: how devices learn which keys to trust."""

from flask import Blueprint, Response

from persona.formats.edit import parse_whole
from persona.formats.keys import MEDIA_TYPE
from persona.signing import to_text
from persona_cloud.openapi import BINARY, Answer, Operation, operation
from persona_cloud.problems import Problem
from persona_cloud.service import service
from persona_cloud.signing_keys import SignedKeys

blueprint = Blueprint("keys", __name__)

_ANSWERS = {
    200: Answer(
        "The document",
        {MEDIA_TYPE: BINARY},
        {
            "Persona-Key-Id": "Which bundle key signed",
            "Persona-Signature": "ECDSA P-256 with SHA-256 over the document, DER, base64",
        },
    )
}
_PROBLEMS = ("keys.none", "server.store")


@blueprint.get("/v1/keys")
@operation(Operation(tag="keys", answers=_ANSWERS, problems=_PROBLEMS))
def newest() -> Response:
    """Fetch the newest key document.

    It says which keys verify edits and bundles from now on, in place of those that the device
    trusted before. There is none as long as the keys are those that the bundle names.
    """
    return _answer(service().keys.document())


@blueprint.get("/v1/keys/<sequence>")
@operation(Operation(tag="keys", answers=_ANSWERS, problems=_PROBLEMS))
def numbered(sequence: str) -> Response:
    """Fetch a key document by its number.

    A device that does not trust the newest one's signer goes through those between.
    """
    try:
        number = parse_whole(sequence)
    except ValueError:
        return _answer(None)
    return _answer(service().keys.document(number))


def _answer(found: SignedKeys | None) -> Response:
    if found is None:
        raise Problem("keys.none", "There is no such key document")
    response = Response(found.data, mimetype=MEDIA_TYPE)
    response.headers["Persona-Key-Id"] = found.signature.key_id
    response.headers["Persona-Signature"] = to_text(found.signature.der)
    response.headers["Cache-Control"] = "no-cache"
    return response
