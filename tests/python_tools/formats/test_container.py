"""The container against the official safetensors library, and against bytes turned at random."""

import json
import random

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from persona.formats import container
from persona.formats.container import MAX_HEADER_BYTES, decode, encode
from persona.formats.errors import Code, FormatError

DTYPES = st.sampled_from([np.dtype("<f2"), np.dtype("<f4"), np.dtype("<i8")])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ARRAYS = DTYPES.flatmap(
    lambda dtype: st_numpy.arrays(dtype, st_numpy.array_shapes(min_dims=0, min_side=0, max_side=4))
)
TENSORS = st.dictionaries(TEXT.filter(lambda name: name != "__metadata__"), ARRAYS, max_size=5)
METADATA = st.dictionaries(TEXT, TEXT, max_size=4)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)


def verdict(data: bytes) -> str:
    """`ok`, or the code with which a file and its values are refused; other errors pass."""
    try:
        for tensor in decode(data)[0].values():
            tensor.array()
    except FormatError as error:
        return error.code.value
    return "ok"


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(TENSORS, METADATA)
def test_what_was_written_is_read_back(tensors, metadata):
    found, said = decode(encode(tensors, metadata))
    assert said == metadata
    assert list(found) == list(tensors)
    assert all(same(found[name].array(), tensors[name]) for name in tensors)


@given(TENSORS, METADATA)
def test_the_official_library_reads_what_we_write(tensors, metadata):
    found = safetensors.numpy.load(encode(tensors, metadata))
    assert set(found) == set(tensors)
    assert all(same(found[name], tensors[name]) for name in tensors)


@given(TENSORS, METADATA)
def test_we_read_what_the_official_library_writes(tensors, metadata):
    found, said = decode(safetensors.numpy.save(tensors, metadata or None))
    assert said == metadata
    assert set(found) == set(tensors)
    assert all(same(found[name].array(), tensors[name]) for name in tensors)


def test_the_header_is_padded_so_that_data_begins_at_a_multiple_of_eight():
    for size in range(1, 9):
        data = encode({"x" * size: np.zeros(2, np.float32)}, {})
        assert (8 + int.from_bytes(data[:8], "little")) % 8 == 0


def good_file() -> bytes:
    tensors = {
        "head.weight": np.arange(6, dtype=np.float16).reshape(2, 3),
        "probe.expected": np.ones((1, 2), np.float32),
        "items": np.array([1, 2], np.int64),
    }
    return encode(tensors, {"format": "persona.edit/1", "device": "Ger\u00e4t"})


def test_turned_bytes_never_raise_anything_but_a_format_error():
    chance = random.Random(20260301)
    good = good_file()
    for _ in range(6000):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.choice(b'\x00\xff"\\{}[],:09-eE \x80')
        if chance.random() < 0.3:
            data = data[: chance.randrange(len(data) + 1)]
        assert verdict(bytes(data)).startswith(("ok", "container.", "slot.dtype"))


def test_what_we_read_the_official_library_reads_too():
    chance = random.Random(7)
    good = good_file()
    start = 8 + int.from_bytes(good[:8], "little")
    read = 0
    for _ in range(4000):
        data = bytearray(good)
        data[chance.randrange(8, start)] = chance.choice(b"0123456789abcFIU[]{},: ")
        try:
            found, _ = decode(bytes(data))
        except FormatError:
            continue
        assert {n for n, _ in safetensors.deserialize(bytes(data))} == set(found)
        read += 1
    assert read > 100


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_code(data):
    assert verdict(data).startswith(("ok", "container.", "slot.dtype"))


@given(JSON)
def test_any_json_header_is_read_or_refused_with_a_code(value):
    text = json.dumps({"x": value}).encode()
    assert verdict(len(text).to_bytes(8, "little") + text).startswith("container.")


@pytest.mark.parametrize(
    ("shape", "offsets", "said"),
    [
        ([2, 4], [0, 12], "needs 16 bytes, its data_offsets give 12"),
        ([2, 3], [0, 14], "needs 12 bytes, its data_offsets give 14"),
    ],
)
def test_a_size_mismatch_is_told_with_both_sizes(shape, offsets, said):
    header = json.dumps({"w": {"dtype": "F16", "shape": shape, "data_offsets": offsets}}).encode()
    with pytest.raises(FormatError, match=said):
        decode(len(header).to_bytes(8, "little") + header + bytes(20))


def test_a_longer_header_is_read_only_where_it_is_allowed():
    tensors = {f"{i}." + "x" * 100: np.zeros(1, np.float32) for i in range(600)}
    data = encode(tensors, {})
    assert len(data) > MAX_HEADER_BYTES
    with pytest.raises(FormatError) as caught:
        decode(data)
    assert caught.value.code is Code.CONTAINER_HEADER_TOO_LONG
    assert set(decode(data, 2**20)[0]) == set(tensors)


def test_values_of_other_dtypes_are_not_guessed():
    with pytest.raises(FormatError, match="BF16"):
        container.Tensor("BF16", (1,), b"\0\0").array()


@settings(deadline=2000)
@given(st.sampled_from(['{"' + '\\"' * 30000, "{" + '"a":0,' * 9000, "[" * 60000, '{"a":' * 12000]))
def test_hostile_headers_are_refused_in_no_time(text):
    header = text.encode()
    with pytest.raises(FormatError):
        decode(len(header).to_bytes(8, "little") + header)
