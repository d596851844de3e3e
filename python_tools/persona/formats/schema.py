"""Typed dataclasses from plain JSON or TOML values and back, strictly: no field is guessed.

An unknown field, a missing one or one of the wrong type is a SchemaError that names its path.
"""

import dataclasses
import math
import types
import typing
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")


class SchemaError(ValueError):
    """A document that does not fit its schema; the message names the field."""


def decode(kind: type[T], value: Any, path: str = "") -> T:
    """Read `value` (dicts, lists, strings, numbers) as the dataclass `kind`."""
    result: T = _decode(kind, value, path or kind.__name__)
    return result


def encode(value: Any) -> Any:
    """The reverse of `decode`: dataclasses become dicts, tuples become lists."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {_spelled(f.name): encode(getattr(value, f.name)) for f in fields}
    if isinstance(value, dict):
        return {key: encode(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [encode(element) for element in value]
    return value.value if isinstance(value, StrEnum) else value


def _spelled(name: str) -> str:
    return name.removesuffix("_")


def _decode(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _decode_union(arguments, value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise SchemaError(f"{path}: expected one of {list(arguments)}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise SchemaError(f"{path}: expected a list, got {_name(value)}")
        return tuple(_decode(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise SchemaError(f"{path}: expected an object, got {_name(value)}")
        return {k: _decode(arguments[1], v, f"{path}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, path)
    return _decode_plain(kind, value, path)


def _decode_union(choices: tuple[Any, ...], value: Any, path: str) -> Any:
    """`X | None`, or dataclasses told apart by a Literal field called `kind`."""
    if value is None and type(None) in choices:
        return None
    choices = tuple(c for c in choices if c is not type(None))
    if len(choices) == 1:
        return _decode(choices[0], value, path)
    tags = {typing.get_args(typing.get_type_hints(c)["kind"])[0]: c for c in choices}
    tag = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(tag, str) or tag not in tags:
        raise SchemaError(f"{path}.kind: expected one of {sorted(tags)}, got {tag!r}")
    return _decode(tags[tag], value, path)


def _decode_dataclass(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise SchemaError(f"{path}: expected an object, got {_name(value)}")
    hints = typing.get_type_hints(kind)
    fields = {_spelled(f.name): f for f in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            raise SchemaError(f"{path}.{key}: unknown field; there are {', '.join(fields)}")
    found = {}
    for key, field in fields.items():
        if key in value:
            found[field.name] = _decode(hints[field.name], value[key], f"{path}.{key}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SchemaError(f"{path}.{key}: missing")
    try:
        return kind(**found)
    except SchemaError:
        raise
    except ValueError as error:
        raise SchemaError(f"{path}: {error}") from None


def _decode_plain(kind: Any, value: Any, path: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(value)
        except ValueError:
            names = [k.value for k in kind]
            raise SchemaError(f"{path}: expected one of {names}, got {value!r}") from None
    if kind is float and type(value) is int and abs(value) < 2**1023:
        value = float(value)
    if type(value) is not kind:
        raise SchemaError(f"{path}: expected {kind.__name__}, got {_name(value)}")
    if kind is float and not math.isfinite(value):
        raise SchemaError(f"{path}: expected a finite number, got {value}")
    return value


def _name(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {value!r:.40}"
