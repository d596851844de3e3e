"""The bundle manifest `persona.bundle/1`: what an app ships, file by file, and how to use it."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from persona.formats import schema
from persona.formats.errors import Code, FormatError
from persona.formats.observation import ObservationSpec
from persona.formats.slots import SlotSpec
from persona.formats.strict_json import strict_json

BUNDLE_FORMAT = "persona.bundle/1"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


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


@dataclass(frozen=True)
class Feed:
    """How one tensor of a slot reaches a program: by index, by name, or both.

    tensor: `SLOT.SUFFIX`. carries: `effective` (base + prototype + edit) or `change`.
    """

    tensor: str
    index: int | None
    input: str | None
    carries: Literal["effective", "change"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A program for one target.

    path: a file or a folder in the bundle. method: the entry point, where the file has several.
    observe_path, observe_method: the program that computes features; None for item ids.
    tolerance: largest difference from the golden outputs, relative to max(1, largest magnitude).
    verified: `executed` by a runtime where it was exported, `interpreted` operator by operator,
    or only `lowered`.
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


@dataclass(frozen=True)
class File:
    """Size and sha256 (hex) of one file of the bundle."""

    size: int
    sha256: str


@dataclass(frozen=True)
class EditKey:
    """A public key (P-256, SubjectPublicKeyInfo DER, base64) that may sign edits."""

    id: str
    public_key: str


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
        if not _NAME.fullmatch(self.model):
            raise ValueError(f"model {self.model!r} must be letters, digits, '_', '.' and '-'")
        names = [s.name for s in self.slots]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"slots must be one or more with different names, got {names}")
        for name in names:
            if not _NAME.fullmatch(name) or name == "probe" or name.startswith("probe."):
                raise ValueError(f"{name!r} cannot name a slot")
        for path in self.files:
            pure = PurePosixPath(path)
            if pure.is_absolute() or ".." in pure.parts or path != str(pure) or "\\" in path:
                raise ValueError(f"file {path!r} must be a plain path inside the bundle")
        for needed in (self.base, self.prototypes, self.golden):
            if needed not in self.files:
                raise ValueError(f"{needed!r} is not among the files")

    def program(self, target: str) -> Program:
        """The program for a target. Raises LookupError naming those there are."""
        for program in self.programs:
            if program.target == target:
                return program
        there = ", ".join(p.target for p in self.programs)
        raise LookupError(f"the bundle has no program for {target!r}; it has: {there}")


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`; their sha256 names the bundle."""
    return (json.dumps(schema.encode(manifest), indent=1, ensure_ascii=False) + "\n").encode()


def decode_manifest(data: bytes) -> Manifest:
    """Read `manifest.json`. Raises FormatError `bundle.manifest_invalid` naming the field."""
    try:
        return schema.decode(Manifest, strict_json(data.decode("utf-8")), "manifest")
    except (ValueError, RecursionError) as error:
        raise FormatError(Code.BUNDLE_MANIFEST, f"{MANIFEST}: {error}") from None


def digest(manifest: bytes) -> str:
    """The bundle's name in edits and observations: sha256 of the manifest's bytes, hex."""
    return hashlib.sha256(manifest).hexdigest()


def check_files(manifest: Manifest, found: Mapping[str, File]) -> None:
    """Compare the bundle's files (all but manifest and signature) with the manifest."""
    for path, wanted in manifest.files.items():
        if path not in found:
            raise FormatError(
                Code.BUNDLE_FILE_MISSING, f"{path} is missing; copy or export the bundle again"
            )
        if found[path] != wanted:
            raise FormatError(
                Code.BUNDLE_FILE_CHANGED,
                f"{path} must have {wanted.size} bytes with sha256 {wanted.sha256[:12]}…, got "
                f"{found[path].size} with {found[path].sha256[:12]}…; copy the bundle again",
            )
    _check_unlisted(manifest, found)


def _check_unlisted(manifest: Manifest, found: Iterable[str]) -> None:
    unlisted = sorted(set(found) - set(manifest.files))
    if unlisted:
        raise FormatError(
            Code.BUNDLE_FILE_UNLISTED,
            f"{', '.join(unlisted)} is not in the manifest; remove it, or export again",
        )
