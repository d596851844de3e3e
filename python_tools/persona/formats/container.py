"""The safetensors container, read strictly: header, then tensor bytes without hole or overlap.

Any safetensors library opens what `encode` writes. `decode` refuses more than those libraries do
(repeated keys, unknown fields, anything after the last tensor), in a fixed order, so that three
languages give the same verdict. `docs/edit-format.md` specifies both.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from persona.formats.errors import Code, FormatError
from persona.formats.strict_json import MAX_WHOLE, RepeatedKeyError, strict_json

MAX_HEADER_BYTES = 65_536
"""Longest header that a reader accepts; an edit of a hundred slots needs a tenth of it."""

MAX_DIMENSIONS = 8
"""Longest shape of a tensor."""

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "F64": 8,
    "I64": 8,
    "U64": 8,
}

_NUMPY: dict[str, str] = {"F16": "<f2", "F32": "<f4", "I64": "<i8"}
_NAMES = {np.dtype(d): name for name, d in _NUMPY.items()}


@dataclass(frozen=True)
class Tensor:
    """A tensor as the container holds it: dtype name, shape and little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def array(self) -> NDArray[Any]:
        """The values. F16, F32 and I64 only: the dtypes that Persona's files use."""
        if self.dtype not in _NUMPY:
            raise FormatError(
                Code.SLOT_DTYPE, f"expected {', '.join(_NUMPY)} values, got {self.dtype}"
            )
        return np.frombuffer(self.data, _NUMPY[self.dtype]).reshape(self.shape)


def encode(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Write tensors (F16, F32 or I64) in the order given, and string metadata."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    chunks = []
    offset = 0
    for name, array in tensors.items():
        dtype = _NAMES[array.dtype]
        chunk = np.ascontiguousarray(array, dtype=_NUMPY[dtype]).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(chunk)],
        }
        offset += len(chunk)
        chunks.append(chunk)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(chunks)


def decode(
    data: bytes, max_header_bytes: int = MAX_HEADER_BYTES
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata. Raises FormatError with a `container.*` code."""
    header, start = _header(data, max_header_bytes)
    metadata = _metadata(header.pop("__metadata__", {}))
    entries = {name: _entry(name, fields) for name, fields in header.items()}
    _check_layout(entries, len(data) - start)
    tensors = {
        name: Tensor(dtype, shape, data[start + begin : start + end])
        for name, (dtype, shape, begin, end) in entries.items()
    }
    return tensors, metadata


def _header(data: bytes, max_header_bytes: int) -> tuple[dict[str, Any], int]:
    if len(data) < 8:
        raise FormatError(
            Code.CONTAINER_TRUNCATED, f"expected 8 bytes of header length, got {len(data)} bytes"
        )
    length = int.from_bytes(data[:8], "little")
    if length > max_header_bytes:
        raise FormatError(
            Code.CONTAINER_HEADER_TOO_LONG,
            f"the header says it has {length} bytes; at most {max_header_bytes} are allowed",
        )
    if 8 + length > len(data):
        raise FormatError(
            Code.CONTAINER_TRUNCATED,
            f"the header wants {length} bytes, but {len(data) - 8} follow; fetch the file again",
        )
    text = data[8 : 8 + length]
    if not text.startswith(b"{"):
        _invalid("the header must be a JSON object and begin with '{'")
    try:
        return strict_json(text.decode("utf-8"), whole_numbers_only=True), 8 + length
    except RepeatedKeyError as error:
        raise FormatError(Code.CONTAINER_DUPLICATE_KEY, str(error)) from None
    except ValueError as error:
        _invalid(f"the header is not JSON in UTF-8: {error}")


def _invalid(message: str) -> NoReturn:
    raise FormatError(Code.CONTAINER_HEADER_INVALID, message)


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        _invalid("__metadata__ must map strings to strings")
    return value


def _whole_numbers(name: str, field: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(v) is int for v in value):
        _invalid(f"{field} of {name!r} must be a list of whole numbers, got {value!r:.80}")
    return tuple(value)


def _entry(name: str, fields: Any) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        _invalid(f"{name!r} must have exactly dtype, shape and data_offsets")
    dtype = fields["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        _invalid(f"dtype of {name!r} is {dtype!r:.80}; known are {', '.join(DTYPE_BYTES)}")
    shape = _whole_numbers(name, "shape", fields["shape"])
    if len(shape) > MAX_DIMENSIONS:
        _invalid(f"shape of {name!r} has {len(shape)} dimensions, at most {MAX_DIMENSIONS}")
    offsets = _whole_numbers(name, "data_offsets", fields["data_offsets"])
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        _invalid(f"data_offsets of {name!r} must be [begin, end], got {list(offsets[:3])}")
    return dtype, shape, offsets[0], offsets[1]


def _check_layout(entries: Mapping[str, tuple[str, tuple[int, ...], int, int]], size: int) -> None:
    for name, (dtype, shape, begin, end) in sorted(entries.items(), key=lambda e: e[0].encode()):
        nonzero = DTYPE_BYTES[dtype] * math.prod(dimension or 1 for dimension in shape)
        wanted = 0 if 0 in shape else nonzero
        if wanted != end - begin or nonzero > MAX_WHOLE:
            raise FormatError(
                Code.CONTAINER_SIZE_MISMATCH,
                f"{name!r} of type {dtype} and shape {list(shape)} needs {wanted} bytes, "
                f"its data_offsets give {end - begin}",
            )
    by_begin = sorted(entries.items(), key=lambda e: (e[1][2], e[1][3], e[0].encode()))
    for name, (_, _, _, end) in by_begin:
        if end > size:
            raise FormatError(
                Code.CONTAINER_OUT_OF_BOUNDS, f"{name!r} ends at byte {end} of {size}"
            )
    position = 0
    for name, (_, _, begin, end) in by_begin:
        if begin < position:
            raise FormatError(
                Code.CONTAINER_OVERLAP, f"{name!r} begins at {begin}, inside the tensor before it"
            )
        if begin > position:
            raise FormatError(
                Code.CONTAINER_HOLE, f"bytes {position} to {begin} belong to no tensor"
            )
        position = end
    if position != size:
        raise FormatError(
            Code.CONTAINER_TRAILING_BYTES, f"{size - position} bytes follow the last tensor"
        )
