"""Schemas: dataclasses come back as they were, and every fault is told with its path."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.formats.schema import SchemaError, decode, encode


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Wheel:
    kind: Literal["wheel"]
    spokes: int


@dataclass(frozen=True)
class Wing:
    kind: Literal["wing"]
    span: float

    def __post_init__(self) -> None:
        if self.span <= 0:
            raise ValueError("span must be above 0")


@dataclass(frozen=True)
class Machine:
    name: str
    colour: Colour
    parts: tuple[Wheel | Wing, ...]
    from_: str | None
    sizes: dict[str, tuple[float, ...]]
    notes: Any
    wheels: int = 4


FINITE = st.floats(allow_nan=False, allow_infinity=False)
MACHINES = st.builds(
    Machine,
    name=st.text(),
    colour=st.sampled_from(Colour),
    parts=st.lists(
        st.builds(Wheel, st.just("wheel"), st.integers())
        | st.builds(Wing, st.just("wing"), st.floats(0.1, 10))
    ).map(tuple),
    from_=st.none() | st.text(),
    sizes=st.dictionaries(st.text(), st.lists(FINITE).map(tuple)),
    notes=st.none() | st.lists(st.integers()),
    wheels=st.integers(),
)
GOOD = {
    "name": "cart",
    "colour": "red",
    "parts": [{"kind": "wheel", "spokes": 8}, {"kind": "wing", "span": 2}],
    "from": None,
    "sizes": {"a": [1, 2.5]},
    "notes": {"any": ["thing"]},
}


@given(MACHINES)
def test_what_was_encoded_is_decoded(machine):
    assert decode(Machine, encode(machine)) == machine


def test_a_document_becomes_a_dataclass():
    machine = decode(Machine, GOOD)
    assert machine.parts == (Wheel("wheel", 8), Wing("wing", 2.0))
    assert type(machine.parts[1].span) is float
    assert machine.wheels == 4
    assert machine.from_ is None


def test_a_name_with_an_underscore_for_python_has_none_in_the_document():
    assert "from" in encode(decode(Machine, GOOD))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 7}, "machine.name: expected str, got int 7"),
        ({"name": None}, "machine.name: expected str, got null"),
        ({"colour": "green"}, "machine.colour: expected one of"),
        ({"colour": []}, "machine.colour: expected one of"),
        ({"parts": {}}, "machine.parts: expected a list, got dict"),
        ({"parts": [{"kind": "wheel"}]}, "machine.parts[0].spokes: missing"),
        ({"parts": [{"kind": "sail"}]}, "machine.parts[0].kind: expected one of"),
        ({"parts": [{"kind": []}]}, "machine.parts[0].kind: expected one of"),
        ({"parts": [{"kind": {}}]}, "machine.parts[0].kind: expected one of"),
        ({"parts": [7]}, "machine.parts[0].kind: expected one of"),
        ({"parts": [{"kind": "wing", "span": -1}]}, "machine.parts[0]: span must be above 0"),
        ({"parts": [{"kind": "wheel", "spokes": True}]}, "machine.parts[0].spokes: expected int"),
        ({"parts": [{"kind": "wheel", "spokes": 8.0}]}, "machine.parts[0].spokes: expected int"),
        ({"sizes": []}, "machine.sizes: expected an object"),
        ({"sizes": {"a": 1}}, "machine.sizes.a: expected a list"),
        ({"sizes": {"a": ["1"]}}, "machine.sizes.a[0]: expected float"),
        ({"sizes": {"a": [float("nan")]}}, "machine.sizes.a[0]: expected a finite number"),
        ({"sizes": {"a": [10**400]}}, "machine.sizes.a[0]: expected float"),
        ({"from_": ""}, "machine.from_: unknown field"),
        ({"extra": 1}, "machine.extra: unknown field; there are name, colour"),
    ],
)
def test_a_fault_is_told_with_its_path(changes, said):
    with pytest.raises(SchemaError) as caught:
        decode(Machine, GOOD | changes, "machine")
    assert said in str(caught.value)


@pytest.mark.parametrize("field", ["name", "colour", "parts", "from", "sizes", "notes"])
def test_a_missing_field_is_told(field):
    document = {key: value for key, value in GOOD.items() if key != field}
    with pytest.raises(SchemaError, match=f"Machine.{field}: missing"):
        decode(Machine, document)


@pytest.mark.parametrize("value", [None, 7, "cart", []])
def test_what_is_no_object_is_no_dataclass(value):
    with pytest.raises(SchemaError, match="expected an object"):
        decode(Machine, value)
