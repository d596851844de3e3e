"""JSON read strictly (RFC 8259): what two readers could understand differently is refused."""

import json
import math
import re
from typing import Any

MAX_WHOLE = 2**53 - 1
"""Largest whole number: what every language's JSON reader holds exactly."""

MAX_DEPTH = 64
"""Deepest nesting of arrays and objects; the outermost is 1."""

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


class RepeatedKeyError(ValueError):
    """An object names a key twice; readers differ in which value they would take."""


def strict_json(text: str, *, whole_numbers_only: bool = False) -> Any:
    """Parse JSON. Raises ValueError for what is not strict JSON, then RepeatedKeyError.

    Refused besides syntax: NaN and infinities, numbers beyond binary64, halves of surrogate pairs,
    nesting deeper than MAX_DEPTH and, with `whole_numbers_only`, every number that is not written
    as plain digits or is above MAX_WHOLE. A number without fraction and exponent is an int where
    MAX_WHOLE holds it, else (and for -0) a float.
    """
    _refuse_depth(text)
    repeated: list[str] = []

    def obj(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys: set[str] = set()
        for key, element in pairs:
            _refuse_surrogates(key)
            _refuse_surrogates(element)
            if key in keys:
                repeated.append(key)
            keys.add(key)
        return dict(pairs)

    def whole(word: str) -> int | float:
        if word == "-0" or len(word) > 17 or abs(int(word)) > MAX_WHOLE:
            return real(word)
        if whole_numbers_only and word.startswith("-"):
            raise ValueError(f"{word} is not a whole number")
        return int(word)

    def real(word: str) -> float:
        if whole_numbers_only or not math.isfinite(float(word)):
            raise ValueError(f"{word:.40} is not a number that can stand here")
        return float(word)

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    value = json.loads(
        text, object_pairs_hook=obj, parse_int=whole, parse_float=real, parse_constant=constant
    )
    _refuse_surrogates(value)
    if repeated:
        raise RepeatedKeyError(f"{repeated[0]!r} stands twice in one object")
    return value


def _refuse_depth(text: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        word = match[0]
        if word in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"arrays and objects are nested deeper than {MAX_DEPTH}")
        elif word in "]}":
            depth -= 1


def _refuse_surrogates(value: Any) -> None:
    """Refuse strings with half a pair; objects in `value` were looked at when they were read."""
    match value:
        case str():
            if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
                raise ValueError("a string holds half a surrogate pair")
        case list():
            for element in value:
                _refuse_surrogates(element)
