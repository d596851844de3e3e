"""MIL operation name -> the NumPy function that computes it.

A function's parameters are the operation's inputs under MIL's own names, so that its signature is
the list of what it understands. Arrays come in with at least binary32 precision.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona_export.coreml_package.errors import UnknownOperationError

Array = NDArray[Any]
Function = Callable[..., Array | tuple[Array, ...]]

_FUNCTIONS: dict[str, Function] = {}


def operation(*names: str) -> Callable[[Function], Function]:
    """Decorator: the function computes the MIL operations of these names."""

    def add(function: Function) -> Function:
        for name in names:
            assert name not in _FUNCTIONS, name
            _FUNCTIONS[name] = function
        return function

    return add


def known() -> frozenset[str]:
    """Names of all operations that can be computed."""
    return frozenset(_FUNCTIONS)


def call(name: str, arguments: Mapping[str, Any]) -> tuple[Array, ...]:
    """Compute one operation. Raises UnknownOperationError for an unknown name or input."""
    if name not in _FUNCTIONS:
        raise UnknownOperationError(
            f"the interpreter has no operation {name!r}; add it to coreml_package/operations"
        )
    function = _FUNCTIONS[name]
    try:
        bound = inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise UnknownOperationError(
            f"operation {name!r} with {sorted(arguments)}: {error}"
        ) from None
    result = function(**bound.arguments)
    return result if isinstance(result, tuple) else (np.asarray(result),)


def axes_of(axes: Array | None) -> tuple[int, ...] | None:
    """MIL's axes input as NumPy wants it; None means all of them."""
    return None if axes is None else tuple(int(axis) for axis in np.atleast_1d(axes))
