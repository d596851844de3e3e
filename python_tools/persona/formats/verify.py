"""Verification of an edit: a pure function of the bytes, their signature, and what a device knows.

The rules, in this order; the first that fails gives the code (docs/edit-format.md, "Verification"):

 1. the file is not larger than the bundle allows
 2. its signature is by a key that the bundle names, over all bytes of the file
 3. it is a well-formed container
 4. its format is known and its metadata are well formed
 5. it was made for this bundle, for this device, and after the edit that the device has
 6. it has not expired and is not from the future
 7. its prototype exists, and its tensors are those of the slots: names, kind, shape, dtype
 8. every value is finite and within its slot's bound

Nothing is applied before all have passed. After the swap comes the probe (`check_probe`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np

from persona.formats import container
from persona.formats.edit import EDIT_FORMAT, PROBE, Edit, EditInfo, format_time, parse_info
from persona.formats.errors import Code, FormatError
from persona.formats.slots import SUFFIXES, Array, SlotKind, SlotSpec

CLOCK_SKEW = timedelta(minutes=5)
"""How far a phone's clock may lag behind the cloud's."""


class KeyRing(Protocol):
    """Public keys by id. Implemented with a cryptographic library outside `formats`."""

    def knows(self, key_id: str) -> bool:
        """Whether there is a key with this id."""

    def verifies(self, key_id: str, signature: bytes, data: bytes) -> bool:
        """Whether `signature` (ECDSA P-256, SHA-256, DER) over `data` is by this key."""


@dataclass(frozen=True)
class Signature:
    """A detached signature: the key's id and the DER bytes."""

    key_id: str
    der: bytes


@dataclass(frozen=True)
class Expectation:
    """What a device knows when an edit comes.

    sequence: of the newest edit that it ever accepted; 0 before the first.
    probe_shape: shape of the first golden output.
    max_bytes: the largest edit file that the bundle allows.
    """

    model: str
    bundle: str
    device: str
    sequence: int
    slots: tuple[SlotSpec, ...]
    prototypes: int
    probe_shape: tuple[int, ...]
    max_bytes: int


def verify_edit(
    data: bytes, signature: Signature, keys: KeyRing, expected: Expectation, now: datetime
) -> Edit:
    """The edit in `data`, if every rule holds. Raises FormatError with the first rule's code."""
    _check_size(data, expected)
    _check_signature(data, signature, keys)
    tensors, metadata = container.decode(data)
    if metadata.get("format") != EDIT_FORMAT:
        raise FormatError(
            Code.UNKNOWN_FORMAT,
            f"expected format {EDIT_FORMAT!r}, got {metadata.get('format')!r}; "
            "this reader is older or newer than the cloud",
        )
    info = parse_info(metadata)
    _check_addressee(info, expected)
    _check_time(info, now)
    _check_tensors(info, tensors, expected)
    return _values(info, tensors, expected.slots)


def _faulty(code: Code, message: str) -> FormatError:
    """What a sound cloud never signs, so asking again alone does not help."""
    return FormatError(
        code, f"{message}. The cloud signed a faulty edit: tell who runs it, and go on without"
    )


def _check_size(data: bytes, expected: Expectation) -> None:
    if len(data) > expected.max_bytes:
        raise FormatError(
            Code.TOO_LARGE,
            f"the edit has {len(data)} bytes; at most {expected.max_bytes} are allowed. "
            "Check that this is the right cloud, and ask again",
        )


def _check_signature(data: bytes, signature: Signature, keys: KeyRing) -> None:
    if not keys.knows(signature.key_id):
        raise FormatError(
            Code.UNKNOWN_KEY,
            f"signed with key {signature.key_id!r}, which neither the bundle nor a "
            "key document names; export the bundle for this cloud, or ask the right cloud",
        )
    if not keys.verifies(signature.key_id, signature.der, data):
        raise FormatError(
            Code.BAD_SIGNATURE,
            f"the signature by key {signature.key_id!r} does not match the bytes; ask again",
        )


def _check_addressee(info: EditInfo, expected: Expectation) -> None:
    if (info.model, info.bundle) != (expected.model, expected.bundle):
        raise FormatError(
            Code.OTHER_BASE,
            f"made for {info.model} with bundle {info.bundle[:12]}, this device runs "
            f"{expected.model} with bundle {expected.bundle[:12]}; ask for an edit again",
        )
    if info.device != expected.device:
        raise FormatError(
            Code.OTHER_DEVICE,
            f"made for device {info.device!r}, this is {expected.device!r}; ask for one of its own",
        )
    if info.sequence <= expected.sequence:
        raise FormatError(
            Code.REPLAYED,
            f"sequence {info.sequence} is not newer than {expected.sequence}, which this device "
            "has already had; ask for a new one",
        )


def _check_time(info: EditInfo, now: datetime) -> None:
    if info.expires_at <= now:
        raise FormatError(
            Code.EXPIRED,
            f"expired at {format_time(info.expires_at)}, it is {format_time(now)}; ask again",
        )
    if info.issued_at - now > CLOCK_SKEW:
        raise FormatError(
            Code.FROM_FUTURE,
            f"issued at {format_time(info.issued_at)}, but it is {format_time(now)} here; "
            "check the clock of the device and of the cloud",
        )


def _check_tensors(
    info: EditInfo, tensors: Mapping[str, container.Tensor], expected: Expectation
) -> None:
    if info.prototype is not None and info.prototype >= expected.prototypes:
        raise _faulty(
            Code.UNKNOWN_PROTOTYPE,
            f"relative to prototype {info.prototype}; the bundle has {expected.prototypes}",
        )
    slots = expected.slots
    present = {s.name: {x for x in SUFFIXES if f"{s.name}.{x}" in tensors} for s in slots}
    for slot in slots:
        if not present[slot.name]:
            raise _faulty(Code.SLOT_MISSING, f"the edit has no tensor for slot {slot.name!r}")
    known = {f"{s.name}.{x}" for s in slots for x in SUFFIXES} | {PROBE}
    for name in sorted(tensors, key=str.encode):
        if name not in known:
            raise _faulty(
                Code.SLOT_UNKNOWN,
                f"tensor {name!r} belongs to no slot; slots are {', '.join(present)}",
            )
    for slot in slots:
        if present[slot.name] != set(slot.tensors()):
            raise _faulty(
                Code.SLOT_KIND,
                f"slot {slot.name!r} is {slot.kind} and wants {', '.join(slot.tensors())}; "
                f"the edit has {', '.join(sorted(present[slot.name]))}",
            )
    shapes = {f"{s.name}.{x}": shape for s in slots for x, shape in s.tensors().items()}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise _faulty(
                Code.SLOT_SHAPE,
                f"{name!r} must have shape {list(shape)}, got {list(tensors[name].shape)}",
            )
    for name in shapes:
        if tensors[name].dtype not in ("F16", "F32"):
            raise _faulty(
                Code.SLOT_DTYPE, f"{name!r} must be F16 or F32, got {tensors[name].dtype}"
            )
    if PROBE not in tensors:
        raise _faulty(Code.PROBE_MISSING, f"the edit has no {PROBE!r}")
    probe = tensors[PROBE]
    if (probe.dtype, probe.shape) != ("F32", expected.probe_shape):
        raise _faulty(
            Code.PROBE_SHAPE,
            f"{PROBE!r} must be F32 with shape {list(expected.probe_shape)}, "
            f"got {probe.dtype} with shape {list(probe.shape)}",
        )


def _values(
    info: EditInfo, tensors: Mapping[str, container.Tensor], slots: tuple[SlotSpec, ...]
) -> Edit:
    limits = {f"{s.name}.{x}": limit for s in slots for x, limit in s.limits().items()}
    values = {name: tensors[name].array().astype(np.float32) for name in limits}
    probe = tensors[PROBE].array().astype(np.float32)
    for name, array in {**values, PROBE: probe}.items():
        if not np.isfinite(array).all():
            raise _faulty(
                Code.NOT_FINITE, f"{name!r} holds NaN or infinity, only finite numbers are taken"
            )
    for name, limit in limits.items():
        largest = float(np.abs(values[name]).max(initial=0.0))
        if largest > limit:
            raise _faulty(
                Code.BEYOND_BOUND, f"{name!r} reaches {largest:.6g}; its slot allows {limit:.6g}"
            )
    return Edit(info, values, probe)


def changes_nothing(
    slots: tuple[SlotSpec, ...], prototype: Mapping[str, Array], edit: Mapping[str, Array]
) -> bool:
    """Whether base + prototype + edit is the base: `zero` of `check_probe`.

    Sums are 0, and in each low-rank product one of the two factors is.
    """
    for slot in slots:
        for suffix in slot.tensors():
            name = f"{slot.name}.{suffix}"
            if suffix in ("a", "b"):
                continue
            if (prototype[name] + edit[name]).any():
                return False
        if slot.kind is SlotKind.LOW_RANK:
            a, b = f"{slot.name}.a", f"{slot.name}.b"
            if any(part[a].any() and part[b].any() for part in (prototype, edit)):
                return False
    return True


def check_probe(expected: Array, output: Array, base: Array, tolerance: float, zero: bool) -> None:
    """After the swap: does the edited program do what the cloud computed for this very edit?

    expected, output, base: outputs for the first golden input, from the cloud, from the edited
    program, and from the program without an edit. `zero`: prototype and edit change nothing.
    tolerance: largest difference, relative to max(1, largest magnitude of `expected`).
    """
    if output.shape != expected.shape:
        raise FormatError(
            Code.PROBE_MISMATCH,
            f"the edited program answers with shape {list(output.shape)}, the cloud computed "
            f"{list(expected.shape)}. The edit is taken back; "
            "check that cloud and device have the same bundle",
        )
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    difference = float(np.abs(expected - output).max(initial=0.0))
    if not difference <= tolerance * scale:
        raise FormatError(
            Code.PROBE_MISMATCH,
            f"the edited program is {difference:.3g} away from what the cloud computed; "
            f"{tolerance * scale:.3g} is allowed. The edit is taken back; "
            "check that cloud and device have the same bundle",
        )
    if not zero and np.array_equal(output, base):
        raise FormatError(
            Code.PROBE_NO_EFFECT,
            "the edited program must answer otherwise than the base, but answers alike: the edit "
            "reached no slot. It is taken back; export the bundle again",
        )
