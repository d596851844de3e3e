"""The key document `persona.keys/1`: which keys a device trusts from now on.

Reading is a pure function of the bytes, their signature, what the device trusts and the time. The
rules, in this order; the first that fails gives the code (docs/edit-format.md, "Key document"):

1. it is not larger than MAX_BYTES
2. its signature is by a bundle key that the device trusts, over all bytes
3. it is strict JSON of a known format, with fields that are well formed
4. it is newer than the document that the device has, and not from the future
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from persona.formats import schema
from persona.formats.edit import format_time, parse_time
from persona.formats.errors import Code, FormatError
from persona.formats.strict_json import MAX_WHOLE, strict_json
from persona.formats.verify import CLOCK_SKEW, KeyRing, Signature

KEYS_FORMAT = "persona.keys/1"
MEDIA_TYPE = "application/vnd.persona.keys+json"
MAX_BYTES = 65_536

_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""What a P-256 SubjectPublicKeyInfo with an uncompressed point begins with; 64 bytes follow."""

_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


@dataclass(frozen=True)
class TrustedEditKey:
    """A public key in DER that verifies edits; until: from then on no more, None for no end."""

    public_key: bytes
    until: datetime | None


@dataclass(frozen=True)
class KeyDocument:
    """What a device trusts, in place of what it trusted before.

    sequence: grows with each document. edit_keys, bundle_keys: by key id; bundle keys verify
    bundles and the next key documents.
    """

    sequence: int
    issued_at: datetime
    edit_keys: dict[str, TrustedEditKey]
    bundle_keys: dict[str, bytes]

    def edit_keys_at(self, now: datetime) -> list[bytes]:
        """The public keys that verify edits at this moment."""
        keys = self.edit_keys.values()
        return [key.public_key for key in keys if key.until is None or now < key.until]


@dataclass(frozen=True)
class _EditKey:
    id: str
    public_key: str
    until: str | None


@dataclass(frozen=True)
class _BundleKey:
    id: str
    public_key: str


@dataclass(frozen=True)
class _Document:
    format: str
    sequence: int
    issued_at: str
    edit_keys: tuple[_EditKey, ...]
    bundle_keys: tuple[_BundleKey, ...]


def key_id(public_key: bytes) -> str:
    """First 16 hex digits of the sha256 of the public key (SubjectPublicKeyInfo, DER)."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def encode_keys(document: KeyDocument) -> bytes:
    """The bytes of a key document, to be signed as they are."""
    written = _Document(
        format=KEYS_FORMAT,
        sequence=document.sequence,
        issued_at=format_time(document.issued_at),
        edit_keys=tuple(
            _EditKey(
                name, _text(key.public_key), None if key.until is None else format_time(key.until)
            )
            for name, key in document.edit_keys.items()
        ),
        bundle_keys=tuple(
            _BundleKey(name, _text(key)) for name, key in document.bundle_keys.items()
        ),
    )
    return (json.dumps(schema.encode(written), indent=1) + "\n").encode()


def verify_keys(
    data: bytes, signature: Signature, trusted: KeyRing, sequence: int, now: datetime
) -> KeyDocument:
    """The key document in `data`, if every rule holds. Raises FormatError with the first's code.

    trusted: the bundle keys that the device trusts. sequence: of the document that it has, or 0.
    """
    if len(data) > MAX_BYTES:
        raise FormatError(
            Code.KEYS_TOO_LARGE,
            f"the key document has {len(data)} bytes; at most {MAX_BYTES} are allowed. "
            "Check that this is the right cloud",
        )
    if not trusted.knows(signature.key_id):
        raise FormatError(
            Code.KEYS_UNKNOWN_KEY,
            f"the key document is signed with key {signature.key_id!r}, which is not trusted here; "
            "ask for the documents between, or update the app",
        )
    if not trusted.verifies(signature.key_id, signature.der, data):
        raise FormatError(
            Code.KEYS_BAD_SIGNATURE,
            f"the signature by key {signature.key_id!r} does not match the key document; ask again",
        )
    document = decode_keys(data)
    if document.sequence <= sequence:
        raise FormatError(
            Code.KEYS_REPLAYED,
            f"key document {document.sequence} is not newer than {sequence}, which this device "
            "has; keep that",
        )
    if document.issued_at - now > CLOCK_SKEW:
        raise FormatError(
            Code.KEYS_FROM_FUTURE,
            f"key document issued at {format_time(document.issued_at)}, but it is "
            f"{format_time(now)} here; check the clock of the device and of the cloud",
        )
    return document


def decode_keys(data: bytes) -> KeyDocument:
    """Read a key document whose signature has been verified. Raises FormatError."""
    try:
        value = strict_json(data.decode("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("expected an object")
    except ValueError as error:
        raise _invalid(error) from None
    if value.get("format") != KEYS_FORMAT:
        raise FormatError(
            Code.KEYS_UNKNOWN_FORMAT,
            f"expected format {KEYS_FORMAT!r}, got {value.get('format')!r:.100}; "
            "this reader is older or newer than the cloud",
        )
    try:
        return _read(schema.decode(_Document, value, "keys"))
    except ValueError as error:
        raise _invalid(error) from None


def _invalid(error: ValueError) -> FormatError:
    return FormatError(
        Code.KEYS_INVALID,
        f"the key document cannot be read: {error}. Tell who runs the cloud, and keep what is "
        "trusted now",
    )


def _read(document: _Document) -> KeyDocument:
    if not 1 <= document.sequence <= MAX_WHOLE:
        raise ValueError(f"sequence must be 1 or more, got {document.sequence}")
    if not document.bundle_keys:
        raise ValueError("bundle_keys must name a key, else no document could follow")

    def edit_key(key: _EditKey) -> TrustedEditKey:
        return TrustedEditKey(
            _public_key(key), None if key.until is None else parse_time(key.until)
        )

    edit_keys = _by_id(document.edit_keys, edit_key)
    bundle_keys = _by_id(document.bundle_keys, _public_key)
    for name in edit_keys:
        if name in bundle_keys:
            raise ValueError(f"key {name!r} is both an edit key and a bundle key")
    return KeyDocument(document.sequence, parse_time(document.issued_at), edit_keys, bundle_keys)


K = TypeVar("K", _EditKey, _BundleKey)
V = TypeVar("V")


def _by_id(keys: tuple[K, ...], read: Callable[[K], V]) -> dict[str, V]:
    found: dict[str, V] = {}
    for key in keys:
        if key.id in found:
            raise ValueError(f"key {key.id!r} stands twice")
        found[key.id] = read(key)
    return found


def _public_key(key: _EditKey | _BundleKey) -> bytes:
    """A point of P-256 in its one encoding, with its own id."""
    data = base64.b64decode(key.public_key, validate=True)
    if _text(data) != key.public_key:
        raise ValueError(f"public_key of {key.id!r} is not canonical base64")
    if len(data) != len(_SPKI) + 64 or not data.startswith(_SPKI):
        raise ValueError(f"public_key of {key.id!r} is not a P-256 key with its point uncompressed")
    x, y = (int.from_bytes(data[start : start + 32]) for start in (len(_SPKI), len(_SPKI) + 32))
    if x >= _PRIME or y >= _PRIME or (y * y - (x * x * x - 3 * x + _B)) % _PRIME:
        raise ValueError(f"public_key of {key.id!r} is not a point of P-256")
    if key_id(data) != key.id:
        raise ValueError(f"the id of this public_key is {key_id(data)!r}, not {key.id!r}")
    return data


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
