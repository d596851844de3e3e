"""A bundle with one flipped bit in any file, or with a file too many or too few, is refused."""

import re
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from persona.bundles import open_bundle
from persona.formats.errors import FormatError
from persona.signing import PublicKeys, SigningKey, encode_signature

FILES = (
    "base.safetensors",
    "golden.safetensors",
    "prototypes.safetensors",
    "executorch/xnnpack.pte",
    "coreml/fp16/forward.mlpackage/Manifest.json",
    "coreml/fp16/forward.mlpackage/Data/com.apple.CoreML/model.mlmodel",
    "coreml/fp16/forward.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
    "coreml/fp16/observe.mlpackage/Manifest.json",
    "coreml/fp16/observe.mlpackage/Data/com.apple.CoreML/model.mlmodel",
    "coreml/fp16/observe.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
)


@pytest.fixture
def copied(digits_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(digits_bundle.path, tmp_path / "bundle"))


def refused(path: Path, trusted: PublicKeys | None = None) -> tuple[str, str]:
    with pytest.raises(FormatError) as caught:
        open_bundle(path, trusted)
    return caught.value.code.value, str(caught.value.args[0])


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_the_list_above_is_the_whole_bundle(digits_bundle):
    assert set(FILES) == set(digits_bundle.manifest.files)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_one_flipped_bit_in_a_file_is_named_with_what_to_do(copied, name, share):
    size = (copied / name).stat().st_size
    flip(copied / name, round(share * (size - 1)))
    code, message = refused(copied)
    assert code == "bundle.file_changed"
    assert message.startswith(name)
    assert f"must have {size} bytes" in message
    assert "copy the bundle again" in message


def test_one_flipped_bit_anywhere_in_the_manifest_breaks_its_signature(copied):
    manifest = copied / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(0, len(whole), 97):
        flip(manifest, place)
        assert refused(copied)[0] == "bundle.bad_signature"
        manifest.write_bytes(whole)
    open_bundle(copied)


def test_one_flipped_bit_anywhere_in_the_signature_file_is_refused(copied):
    """Every bit but those that only change how the same text is laid out."""
    signature = copied / "manifest.sig"
    whole = signature.read_bytes()
    codes = set()
    for place in range(len(whole.rstrip())):
        if whole[place : place + 1] != b" ":
            flip(signature, place)
            codes.add(refused(copied)[0])
            signature.write_bytes(whole)
    assert codes <= {"bundle.bad_signature", "bundle.unknown_key"}


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "manifest.sig"])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    code, message = refused(copied)
    assert code == "bundle.file_missing"
    assert name in message


def test_a_file_that_the_manifest_does_not_name_is_refused(copied):
    (copied / "executorch" / "extra.pte").write_bytes(b"")
    code, message = refused(copied)
    assert code == "bundle.file_unlisted"
    assert re.search(r"executorch/extra\.pte.*remove it", message)


def test_a_pinned_key_of_someone_else_refuses_the_bundle(copied, digits_run, digits_bundle):
    stranger = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    code, message = refused(copied, PublicKeys([stranger.public]))
    assert code == "bundle.unknown_key"
    assert "pin its publisher's key" in message
    pinned = open_bundle(copied, PublicKeys([digits_run.bundle_key().public]))
    assert pinned.digest == digits_bundle.digest


def test_a_bundle_signed_anew_by_someone_else_opens_only_where_no_key_is_pinned(copied, digits_run):
    stranger = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    data = (copied / "manifest.json").read_bytes()
    signature = encode_signature(stranger.sign(data), stranger.public)
    (copied / "manifest.sig").write_bytes(signature)
    assert open_bundle(copied).key_id == stranger.id
    code, _ = refused(copied, PublicKeys([digits_run.bundle_key().public]))
    assert code == "bundle.unknown_key"


def test_the_key_that_signs_edits_cannot_stand_for_the_publisher(copied, digits_run):
    key = digits_run.edit_key()
    data = (copied / "manifest.json").read_bytes()
    (copied / "manifest.sig").write_bytes(encode_signature(key.sign(data), key.public))
    code, _ = refused(copied, PublicKeys([digits_run.bundle_key().public]))
    assert code == "bundle.unknown_key"


@pytest.mark.parametrize("what", ["nothing", "folder", "zip", "file"])
def test_what_is_no_bundle_folder_is_told_so(digits_bundle, tmp_path, what):
    path = tmp_path / "bundle"
    if what == "folder":
        path.mkdir()
    elif what == "zip":
        path = Path(shutil.make_archive(str(path), "zip", digits_bundle.path))
    elif what == "file":
        path.write_text("bundle")
    code, message = refused(path)
    assert code == ("bundle.manifest_invalid" if what == "zip" else "bundle.file_missing")
    assert ("unpack it" if what == "zip" else "persona export") in message
