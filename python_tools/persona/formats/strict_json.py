"""JSON read strictly (RFC 8259): what two readers could understand differently is refused."""

import json
import math
from typing import Any


class RepeatedKeyError(ValueError):
    """An object names a key twice; readers differ in which value they would take."""


def strict_json(text: str, *, whole_numbers_only: bool = False) -> Any:
    """Parse JSON. Raises ValueError for what is not strict JSON, then RepeatedKeyError.

    Refused besides syntax: NaN and infinities, numbers beyond binary64, halves of surrogate pairs,
    and, with `whole_numbers_only`, every number that is not written as plain digits.
    """
    repeated: list[str] = []

    def obj(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated.extend(key for key in keys if keys.count(key) > 1)
        return dict(pairs)

    def whole(word: str) -> int:
        if whole_numbers_only and word.startswith("-"):
            raise ValueError(f"{word} is not a whole number")
        return int(word)

    def real(word: str) -> float:
        if whole_numbers_only or not math.isfinite(float(word)):
            raise ValueError(f"{word} is not a number that can stand here")
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


def _refuse_surrogates(value: Any) -> None:
    match value:
        case str():
            if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
                raise ValueError("a string holds half a surrogate pair")
        case list():
            for element in value:
                _refuse_surrogates(element)
        case dict():
            for key, element in value.items():
                _refuse_surrogates(key)
                _refuse_surrogates(element)
