"""Observation in, signed edit out."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.http import http_date

from persona.bundles import Bundle
from persona.formats import container
from persona.formats.edit import MEDIA_TYPE, format_time
from persona.formats.errors import Code, FormatError
from persona.formats.observation import (
    MEDIA_TYPE_SAFETENSORS,
    OBSERVATION_FORMAT,
    ItemsSpec,
    from_safetensors,
    parse_json,
)
from persona.formats.strict_json import strict_json
from persona.issuing import Issuer
from persona.signing import to_text
from persona_cloud.api.bundle_files import bundle_url
from persona_cloud.batching import BusyError
from persona_cloud.identity import enrolled_device, shut_out
from persona_cloud.incoming import JSON, body, media_type, representation
from persona_cloud.openapi import BINARY, Answer, Body, Operation, Parameter, operation
from persona_cloud.outgoing import answer
from persona_cloud.problems import KINDS, Problem
from persona_cloud.service import EditRequest, service
from persona_cloud.store import (
    Idempotency,
    NoDeviceError,
    OtherRequestError,
    SignedEdit,
)
from persona_cloud.versions import Observed

blueprint = Blueprint("edits", __name__)

_MAX_KEY = 200


@dataclass(frozen=True)
class EditDocument:
    """An edit for people. edit, signature: base64 of the file's bytes and of the DER."""

    model: str
    bundle: str
    device: str
    sequence: int
    prototype: int | None
    issued_at: str
    expires_at: str
    key_id: str
    signature: str
    edit: str


@blueprint.post("/v1/models/<model>/edits")
@operation(
    Operation(
        tag="edits",
        token=True,
        parameters=(
            Parameter(
                "header",
                "Idempotency-Key",
                "The device's name for this request: repeated, it gets the same edit",
                {"type": "string", "maxLength": _MAX_KEY, "pattern": "^[!-~]+$"},
            ),
        ),
        body=Body(
            {
                JSON: {"$ref": "#/components/schemas/Observation"},
                MEDIA_TYPE_SAFETENSORS: BINARY,
            }
        ),
        answers={
            200: Answer(
                "The edit",
                {MEDIA_TYPE: BINARY, JSON: EditDocument},
                {
                    "Persona-Key-Id": "Which of the bundle's edit keys signed",
                    "Persona-Signature": "ECDSA P-256 with SHA-256 over the edit, DER, base64",
                    "Persona-Sequence": "Larger than that of the device's edits before",
                    "Persona-Bundle": "Digest of the bundle that the device shall have",
                    "Persona-Keys": "Sequence of the newest key document, 0 before the first",
                    "ETag": "sha256 of the body",
                    "Expires": "When the edit expires",
                },
            )
        },
        problems=(
            "model.unknown",
            "request.idempotency_key",
            "request.accept",
            "request.too_large",
            "request.media_type",
            "idempotency.other_request",
            "server.busy",
            "server.version",
            "server.key",
            *(code for code in KINDS if code.startswith(("observation.", "container."))),
        ),
    )
)
def make_edit(model: str) -> Response:
    """Make an edit from an observation.

    The edit is for the device whose token is sent and for the bundle that the observation names.
    That may be an older version for as long as the host allows; `Persona-Bundle` says which one
    the device shall have. What is observed is not stored.
    """
    here = service()
    line = here.versions.of_model(model)
    stable = here.versions.bundle(line.stable)
    data = body(stable.manifest.max_observation_bytes)  # first: unread bytes cost the connection
    device = enrolled_device()
    here.quotas.spend(here.quotas.edits, "edits of a device", device)
    wanted = representation(MEDIA_TYPE, JSON)
    kind = media_type(JSON, MEDIA_TYPE_SAFETENSORS)
    asked = _idempotency(model, kind, data)
    wanted_version = here.versions.wanted(device)
    observed = _observed(kind, data, wanted_version)
    try:
        with here.places.take(), here.metrics.waiting.track_inprogress():
            edit = _make(EditRequest(device, observed, asked))
    except BusyError:
        raise Problem(
            "server.busy", "Other edits are being made", headers={"Retry-After": "1"}
        ) from None
    except NoDeviceError:
        raise shut_out() from None
    except OtherRequestError as error:
        raise Problem(
            "idempotency.other_request",
            f"This device has sent Idempotency-Key {error!s:.200} with another body",
        ) from None
    response = _answer(edit, wanted)
    response.headers["Persona-Bundle"] = wanted_version
    response.headers["Persona-Keys"] = str(here.keys.sequence())
    return response


def _make(wanted: EditRequest) -> SignedEdit:
    """The edit that this request got before, or a new one. Raises OtherRequestError."""
    here = service()
    kept = here.store.kept_answer(wanted.device, wanted.asked, datetime.now(UTC))
    if kept is not None:
        return kept
    edit = here.making.answer(wanted)
    if edit.info.device != wanted.device:
        raise RuntimeError("the edit is another device's")
    here.metrics.edits.labels(str(edit.info.prototype).lower()).inc()
    return edit


def _idempotency(model: str, kind: str, data: bytes) -> Idempotency | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= _MAX_KEY or not all("!" <= character <= "~" for character in key):
        raise Problem("request.idempotency_key", f"Got {len(key)} characters: {key!r:.100}")
    asked = b"\0".join((model.encode(), kind.encode(), data))
    return Idempotency(key, hashlib.sha256(asked).hexdigest())


def _observed(kind: str, data: bytes, wanted: str) -> Observed:
    """Read an observation, for the version that it names.

    Nearly all name the one that the device shall have: a body is read for that, and a second time
    only where it is none. Raises FormatError, or Problem `observation.other_base`.
    """
    read = parse_json if kind == JSON else from_safetensors
    issuer = service().versions.in_memory(wanted)
    if issuer is not None:
        try:
            envelope = read(issuer.bundle.manifest.observation, data)
        except FormatError:
            if _named_bundle(kind, data) in (wanted, None):
                raise
        else:
            if envelope.bundle == wanted:
                return Observed(envelope.observation, issuer)
    issuer = _issuer(kind, data, wanted)
    return Observed(read(issuer.bundle.manifest.observation, data).observation, issuer)


def _issuer(kind: str, data: bytes, wanted: str) -> Issuer:
    """Who makes edits for the bundle that an observation names.

    Raises Problem `observation.other_base` with the bundle that the device shall have.
    """
    versions = service().versions
    named = _named_bundle(kind, data)
    if not isinstance(named, str):
        return versions.issuer(wanted)
    if versions.serves(named):
        return versions.issuer(named)
    raise Problem(
        Code.OBSERVATION_OTHER_BASE,
        f"Expected an observation for bundle {wanted[:12]}…, got {named!r:.16}",
        bundle=wanted,
        bundle_url=bundle_url(versions.line().versions[wanted].model, wanted),
    )


def _named_bundle(kind: str, data: bytes) -> Any:
    """The bundle that an observation names, found before its statistics are looked at.

    Another bundle may pool others, and its devices must learn of the right one all the same.
    """
    try:
        named = strict_json(data.decode()) if kind == JSON else container.decode(data)[1]
    except ValueError:
        return None
    return named.get("bundle") if isinstance(named, dict) else None


def _answer(edit: SignedEdit, wanted: str) -> Response:
    """An edit with its signature, as a file or as JSON: a function of what was stored."""
    info = edit.info
    key, signature = edit.signature.key_id, to_text(edit.signature.der)
    if wanted == JSON:
        response = answer(
            EditDocument(
                model=info.model,
                bundle=info.bundle,
                device=info.device,
                sequence=info.sequence,
                prototype=info.prototype,
                issued_at=format_time(info.issued_at),
                expires_at=format_time(info.expires_at),
                key_id=key,
                signature=signature,
                edit=to_text(edit.data),
            )
        )
    else:
        response = Response(edit.data, mimetype=MEDIA_TYPE)
    response.set_etag(hashlib.sha256(response.get_data()).hexdigest())
    response.headers.update(
        {
            "Persona-Key-Id": key,
            "Persona-Signature": signature,
            "Persona-Sequence": str(info.sequence),
            "Expires": http_date(info.expires_at),
            "Cache-Control": "private",
            "Vary": "Accept",
        }
    )
    return response


def observation_schema(bundle: Bundle) -> dict[str, Any]:
    """JSON schema of the observations that this bundle wants."""
    spec = bundle.manifest.observation
    low, high = spec.min_count, spec.max_count
    fields: dict[str, Any] = {
        "format": {"const": OBSERVATION_FORMAT},
        "bundle": {"const": bundle.digest},
        "kind": {"const": spec.kind},
    }
    if isinstance(spec, ItemsSpec):
        item = {"type": "integer", "minimum": 1, "maximum": spec.vocabulary}
        fields["items"] = {"type": "array", "items": item, "minItems": low, "maxItems": high}
    else:
        number = {"type": "number"}
        by_feature, by_class = _list_of(number, spec.features), _list_of(number, spec.classes)
        fields |= {
            "count": {"type": "integer", "minimum": low, "maximum": high},
            "mean": by_feature,
            "deviation": by_feature,
            "class_mass": by_class,
            "class_prior": by_class,
            "class_mean": _list_of(by_feature, spec.classes),
        }
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _list_of(item: dict[str, Any], length: int) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": length, "maxItems": length}
