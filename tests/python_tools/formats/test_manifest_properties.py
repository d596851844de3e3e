"""Whatever bytes come, the manifest reader ends in a manifest or a refusal; and patching a head
changes the bytes of its patches and no others.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.formats.errors import FormatError
from persona.formats.manifest import (
    Feed,
    Head,
    Patch,
    Program,
    decode_manifest,
    encode_manifest,
    patched_head,
)

MANIFESTS = Path(__file__).parents[2] / "conformance" / "bundles" / "manifests"
GOOD = json.loads((MANIFESTS / "good.json").read_text())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


def places(value, path=()):
    """Path to every value of a document."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places(value[key], (*path, key))


def read_or_refuse(data):
    try:
        manifest = decode_manifest(data)
    except FormatError:
        return
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    read_or_refuse(data)


@given(VALUES)
def test_any_document_is_read_or_refused(value):
    read_or_refuse(json.dumps(value).encode())


@settings(max_examples=300)
@given(st.sampled_from(list(places(GOOD))), VALUES)
def test_any_value_in_any_place_is_read_or_refused(path, value):
    document = json.loads(json.dumps(GOOD))
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    read_or_refuse(json.dumps(document).encode())


def program_with(patches):
    feeds = tuple(
        Feed(f"s{i}.weight", None, None, "effective", (p.length // 4,), p)
        for i, p in enumerate(patches)
    )
    return Program(
        target="t",
        precision="fp32",
        path="a",
        method="forward",
        observe_path=None,
        observe_method=None,
        feeds=feeds,
        tolerance=1e-5,
        verified="executed",
        delegation={},
        head=Head("b", "forward"),
    )


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), min_size=1, max_size=5),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_a_patched_head_differs_in_its_patches_alone(gaps_and_counts, tail, random):
    patches, at = [], 0
    for gap, count in gaps_and_counts:
        patches.append(Patch(at + gap, 4 * count, "F32"))
        at += gap + 4 * count
    head = random.randbytes(at + tail)
    rng = np.random.default_rng(random.getrandbits(32))
    values = {f"s{i}.weight": rng.random(p.length // 4, np.float32) for i, p in enumerate(patches)}
    expected, end = b"", 0
    for i, patch in enumerate(patches):
        expected += head[end : patch.offset] + values[f"s{i}.weight"].astype("<f4").tobytes()
        end = patch.offset + patch.length
    shuffled = random.sample(patches, len(patches))
    named = dict(zip(patches, program_with(patches).feeds, strict=True))
    program = replace(program_with(patches), feeds=tuple(named[p] for p in shuffled))
    assert patched_head(head, program, values) == expected + head[end:]


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 40), st.integers(1, 6))
def test_patches_that_share_a_byte_are_refused(first, first_count, second, second_count):
    patches = [Patch(first, 4 * first_count, "F32"), Patch(second, 4 * second_count, "F32")]
    shared = set(range(first, first + 4 * first_count)) & set(
        range(second, second + 4 * second_count)
    )
    if shared:
        with pytest.raises(ValueError, match="two patches share the byte"):
            program_with(patches)
    else:
        assert len(program_with(patches).feeds) == 2
