"""weights/weight.bin: constants by offset.

    file:   uint32 count, uint32 version 2, zeros to byte 64, then blobs
    blob:   at a multiple of 64: uint32 0xDEADBEEF, uint32 dtype, uint64 size, uint64 offset of
            the data (itself a multiple of 64), zeros to 64 bytes
All little endian.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona_export.coreml_package.errors import PackageError

ALIGNMENT = 64
SENTINEL = 0xDEADBEEF
_HEADER = struct.Struct("<IIQQ")
_STORED = {1: "<f2", 2: "<f4", 3: "u1", 4: "i1", 6: "<i2", 7: "<u2", 14: "<i4", 15: "<u4"}


@dataclass(frozen=True)
class Blob:
    """One constant of the file: where its header and its data are, in bytes."""

    header: int
    data: int
    size: int
    dtype: np.dtype[Any]

    @property
    def end(self) -> int:
        return self.data + self.size


class WeightFile:
    """A weight.bin held in memory. Blobs are checked when they are asked for, not on opening."""

    def __init__(self, content: bytes, name: str = "weight.bin") -> None:
        self.content = content
        self.name = name

    @classmethod
    def open(cls, path: Path) -> "WeightFile":
        return cls(path.read_bytes(), path.name)

    def count(self) -> int:
        """How many blobs the file says it has."""
        if len(self.content) < ALIGNMENT:
            raise PackageError(
                f"{self.name} has {len(self.content)} bytes, its header alone has 64"
            )
        return int(struct.unpack_from("<I", self.content)[0])

    def blob(self, offset: int) -> Blob:
        """The blob whose header is at `offset`. Raises PackageError if there is no such blob."""
        if offset < ALIGNMENT or offset % ALIGNMENT:
            raise PackageError(
                f"{self.name}: no blob is at {offset}; they begin at multiples of 64, from 64"
            )
        if offset + ALIGNMENT > len(self.content):
            raise PackageError(
                f"{self.name}: blob at {offset} begins beyond the file's {len(self.content)} bytes"
            )
        sentinel, code, size, data = _HEADER.unpack_from(self.content, offset)
        if sentinel != SENTINEL:
            raise PackageError(
                f"{self.name}: {offset} holds {sentinel:#x}, not a blob's 0xdeadbeef"
            )
        if code not in _STORED:
            raise PackageError(
                f"{self.name}: blob at {offset} has dtype {code}; known: {sorted(_STORED)}"
            )
        if data < offset + ALIGNMENT or data % ALIGNMENT:
            raise PackageError(
                f"{self.name}: blob at {offset} has data at {data}, "
                "expected a multiple of 64 after its header"
            )
        if data + size > len(self.content):
            raise PackageError(
                f"{self.name}: blob at {offset} ends at {data + size}, "
                f"beyond the file's {len(self.content)} bytes"
            )
        return Blob(offset, data, size, np.dtype(_STORED[code]))

    def read(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The constant at `offset`, which the program declares as `dtype` and `shape`."""
        blob = self.blob(offset)
        if blob.dtype != dtype:
            raise PackageError(
                f"{self.name}: blob at {offset} holds {blob.dtype}, the program declares {dtype}"
            )
        expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if blob.size != expected:
            raise PackageError(
                f"{self.name}: blob at {offset} has {blob.size} bytes; "
                f"{dtype} of shape {list(shape)} takes {expected}"
            )
        return np.frombuffer(self.content[blob.data : blob.end], dtype).reshape(shape)
