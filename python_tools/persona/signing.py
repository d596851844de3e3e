"""ECDSA P-256 keys: the cloud signs edits, the publisher signs bundles, devices verify.

P-256 with SHA-256 and DER signatures is what Android's and iOS's own libraries verify.
"""

import base64
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from persona.formats.verify import Signature


class SigningKeyError(ValueError):
    """A key file that cannot be used."""


def key_id(public_key: bytes) -> str:
    """First 16 hex digits of the sha256 of the public key (SubjectPublicKeyInfo, DER)."""
    return hashlib.sha256(public_key).hexdigest()[:16]


class SigningKey:
    """A private key, kept in a PEM file that only its owner can read."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.id = key_id(self.public)

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """Read the key at `path`; make one there on first use."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            private = ec.generate_private_key(ec.SECP256R1())
            pem = private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                return cls.load_or_create(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
            return cls(private)
        try:
            loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except ValueError as error:
            raise SigningKeyError(f"{path} is not a PEM private key: {error}") from None
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.curve.name != "secp256r1":
            raise SigningKeyError(f"{path} must hold an ECDSA P-256 key")
        return cls(loaded)

    def sign(self, data: bytes) -> Signature:
        """A detached signature over `data`."""
        return Signature(self.id, self._private.sign(data, ec.ECDSA(hashes.SHA256())))


class PublicKeys:
    """A key ring over public keys in DER; `persona.formats.verify.KeyRing` for devices."""

    def __init__(self, public_keys: Iterable[bytes]) -> None:
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}
        for der in public_keys:
            key = serialization.load_der_public_key(der)
            if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
                raise SigningKeyError(f"key {key_id(der)} is not an ECDSA P-256 public key")
            self._keys[key_id(der)] = key

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


def to_text(data: bytes) -> str:
    """Base64, as signatures and keys stand in headers and JSON."""
    return base64.b64encode(data).decode("ascii")


def from_text(text: str) -> bytes:
    """The reverse of `to_text`. Raises ValueError when the text is not base64."""
    return base64.b64decode(text, validate=True)
