"""Strict JSON: the same values as the standard reader, or none."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.formats.strict_json import MAX_DEPTH, MAX_WHOLE, RepeatedKeyError, strict_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WHOLE = st.integers(-MAX_WHOLE, MAX_WHOLE)
VALUES = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)


@given(VALUES, st.booleans())
def test_values_come_back_as_they_were(value, escaped):
    found = strict_json(json.dumps(value, ensure_ascii=escaped))
    assert repr(found) == repr(value)


@given(st.text(max_size=40))
def test_what_the_standard_reader_refuses_is_refused(text):
    try:
        found = strict_json(text)
    except ValueError:
        return
    assert found == json.loads(text)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '[{"x":{"a":1,"\\u0061":2}}]', '{"":1,"":2}'])
def test_a_key_that_stands_twice_is_refused(text):
    with pytest.raises(RepeatedKeyError, match="twice"):
        strict_json(text)


def test_names_that_look_alike_are_two_names():
    assert len(strict_json('{"\u00e9":1,"e\u0301":2}')) == 2


def test_nesting_ends_at_the_limit():
    assert strict_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="deeper"):
        strict_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    assert strict_json('["' + "[" * 500 + '\\"[{"]') == ["[" * 500 + '"[{']


@pytest.mark.parametrize(
    "text",
    ["NaN", "-Infinity", "1e400", "-1e400", '"\\ud800"', '"\\udc00\\ud800"', "\ufeff1", "01"],
)
def test_what_readers_disagree_about_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        strict_json(text)


def test_a_lone_surrogate_is_seen_even_in_a_value_that_is_replaced():
    with pytest.raises(ValueError, match="surrogate") as caught:
        strict_json('{"a":["\\ud800"],"a":0}')
    assert not isinstance(caught.value, RepeatedKeyError)


@pytest.mark.parametrize(
    ("text", "value"),
    [(str(MAX_WHOLE), MAX_WHOLE), (str(-MAX_WHOLE), -MAX_WHOLE), ("0", 0), ("-1", -1)],
)
def test_whole_numbers_are_ints_up_to_the_largest(text, value):
    found = strict_json(text)
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize(
    "text", [str(MAX_WHOLE + 1), "-0", "1.0", "1e0", "9" * 300, "-" + "9" * 20]
)
def test_other_numbers_are_floats(text):
    found = strict_json(text)
    assert type(found) is float
    assert found == float(text)
    assert math.copysign(1, found) == math.copysign(1, float(text))


@pytest.mark.parametrize("text", ["-1", "-0", "1.0", "1e0", str(MAX_WHOLE + 1), "9" * 5000])
def test_where_whole_numbers_are_asked_for_nothing_else_is_taken(text):
    with pytest.raises(ValueError, match="number"):
        strict_json(f'{{"x":[{text}]}}', whole_numbers_only=True)
