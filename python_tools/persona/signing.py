"""ECDSA P-256 keys: the cloud signs edits, the publisher signs bundles, devices verify.

P-256 with SHA-256 and DER signatures is what Android's and iOS's own libraries verify.
"""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from persona.durable import write_atomic
from persona.formats import schema
from persona.formats.strict_json import strict_json
from persona.formats.verify import Signature

_DER = serialization.Encoding.DER
_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


class SigningKeyError(ValueError):
    """A key file that cannot be used."""


def key_id(public_key: bytes) -> str:
    """First 16 hex digits of the sha256 of the public key (SubjectPublicKeyInfo, DER)."""
    return hashlib.sha256(public_key).hexdigest()[:16]


class SigningKey:
    """A private key, kept in a PEM file that only its owner can read.

    Beside it lies its public half as `NAME.pub`, to be pinned by those who verify.
    """

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(_DER, _SPKI)
        self.id = key_id(self.public)

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """Read the key at `path`; make one there on first use, whole or not at all.

        Of several processes that come first, one makes the key and all use it.
        """
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            private = ec.generate_private_key(ec.SECP256R1())
            pem = private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            _create(path, pem)
        key = cls._load(path)
        key._write_public(path.with_name(f"{path.name}.pub"))
        return key

    @classmethod
    def _load(cls, path: Path) -> "SigningKey":
        try:
            loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except ValueError as error:
            raise SigningKeyError(f"{path} is not a PEM private key: {error}") from None
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.curve.name != "secp256r1":
            raise SigningKeyError(f"{path} must hold an ECDSA P-256 key")
        return cls(loaded)

    def _write_public(self, path: Path) -> None:
        """Bring the public half up to date; where a key is mounted read-only, go without."""
        pem = self._private.public_key().public_bytes(serialization.Encoding.PEM, _SPKI)
        current = path.is_file() and path.read_bytes() == pem
        if not current and os.access(path.parent, os.W_OK):
            write_atomic(path, pem)

    def sign(self, data: bytes) -> Signature:
        """A detached signature over `data`."""
        return Signature(self.id, self._private.sign(data, ec.ECDSA(hashes.SHA256())))


def _create(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read, unless there is one: that one stays."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()


class PublicKeys:
    """A key ring over public keys in DER; `persona.formats.verify.KeyRing` for devices."""

    def __init__(self, public_keys: Iterable[bytes]) -> None:
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}
        for der in public_keys:
            self._keys[key_id(der)] = _public_key(der)

    def knows(self, key: str) -> bool:
        """Whether the ring has a key with this id."""
        return key in self._keys

    def verifies(self, key: str, signature: bytes, data: bytes) -> bool:
        """Whether `signature` over `data` is by the key with this id."""
        try:
            self._keys[key].verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


def _public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """Read a key in the one encoding that has an id: uncompressed point, 91 bytes."""
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"key {key_id(der)} is not a public key in DER: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise SigningKeyError(f"key {key_id(der)} is not an ECDSA P-256 public key")
    if key.public_bytes(_DER, _SPKI) != der:
        raise SigningKeyError(f"key {key_id(der)} must hold its point uncompressed, in DER")
    return key


def read_public_key(path: Path) -> bytes:
    """The public key in a PEM or DER file, in the one encoding that has an id.

    Raises SigningKeyError where the file holds no ECDSA P-256 public key.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SigningKeyError(f"{path} cannot be read: {error.strerror}") from None
    if b"PRIVATE KEY-----" in data:
        raise SigningKeyError(
            f"{path} holds a private key; name its public half instead, {path.name}.pub beside it"
        )
    pem = b"-----BEGIN" in data
    load = serialization.load_pem_public_key if pem else serialization.load_der_public_key
    try:
        key = load(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"{path} is not a public key in PEM or DER: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise SigningKeyError(f"{path} must hold an ECDSA P-256 public key")
    return key.public_bytes(_DER, _SPKI)


def read_signature(key: str, text: str) -> Signature:
    """The signature in the headers `Persona-Key-Id` and `Persona-Signature`.

    Text that is not canonical base64 becomes the empty signature, which no key verifies: so
    verification reports it in its place, after an unknown key.
    """
    try:
        return Signature(key, from_text(text))
    except ValueError:
        return Signature(key, b"")


@dataclass(frozen=True)
class StoredSignature:
    """A signature as it lies beside its file.

    public_key: the signer's, in DER, for readers that have pinned no key. It proves only that
    signature and file belong together.
    """

    signature: Signature
    public_key: bytes | None = None


def encode_signature(signature: Signature, public_key: bytes | None = None) -> bytes:
    """A signature as it is stored beside its file: JSON with `key_id` and `signature`.

    public_key: in DER, goes along as a third field for readers that have pinned no key.
    """
    document = {"key_id": signature.key_id, "signature": to_text(signature.der)}
    if public_key is not None:
        document["public_key"] = to_text(public_key)
    return (json.dumps(document) + "\n").encode()


def decode_signature(data: bytes) -> Signature:
    """The signature in what `encode_signature` wrote. Raises ValueError as `decode_stored` does."""
    return decode_stored(data).signature


def decode_stored(data: bytes) -> StoredSignature:
    """The reverse of `encode_signature`.

    Raises ValueError when the JSON is not such, or its public key is not that of its id.
    """
    document: Any = strict_json(data.decode("utf-8"))
    if not isinstance(document, dict) or "public_key" not in document:
        stored = schema.decode(_Alone, document, "signature")
        return StoredSignature(read_signature(stored.key_id, stored.signature))
    with_key = schema.decode(_WithKey, document, "signature")
    public = from_text(with_key.public_key)
    if key_id(public) != with_key.key_id:
        raise ValueError(f"the id of its public_key is {key_id(public)!r}, not {with_key.key_id!r}")
    return StoredSignature(read_signature(with_key.key_id, with_key.signature), public)


@dataclass(frozen=True)
class _Alone:
    key_id: str
    signature: str


@dataclass(frozen=True)
class _WithKey(_Alone):
    public_key: str


def to_text(data: bytes) -> str:
    """Base64, as signatures and keys stand in headers and JSON."""
    return base64.b64encode(data).decode("ascii")


def from_text(text: str) -> bytes:
    """The reverse of `to_text`. Raises ValueError when the text is not canonical base64."""
    data = base64.b64decode(text, validate=True)
    if to_text(data) != text:
        raise ValueError(f"{text!r:.40} is not canonical base64")
    return data
