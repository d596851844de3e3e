"""The manifest: it comes back as it was, and a field that does not fit is named."""

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from persona.formats.errors import FormatError
from persona.formats.manifest import (
    Dimension,
    EditKey,
    Feed,
    File,
    Manifest,
    Port,
    Program,
    check_files,
    decode_manifest,
    digest,
    encode_manifest,
    verify_manifest,
)
from persona.formats.observation import ItemsSpec
from persona.formats.slots import SlotKind, SlotSpec
from persona.signing import PublicKeys, SigningKey

PUBLISHER = SigningKey(ec.generate_private_key(ec.SECP256R1()))
FILES = {
    name: File(len(name), hashlib.sha256(name.encode()).hexdigest())
    for name in ("b.safetensors", "p.safetensors", "g.safetensors", "net/main.bin")
}
MANIFEST = Manifest(
    format="persona.bundle/1",
    model="net",
    task="ranking",
    created_at="2026-01-01T00:00:00Z",
    inputs=(Port("x", "float32", (1, -1), (Dimension("n", 1, 9),)),),
    outputs=(Port("y", "float32", (1, 5)),),
    slots=(SlotSpec("head", SlotKind.LOW_RANK, 5, 3, 2, False, 0.5, 0.0),),
    observation=ItemsSpec("items", 9, 1, 4),
    prototype_count=2,
    base="b.safetensors",
    prototypes="p.safetensors",
    golden="g.safetensors",
    programs=(
        Program(
            target="cpu",
            precision="fp32",
            path="net",
            method="forward",
            observe_path=None,
            observe_method=None,
            feeds=(
                Feed("head.a", 1, None, "change", (4, 3)),
                Feed("head.b", 2, None, "change", (5, 4)),
            ),
            tolerance=1e-4,
            verified="executed",
            delegation={"delegates": 1},
        ),
    ),
    edit_keys=(EditKey(PUBLISHER.id, base64.b64encode(PUBLISHER.public).decode()),),
    max_edit_bytes=1000,
    max_observation_bytes=1000,
    files=FILES,
    made_by={"versions": {"persona": "0.1.0"}, "metrics": [0.5, None]},
)
A, B = MANIFEST.programs[0].feeds


def test_a_manifest_comes_back_as_it_was():
    assert decode_manifest(encode_manifest(MANIFEST)) == MANIFEST


def test_the_same_manifest_has_the_same_bytes_and_digest():
    assert encode_manifest(MANIFEST) == encode_manifest(replace(MANIFEST))
    assert (
        digest(encode_manifest(MANIFEST)) == hashlib.sha256(encode_manifest(MANIFEST)).hexdigest()
    )


def leaves(value, path):
    """Path (as errors name it), and where it stands, of every field that is not free-form."""
    if isinstance(value, dict):
        for key, element in value.items():
            if key not in ("made_by", "delegation"):
                yield from leaves(element, [*path, key])
    elif isinstance(value, list) and value:
        for index, element in enumerate(value):
            yield from leaves(element, [*path, index])
    else:
        yield path


DOCUMENT = json.loads(encode_manifest(MANIFEST))
PATHS = list(leaves(DOCUMENT, []))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_a_field_of_the_wrong_type_is_named(code_of, path):
    document = json.loads(json.dumps(DOCUMENT))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = {"not": "this"}
    data = json.dumps(document).encode()
    assert code_of(decode_manifest, data) == "bundle.manifest_invalid"
    named = "manifest" + "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in path)
    with pytest.raises(ValueError, match="manifest") as caught:
        decode_manifest(data)
    assert f"{named}:" in str(caught.value) or f"{named}.not:" in str(caught.value)


@pytest.mark.parametrize("field", list(DOCUMENT))
def test_a_field_left_out_is_named(field):
    document = {key: value for key, value in DOCUMENT.items() if key != field}
    with pytest.raises(ValueError, match=f"manifest.{field}: missing"):
        decode_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/x",
        "a/../../x",
        "a//x",
        "./x",
        "a/.",
        ".",
        "",
        "a\\x",
        "C:x",
        "~/x",
        ".x",
        "x\0",
        "x\n",
    ],
)
def test_a_path_that_leaves_the_bundle_or_could_is_refused(path):
    with pytest.raises(ValueError, match="plain path inside the bundle"):
        replace(MANIFEST, files={**FILES, path: FILES["b.safetensors"]})
    program = replace(MANIFEST.programs[0], path=path)
    with pytest.raises(ValueError, match="not among the files"):
        replace(MANIFEST, programs=(program,))
    with pytest.raises(ValueError, match="not among the files"):
        replace(MANIFEST, base=path)


def test_accepted_paths_stay_inside_whatever_folder_they_are_joined_to(tmp_path: Path):
    for path in FILES:
        assert (tmp_path / path).resolve().is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize(
    "slot",
    [
        SlotSpec("head", SlotKind.LOW_RANK, 5, 3, 0, False, 0.5, 0.0),
        SlotSpec("head", SlotKind.DENSE, 5, 3, 2, False, 0.5, 0.0),
        SlotSpec("head", SlotKind.AFFINE, 5, 3, 0, False, 0.5, 1.0),
        SlotSpec("head", SlotKind.AFFINE, 5, 0, 0, True, 0.5, 1.0),
        SlotSpec("head", SlotKind.DENSE, 0, 3, 0, False, 0.5, 0.0),
        SlotSpec("head", SlotKind.DENSE, 5, 3, 0, False, 0.0, 0.0),
        SlotSpec("head", SlotKind.DENSE, 5, 3, 0, False, 1e39, 0.0),
        SlotSpec("head", SlotKind.DENSE, 5, 3, 0, True, 0.5, -1.0),
        SlotSpec("probe", SlotKind.DENSE, 5, 3, 0, False, 0.5, 0.0),
        SlotSpec("he ad", SlotKind.DENSE, 5, 3, 0, False, 0.5, 0.0),
    ],
)
def test_a_slot_that_cannot_be_is_refused(slot):
    with pytest.raises(ValueError, match=slot.name):
        replace(MANIFEST, slots=(slot,), programs=())


def test_a_key_under_another_id_is_refused():
    with pytest.raises(ValueError, match=PUBLISHER.id):
        EditKey("0" * 16, MANIFEST.edit_keys[0].public_key)


def test_a_feed_of_no_slot_and_one_of_another_size_are_refused():
    program = MANIFEST.programs[0]
    for feed in (
        Feed("tail.a", 1, None, "change", (4, 3)),
        Feed("head.a", 1, None, "change", (2, 3)),
    ):
        with pytest.raises(ValueError, match="feeds"):
            replace(MANIFEST, programs=(replace(program, feeds=(feed,)),))


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ((), "does not feed 'head.a'"),
        ((A,), "does not feed 'head.b'"),
        ((A, B, replace(A, index=3)), "tensor 'head.a' more than once"),
        ((A, replace(B, index=1)), "index 1 more than once"),
        ((replace(A, input="w"), replace(B, input="w")), "input 'w' more than once"),
        ((A, replace(B, carries="effective")), "all carry"),
    ],
    ids=["none", "one", "twice", "same-index", "same-input", "carry-both"],
)
def test_a_program_feeds_every_tensor_once_to_a_place_of_its_own(feeds, said):
    with pytest.raises(ValueError, match=said):
        replace(MANIFEST, programs=(replace(MANIFEST.programs[0], feeds=feeds),))


def test_feeds_may_come_in_any_order_and_by_name():
    for feeds in ((B, A), (replace(A, index=None, input="a"), replace(B, index=None, input="b"))):
        program = replace(MANIFEST.programs[0], feeds=feeds)
        assert replace(MANIFEST, programs=(program,)).programs == (program,)


def test_a_feed_names_a_place():
    with pytest.raises(ValueError, match="index or the name"):
        replace(A, index=None)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        replace(A, index=-1)


def test_a_program_is_found_by_its_target_and_precision_or_those_there_are_named():
    single = MANIFEST.programs[0]
    half = replace(single, precision="fp16")
    other = replace(half, target="npu")
    manifest = replace(MANIFEST, programs=(single, half, other))
    assert manifest.program("cpu") is single
    assert manifest.program("cpu", "fp16") is half
    assert manifest.program("npu") is other
    with pytest.raises(LookupError, match="'gpu'; it has: cpu fp32, cpu fp16, npu fp16"):
        manifest.program("gpu")
    with pytest.raises(LookupError, match="'npu fp32'; it has: cpu fp32"):
        manifest.program("npu", "fp32")
    with pytest.raises(LookupError, match="it has: none"):
        replace(MANIFEST, programs=()).program("cpu")


def test_two_programs_of_one_target_and_precision_are_refused():
    with pytest.raises(ValueError, match="differ in target or precision"):
        replace(MANIFEST, programs=MANIFEST.programs * 2)


def test_files_are_compared_missing_then_changed_then_unlisted(code_of):
    check_files(MANIFEST, FILES)
    other = File(1, "0" * 64)
    changed = {**FILES, "b.safetensors": other}
    missing = {k: v for k, v in changed.items() if k != "net/main.bin"}
    extra = {"notes.txt": other}
    assert code_of(check_files, MANIFEST, {**missing, **extra}) == "bundle.file_missing"
    assert code_of(check_files, MANIFEST, {**changed, **extra}) == "bundle.file_changed"
    assert code_of(check_files, MANIFEST, {**FILES, **extra}) == "bundle.file_unlisted"


def test_a_signed_manifest_is_read_and_a_changed_one_is_not(code_of):
    data = encode_manifest(MANIFEST)
    signature, keys = PUBLISHER.sign(data), PublicKeys([PUBLISHER.public])
    assert verify_manifest(data, signature, keys) == MANIFEST
    assert code_of(verify_manifest, data + b" ", signature, keys) == "bundle.bad_signature"
    assert code_of(verify_manifest, data, signature, PublicKeys([])) == "bundle.unknown_key"


@pytest.mark.parametrize("ports", ["none", "twice"])
def test_ports_are_one_or_more_and_named_apart(ports):
    """A reader takes the first output, and inputs by name."""
    broken = {
        "none": lambda: replace(MANIFEST, outputs=()),
        "twice": lambda: replace(MANIFEST, inputs=(*MANIFEST.inputs, *MANIFEST.inputs)),
    }
    with pytest.raises(ValueError, match="all named apart"):
        broken[ports]()


def test_a_bundle_of_another_major_version_is_refused_with_what_to_do_and_one_of_this_is_read():
    data = encode_manifest(MANIFEST)
    assert decode_manifest(data) == MANIFEST
    of_the_future = json.loads(data) | {"format": "persona.bundle/2", "new_field": []}
    with pytest.raises(
        FormatError, match=r"persona\.bundle/2.*reads 'persona\.bundle/1'"
    ) as refused:
        decode_manifest(json.dumps(of_the_future).encode())
    assert "export the bundle again, or use a version that reads it" in str(refused.value)
    assert refused.value.code.value == "bundle.manifest_invalid"
