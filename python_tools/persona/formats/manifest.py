"""The bundle manifest `persona.bundle/1`: what an app ships, file by file, and how to use it."""

import base64
import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from persona.formats import schema
from persona.formats.errors import Code, FormatError
from persona.formats.observation import ObservationSpec
from persona.formats.slots import SlotKind, SlotSpec
from persona.formats.strict_json import strict_json
from persona.formats.verify import KeyRing, Signature

BUNDLE_FORMAT = "persona.bundle/1"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LARGEST = (2.0 - 2.0**-23) * 2.0**127


@dataclass(frozen=True)
class Dimension:
    """A dimension that the caller chooses, from `min` to `max`."""

    name: str
    min: int
    max: int


@dataclass(frozen=True)
class Port:
    """An input or output of a program.

    A dimension that the caller chooses is -1 in `shape`, and the next of `free` says its limits.
    """

    name: str
    dtype: Literal["float32", "int64"]
    shape: tuple[int, ...]
    free: tuple[Dimension, ...] = ()

    def __post_init__(self) -> None:
        if any(size < 1 and size != -1 for size in self.shape):
            raise ValueError(f"sizes must be 1 or more, or -1, got shape {list(self.shape)}")
        if self.shape.count(-1) != len(self.free):
            raise ValueError(f"shape {list(self.shape)} needs as many free dimensions as it has -1")


@dataclass(frozen=True)
class Patch:
    """The bytes of a head's file that hold one slot tensor: row by row, little-endian.

    offset, length: in bytes, from the file's first.
    """

    offset: int
    length: int
    dtype: Literal["F32"]

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length < 1:
            raise ValueError(
                f"offset must be 0 or more and length 1 or more, got {self.offset}, {self.length}"
            )


@dataclass(frozen=True)
class Feed:
    """How one tensor of a slot reaches a program: by index, by name or both, or by a patch.

    tensor: `SLOT.SUFFIX`. carries: `effective` (base + prototype + edit) or `change`.
    """

    tensor: str
    index: int | None
    input: str | None
    carries: Literal["effective", "change"]
    shape: tuple[int, ...]
    patch: Patch | None = None

    def __post_init__(self) -> None:
        as_input = self.index is not None or self.input is not None
        if as_input == (self.patch is not None):
            raise ValueError(
                f"{self.tensor!r} needs the index or the name of an input, or else a patch"
            )
        if self.index is not None and self.index < 0:
            raise ValueError(f"{self.tensor!r}: index must be 0 or more, got {self.index}")
        if self.patch is None:
            return
        if self.carries != "effective":
            raise ValueError(f"{self.tensor!r}: a patch carries what is effective")
        if self.patch.length != 4 * math.prod(self.shape):
            raise ValueError(
                f"{self.tensor!r}: shape {list(self.shape)} has {4 * math.prod(self.shape)} bytes, "
                f"its patch {self.patch.length}"
            )


@dataclass(frozen=True)
class Head:
    """The second half of a program in two: it takes what the first half gives, in order.

    path: one file. Slots with a patch lie in its bytes; it is loaded anew after they change.
    """

    path: str
    method: str


@dataclass(frozen=True)
class Program:
    """A program for one target in one precision. It feeds every slot tensor once.

    path: a file or a folder in the bundle. method: the entry point, where the file has several.
    observe_path, observe_method: the program that computes features; None for item ids.
    tolerance: largest difference from the golden outputs, relative to max(1, largest magnitude).
    verified: `executed` by a runtime where it was exported, `interpreted` operator by operator,
    or only `lowered`.
    head: the second half, where the program is in two.
    slot_feed: which way of feeding slots was chosen, why, and what was measured.
    """

    target: str
    precision: Literal["fp32", "fp16", "int8"]
    path: str
    method: str
    observe_path: str | None
    observe_method: str | None
    feeds: tuple[Feed, ...]
    tolerance: float
    verified: Literal["executed", "interpreted", "lowered"]
    delegation: dict[str, Any]
    head: Head | None = None
    slot_feed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("tensor", "index", "input"):
            named = Counter(getattr(feed, what) for feed in self.feeds)
            twice = [name for name, times in named.items() if times > 1 and name is not None]
            if twice:
                raise ValueError(f"feeds name the {what} {twice[0]!r} more than once")
        if len({feed.carries for feed in self.feeds}) > 1:
            raise ValueError("feeds must all carry `effective`, or all `change`")
        patches = [feed.patch for feed in self.feeds if feed.patch is not None]
        if bool(patches) != (self.head is not None):
            raise ValueError("patches and a head must come together")
        if self.head is not None and self.head.path in (self.path, self.observe_path):
            raise ValueError(f"the head must be a file of its own, not {self.head.path!r}")
        patches.sort(key=lambda patch: patch.offset)
        for before, after in itertools.pairwise(patches):
            if before.offset + before.length > after.offset:
                raise ValueError(f"two patches share the byte {after.offset}")


@dataclass(frozen=True)
class File:
    """Size and sha256 (hex) of one file of the bundle."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        if self.size < 0 or not _DIGEST.fullmatch(self.sha256):
            raise ValueError("expected a size of 0 or more and a sha256 in lower-case hex")


@dataclass(frozen=True)
class EditKey:
    """A public key (P-256, SubjectPublicKeyInfo DER, base64) that may sign edits."""

    id: str
    public_key: str

    def __post_init__(self) -> None:
        key = base64.b64decode(self.public_key, validate=True)
        if base64.b64encode(key).decode() != self.public_key:
            raise ValueError("public_key is not canonical base64")
        wanted = hashlib.sha256(key).hexdigest()[:16]
        if self.id != wanted:
            raise ValueError(f"the id of this public_key is {wanted!r}, not {self.id!r}")


@dataclass(frozen=True)
class Manifest:
    """Everything that a device needs to know of a bundle.

    base, prototypes, golden: safetensors files, see docs/edit-format.md, "Bundle".
    max_edit_bytes, max_observation_bytes: limits that reader and cloud enforce.
    made_by: configuration, versions, data fingerprint, metrics.
    """

    format: Literal["persona.bundle/1"]
    model: str
    task: Literal["classification", "ranking"]
    created_at: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    slots: tuple[SlotSpec, ...]
    observation: ObservationSpec
    prototype_count: int
    base: str
    prototypes: str
    golden: str
    programs: tuple[Program, ...]
    edit_keys: tuple[EditKey, ...]
    max_edit_bytes: int
    max_observation_bytes: int
    files: dict[str, File]
    made_by: dict[str, Any]

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.model):
            raise ValueError(f"model {self.model!r} must be letters, digits, '_', '.' and '-'")
        names = [s.name for s in self.slots]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"slots must be one or more with different names, got {names}")
        for slot in self.slots:
            _check_slot(slot)
        for path in self.files:
            if not _PATH.fullmatch(path) or path in (MANIFEST, SIGNATURE):
                raise ValueError(f"file {path!r} must be a plain path inside the bundle")
        for needed in (self.base, self.prototypes, self.golden):
            if needed not in self.files:
                raise ValueError(f"{needed!r} is not among the files")
        programs = [f"{p.target} {p.precision}" for p in self.programs]
        if len(set(programs)) != len(programs):
            raise ValueError(f"programs must differ in target or precision, got {programs}")
        for program in self.programs:
            self._check_program(program)
        ports = [port.name for port in (*self.inputs, *self.outputs)]
        if len(set(ports)) != len(ports) or not self.inputs or not self.outputs:
            raise ValueError(f"inputs and outputs must be one or more, all named apart: {ports}")
        if self.prototype_count < 0 or self.max_edit_bytes < 1 or self.max_observation_bytes < 1:
            raise ValueError(
                "prototype_count must be 0 or more, max_edit_bytes and max_observation_bytes "
                "1 or more"
            )

    def _check_program(self, program: Program) -> None:
        for path in (program.path, program.observe_path):
            if path is not None and not any(
                f == path or f.startswith(f"{path}/") for f in self.files
            ):
                raise ValueError(f"program {program.target!r}: {path!r} is not among the files")
        if program.head is not None and program.head.path not in self.files:
            raise ValueError(
                f"program {program.target!r}: {program.head.path!r} is not among the files"
            )
        shapes = {f"{s.name}.{x}": shape for s in self.slots for x, shape in s.feeds().items()}
        for feed in program.feeds:
            if feed.tensor not in shapes:
                raise ValueError(
                    f"program {program.target!r} feeds {feed.tensor!r}, which is of no slot"
                )
            if math.prod(feed.shape) != math.prod(shapes[feed.tensor]):
                raise ValueError(
                    f"program {program.target!r} feeds {feed.tensor!r} with shape "
                    f"{list(feed.shape)}; the slot has {list(shapes[feed.tensor])}"
                )
            if feed.patch is not None and program.head is not None:
                end, size = (
                    feed.patch.offset + feed.patch.length,
                    self.files[program.head.path].size,
                )
                if end > size:
                    raise ValueError(
                        f"program {program.target!r} patches {feed.tensor!r} up to byte {end} of "
                        f"{program.head.path!r}, which has {size}"
                    )
        missing = sorted(set(shapes) - {feed.tensor for feed in program.feeds})
        if missing:
            raise ValueError(f"program {program.target!r} does not feed {missing[0]!r}")

    def program(self, target: str, precision: str | None = None) -> Program:
        """The first program for a target, in this precision where one is asked for.

        Raises LookupError naming those there are.
        """
        for program in self.programs:
            if program.target == target and precision in (None, program.precision):
                return program
        wanted = target if precision is None else f"{target} {precision}"
        there = ", ".join(f"{p.target} {p.precision}" for p in self.programs) or "none"
        raise LookupError(f"the bundle has no program for {wanted!r}; it has: {there}")


def _check_slot(slot: SlotSpec) -> None:
    """Whether a slot's numbers fit its kind; see `SlotSpec`."""
    if not NAME.fullmatch(slot.name) or slot.name == "probe" or slot.name.startswith("probe."):
        raise ValueError(f"{slot.name!r} cannot name a slot")
    affine, low_rank = slot.kind is SlotKind.AFFINE, slot.kind is SlotKind.LOW_RANK
    if slot.out < 1 or (slot.in_ != 0 if affine else slot.in_ < 1):
        raise ValueError(f"slot {slot.name!r}: out and in must be 1 or more; affine: in is 0")
    if slot.rank < 1 if low_rank else slot.rank != 0:
        raise ValueError(f"slot {slot.name!r}: rank must be 1 or more where low-rank, else 0")
    if affine and slot.bias:
        raise ValueError(f"slot {slot.name!r}: an affine slot has a shift and no bias")
    if not 0 < slot.bound <= _LARGEST or not 0 <= slot.bias_bound <= _LARGEST:
        raise ValueError(f"slot {slot.name!r}: bounds must be above 0 and fit binary32")


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`; their sha256 names the bundle."""
    return (json.dumps(schema.encode(manifest), indent=1, ensure_ascii=False) + "\n").encode()


def decode_manifest(data: bytes) -> Manifest:
    """Read `manifest.json`. Raises FormatError `bundle.manifest_invalid` naming the field."""
    try:
        document = strict_json(data.decode("utf-8"))
        found = document.get("format", BUNDLE_FORMAT) if isinstance(document, dict) else None
        if isinstance(found, str) and found != BUNDLE_FORMAT:
            raise ValueError(
                f"its format is {found!r}, and this version reads {BUNDLE_FORMAT!r}; "
                "export the bundle again, or use a version that reads it"
            )
        return schema.decode(Manifest, document, "manifest")
    except ValueError as error:
        raise FormatError(Code.BUNDLE_MANIFEST, f"{MANIFEST}: {error}") from None


def digest(manifest: bytes) -> str:
    """The bundle's name in edits and observations: sha256 of the manifest's bytes, hex."""
    return hashlib.sha256(manifest).hexdigest()


def patched_head(head: bytes, program: Program, values: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The head's file with the patched slot tensors replaced.

    head: the file as the bundle has it. values: `SLOT.SUFFIX` -> effective values, binary32.
    """
    data = bytearray(head)
    for feed in program.feeds:
        if feed.patch is not None:
            start, length = feed.patch.offset, feed.patch.length
            data[start : start + length] = np.ascontiguousarray(
                values[feed.tensor], "<f4"
            ).tobytes()
    return bytes(data)


def verify_manifest(data: bytes, signature: Signature, keys: KeyRing) -> Manifest:
    """Check the signature over `manifest.json`, then read it. Raises FormatError."""
    if not keys.knows(signature.key_id):
        raise FormatError(
            Code.BUNDLE_UNKNOWN_KEY,
            f"the bundle is signed with key {signature.key_id!r}, which is not trusted here; "
            "pin its publisher's key, or take a bundle of a publisher that is",
        )
    if not keys.verifies(signature.key_id, signature.der, data):
        raise FormatError(
            Code.BUNDLE_SIGNATURE,
            f"the signature by key {signature.key_id!r} does not match {MANIFEST}; "
            "copy the bundle again",
        )
    return decode_manifest(data)


def check_files(manifest: Manifest, found: Mapping[str, File]) -> None:
    """Compare the bundle's files (all but manifest and signature) with the manifest."""
    missing = sorted(set(manifest.files) - set(found))
    if missing:
        raise FormatError(
            Code.BUNDLE_FILE_MISSING,
            f"{', '.join(missing)} is missing; copy or export the bundle again",
        )
    for path, wanted in manifest.files.items():
        if found[path] != wanted:
            raise FormatError(
                Code.BUNDLE_FILE_CHANGED,
                f"{path} must have {wanted.size} bytes with sha256 {wanted.sha256[:12]}…, got "
                f"{found[path].size} with {found[path].sha256[:12]}…; copy the bundle again",
            )
    unlisted = sorted(set(found) - set(manifest.files))
    if unlisted:
        raise FormatError(
            Code.BUNDLE_FILE_UNLISTED,
            f"{', '.join(unlisted)} is not in the manifest; remove it, or export again",
        )
