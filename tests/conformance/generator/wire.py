"""Bytes, numbers and signatures from first principles, without the package under test."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from numpy.typing import NDArray

NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1"}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

Tensors = Mapping[str, NDArray[Any]]


def numbers(label: str, shape: tuple[int, ...], scale: float = 1.0) -> NDArray[np.float32]:
    """Float32 values in [-scale, scale) that depend on `label` alone, on any machine."""
    count = int(np.prod(shape))
    words = np.frombuffer(hashlib.shake_256(label.encode()).digest(4 * count), "<u4")
    return ((words / 2.0**31 - 1.0) * scale).astype(np.float32).reshape(shape)


def digest(text: str) -> str:
    """sha256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def entry(dtype: str, shape: Any, begin: int, end: int) -> dict[str, Any]:
    """One tensor of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def dtype_name(array: NDArray[Any]) -> str:
    """The container's name for a NumPy dtype."""
    return next(name for name, numpy in NUMPY.items() if np.dtype(numpy) == array.dtype)


def header_of(tensors: Tensors, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """The header of tensors that lie one after the other."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    position = 0
    for name, array in tensors.items():
        header[name] = entry(
            dtype_name(array), list(array.shape), position, position + array.nbytes
        )
        position += array.nbytes
    return header


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def frame(header: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Header length, header and data, with no regard for what they say."""
    text = header.encode() if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def padded(header: str) -> str:
    """Spaces up to a multiple of eight bytes."""
    return header + " " * (-len(header.encode()) % 8)


def body(tensors: Tensors) -> bytes:
    """The tensors' bytes."""
    return b"".join(array.tobytes() for array in tensors.values())


def container(tensors: Tensors, metadata: Mapping[str, Any] | None) -> bytes:
    """A safetensors file as most writers write it."""
    return frame(padded(compact(header_of(tensors, metadata))), body(tensors))


class Key:
    """A key pair for tests, derived from a label; its signatures are those of RFC 6979."""

    def __init__(self, label: str) -> None:
        secret = int.from_bytes(hashlib.sha256(label.encode()).digest()) % (P256_ORDER - 1) + 1
        self._private = ec.derive_private_key(secret, ec.SECP256R1())
        der = self._private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public = base64.b64encode(der).decode()
        self.id = hashlib.sha256(der).hexdigest()[:16]

    def sign(self, data: bytes) -> bytes:
        """DER signature with SHA-256."""
        return self._private.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    def sign_sha384(self, data: bytes) -> bytes:
        """DER signature with the wrong hash."""
        return self._private.sign(data, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))


def compressed(der: bytes) -> bytes:
    """A public key with its point compressed, which no reader takes."""
    key = serialization.load_der_public_key(der)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    point = key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    return bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point


def text(der: bytes) -> str:
    """Base64."""
    return base64.b64encode(der).decode()


def parts(der: bytes) -> tuple[int, int]:
    """(r, s) of a DER signature."""
    return decode_dss_signature(der)


def joined(r: int, s: int) -> bytes:
    """The DER signature of (r, s)."""
    return encode_dss_signature(r, s)


CLOUD = Key("persona conformance: the cloud's key")
SECOND = Key("persona conformance: a second key of the cloud")
STRANGER = Key("persona conformance: a key that no bundle names")
PUBLISHER = Key("persona conformance: the publisher's key")
