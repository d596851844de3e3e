"""Writing an edit: what stands in the file, and that rounding to F16 crosses no bound."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from persona.formats import container
from persona.formats.edit import (
    METADATA,
    encode_edit,
    format_time,
    parse_info,
    parse_time,
    parse_whole,
    quantise,
)
from persona.formats.slots import SlotKind, SlotSpec


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_comes_back_to_the_second(moment):
    text = format_time(moment)
    assert len(text) == 20
    assert parse_time(text) == moment.replace(microsecond=0)


def test_a_time_is_written_in_utc():
    east = timezone(timedelta(hours=2))
    assert format_time(datetime(2026, 1, 1, 1, 30, tzinfo=east)) == "2025-12-31T23:30:00Z"


@given(st.text(max_size=25))
def test_no_other_text_is_a_time(text):
    try:
        moment = parse_time(text)
    except ValueError:
        return
    assert format_time(moment) == text


@given(st.integers(0, 2**53 - 1))
def test_a_whole_number_comes_back(number):
    assert parse_whole(str(number)) == number


@pytest.mark.parametrize("text", ["", "00", "+1", "-1", "1.0", " 1", "1\n", "\u0661", str(2**53)])
def test_no_other_text_is_a_whole_number(text):
    with pytest.raises(ValueError, match="whole number"):
        parse_whole(text)


def test_an_edit_says_for_whom_it_is(device):
    data = device.edit(prototype=2)
    tensors, metadata = container.decode(data)
    assert tuple(metadata) == METADATA
    assert metadata["sequence"] == "8"
    assert metadata["prototype"] == "2"
    del metadata["format"]
    assert parse_info({"format": "persona.edit/1", **metadata}) == device.info(prototype=2)
    assert "probe.expected" in tensors


def test_the_official_library_opens_an_edit(device):
    change = device.change()
    found = safetensors.numpy.load(device.edit(change))
    for name, values in change.items():
        np.testing.assert_array_equal(found[name], values)


@given(
    st.floats(2.0**-14, 60_000, width=32),
    st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4),
)
def test_rounding_to_f16_stays_within_the_bound_and_near_the_value(bound, shares):
    slot = SlotSpec("s", SlotKind.DENSE, 2, 2, 0, False, bound, 0.0)
    limit = np.float32(slot.limits()["weight"])
    values = (np.array(shares, np.float32) * limit).reshape(2, 2)
    rounded = quantise((slot,), {"s.weight": values})["s.weight"].astype(np.float32)
    assert np.abs(rounded).max() <= limit
    spacing = np.maximum(np.abs(values) * 2.0**-10, 2.0**-24)
    assert (np.abs(rounded - values) <= spacing).all()


def test_a_value_at_a_bound_that_f16_rounds_up_is_rounded_down():
    slot = SlotSpec("s", SlotKind.DENSE, 1, 1, 0, False, 0.3, 0.0)
    nearest = np.float32(np.float16(0.3))
    assert nearest > np.float32(0.3)
    rounded = quantise((slot,), {"s.weight": np.array([[0.3]], np.float32)})["s.weight"]
    assert rounded.item() == np.nextafter(np.float16(0.3), np.float16(0)).item()


def test_f16_halves_the_file(device):
    change = device.change()
    small = encode_edit(device.info(), quantise(device.slots, change), np.zeros((1, 5), np.float32))
    large = encode_edit(device.info(), change, np.zeros((1, 5), np.float32))
    values = sum(v.size for v in change.values())
    assert abs(len(large) - len(small) - 2 * values) < 8 + 4 * len(change)
