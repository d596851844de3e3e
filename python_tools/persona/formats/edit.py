"""The edit file `persona.edit/1`: a safetensors file that says what it changes, for whom and when.

`encode_edit` writes one. Reading is `persona.formats.verify`: an edit is never read unverified.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from persona.formats import container
from persona.formats.errors import Code, FormatError
from persona.formats.slots import Array, SlotSpec
from persona.formats.strict_json import MAX_WHOLE

EDIT_FORMAT = "persona.edit/1"
MEDIA_TYPE = "application/vnd.persona.edit+safetensors"
PROBE = "probe.expected"
METADATA = (
    "format",
    "model",
    "bundle",
    "device",
    "sequence",
    "prototype",
    "issued_at",
    "expires_at",
)


@dataclass(frozen=True)
class EditInfo:
    """What an edit says of itself.

    model, bundle, device: for whom; bundle is the sha256 of the manifest, in hex.
    sequence: grows with each edit of a device.
    prototype: the prototype that the edit is added to, or None for the base.
    issued_at, expires_at: UTC, whole seconds.
    """

    model: str
    bundle: str
    device: str
    sequence: int
    prototype: int | None
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Edit:
    """A verified edit: what it says, its change `SLOT.SUFFIX` -> float32, and the probe."""

    info: EditInfo
    tensors: dict[str, Array]
    probe: Array


_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, the only spelling that the contract allows."""
    whole = moment.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    return f"{whole.isoformat()}Z"


def parse_time(text: str) -> datetime:
    """The reverse of `format_time`. Raises ValueError on any other spelling."""
    if not _TIME.fullmatch(text) or text.startswith("0000"):
        raise ValueError(f"{text!r} is not a UTC time such as 2026-01-31T12:00:00Z")
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def parse_whole(text: str) -> int:
    """A decimal whole number below 2**53 without sign or leading zero. Raises ValueError."""
    if not _WHOLE.fullmatch(text) or int(text) > MAX_WHOLE:
        raise ValueError(f"{text!r} is not a whole number up to {MAX_WHOLE}")
    return int(text)


def parse_info(metadata: Mapping[str, str]) -> EditInfo:
    """Read the metadata of an edit whose `format` is known."""
    if set(metadata) != set(METADATA):
        raise FormatError(
            Code.METADATA_INVALID,
            f"expected the metadata {', '.join(METADATA)}, got {', '.join(sorted(metadata))}",
        )
    try:
        if not _DIGEST.fullmatch(metadata["bundle"]):
            raise ValueError(f"bundle {metadata['bundle']!r} is not a sha256 in lower-case hex")
        prototype = metadata["prototype"]
        info = EditInfo(
            model=metadata["model"],
            bundle=metadata["bundle"],
            device=metadata["device"],
            sequence=parse_whole(metadata["sequence"]),
            prototype=None if prototype == "none" else parse_whole(prototype),
            issued_at=parse_time(metadata["issued_at"]),
            expires_at=parse_time(metadata["expires_at"]),
        )
        if not info.model or not info.device or info.sequence == 0:
            raise ValueError("model, device and sequence must not be empty or 0")
        if info.expires_at <= info.issued_at:
            raise ValueError("expires_at must be later than issued_at")
    except ValueError as error:
        raise FormatError(Code.METADATA_INVALID, f"edit metadata: {error}") from None
    return info


def quantise(
    slots: tuple[SlotSpec, ...], tensors: Mapping[str, Array]
) -> dict[str, NDArray[np.float16]]:
    """Round a change to F16 without crossing a bound: what goes into the file by default."""
    rounded = {}
    for slot in slots:
        for suffix, limit in slot.limits().items():
            name = f"{slot.name}.{suffix}"
            values = tensors[name].astype(np.float16)
            beyond = np.abs(values.astype(np.float32)) > np.float32(limit)
            toward_zero = np.nextafter(values, np.float16(0))
            rounded[name] = np.where(beyond, toward_zero, values)
    return rounded


def encode_edit(
    info: EditInfo,
    tensors: Mapping[str, NDArray[np.float16] | Array],
    probe: Array,
) -> bytes:
    """Write an edit file. `tensors` hold F16 or F32 values within the slots' bounds."""
    metadata = {
        "format": EDIT_FORMAT,
        "model": info.model,
        "bundle": info.bundle,
        "device": info.device,
        "sequence": str(info.sequence),
        "prototype": "none" if info.prototype is None else str(info.prototype),
        "issued_at": format_time(info.issued_at),
        "expires_at": format_time(info.expires_at),
    }
    return container.encode({**tensors, PROBE: probe.astype(np.float32)}, metadata)
