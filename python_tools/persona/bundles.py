"""Bundles on disk: opened, verified file by file, and only then used.

The rules are pure functions in `persona.formats`; this module reads the files and finds the keys.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from persona.formats.bundle_tensors import (
    Golden,
    Prototypes,
    decode_base,
    decode_golden,
    decode_prototypes,
)
from persona.formats.errors import Code, FormatError
from persona.formats.manifest import (
    MANIFEST,
    SIGNATURE,
    File,
    Manifest,
    check_files,
    digest,
    verify_manifest,
)
from persona.formats.slots import Array
from persona.formats.verify import Expectation
from persona.signing import PublicKeys, decode_stored, from_text


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `digest` names it in edits and observations; `key_id` signed it."""

    path: Path
    manifest: Manifest
    digest: str
    key_id: str
    base: dict[str, Array]
    prototypes: Prototypes
    golden: Golden

    def edit_keys(self) -> PublicKeys:
        """The keys that may sign edits for this bundle."""
        return PublicKeys(from_text(key.public_key) for key in self.manifest.edit_keys)

    def expectation(self, device: str, sequence: int) -> Expectation:
        """What an edit for this device must be."""
        return Expectation(
            model=self.manifest.model,
            bundle=self.digest,
            device=device,
            sequence=sequence,
            slots=self.manifest.slots,
            prototypes=self.manifest.prototype_count,
            probe_shape=self.golden.base[0].shape,
            max_bytes=self.manifest.max_edit_bytes,
        )


def open_bundle(path: Path, trusted: PublicKeys | None = None) -> Bundle:
    """Read and verify a bundle folder: signature, every file, slots, prototypes, golden vectors.

    trusted: the publisher's keys that the app pins. Without them the key in `manifest.sig` is
    taken, which proves that the files belong together but not who made them.
    Raises FormatError with a `bundle.*` code.
    """
    if zipfile.is_zipfile(path):
        raise FormatError(
            Code.BUNDLE_MANIFEST, f"{path} is a zip; unpack it and name the folder instead"
        )
    manifest_bytes = _read(path, MANIFEST)
    manifest, key_id = verify_signed(manifest_bytes, _read(path, SIGNATURE), trusted)
    check_files(manifest, _digests(path))
    slots, count = manifest.slots, manifest.prototype_count
    return Bundle(
        path=path,
        manifest=manifest,
        digest=digest(manifest_bytes),
        key_id=key_id,
        base=decode_base(slots, (path / manifest.base).read_bytes()),
        prototypes=decode_prototypes(
            slots, count, manifest.observation.width, (path / manifest.prototypes).read_bytes()
        ),
        golden=decode_golden(
            slots,
            count,
            manifest.inputs,
            manifest.outputs[0],
            manifest.observation,
            (path / manifest.golden).read_bytes(),
        ),
    )


def verify_signed(
    manifest: bytes, signature: bytes, trusted: PublicKeys | None
) -> tuple[Manifest, str]:
    """The manifest and the id of the key that signed it, from the bytes of the two files.

    trusted: as in `open_bundle`. Raises FormatError.
    """
    try:
        stored = decode_stored(signature)
        enclosed = [] if stored.public_key is None else [stored.public_key]
        keys = PublicKeys(enclosed) if trusted is None else trusted
    except ValueError as error:
        raise FormatError(
            Code.BUNDLE_SIGNATURE, f"{SIGNATURE} cannot be read ({error}); copy the bundle again"
        ) from None
    return verify_manifest(manifest, stored.signature, keys), stored.signature.key_id


def _read(path: Path, name: str) -> bytes:
    if not (path / name).is_file():
        raise FormatError(
            Code.BUNDLE_FILE_MISSING,
            f"{path} has no {name}: expected a bundle folder made by `persona export`",
        )
    return (path / name).read_bytes()


def _digests(path: Path) -> dict[str, File]:
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            data = file.read_bytes()
            name = str(PurePosixPath(file.relative_to(path)))
            found[name] = File(len(data), hashlib.sha256(data).hexdigest())
    return {name: file for name, file in found.items() if name not in (MANIFEST, SIGNATURE)}
