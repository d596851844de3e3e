"""Runs a Core ML package with NumPy, so that its numbers are known before a phone sees it.

Each operation is evaluated in binary32 and its result rounded to the dtype that the program
declares for it, as hardware with wide accumulators does. Every declared shape is asserted.
Weights that are stored in 8 bits are widened once, as a phone does when it loads the package.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persona_export.coreml_package.blobs import WeightFile
from persona_export.coreml_package.errors import PackageError
from persona_export.coreml_package.operations import call
from persona_export.coreml_package.program import (
    BlobReference,
    Feature,
    Immediate,
    Operand,
    Operation,
    Program,
    TensorType,
    model_path,
    read_program,
)

Value = NDArray[Any] | str


class Package:
    """An opened .mlpackage. Weights are read when first needed."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self._files: dict[str, WeightFile] = {}

    @classmethod
    def open(cls, path: Path) -> "Package":
        """Raises PackageError when `path` is not an .mlpackage with one stateless ML program."""
        model = model_path(path)
        return cls(read_program(model), model.parent)

    def weight_file(self, name: str) -> WeightFile:
        """The weight file that the program calls `name`, such as @model_path/weights/weight.bin."""
        if name not in self._files:
            path = self.weight_path(name)
            if not path.is_file():
                raise PackageError(f"the program reads {name}, which is not in the package")
            self._files[name] = WeightFile.open(path)
        return self._files[name]

    def weight_path(self, name: str) -> Path:
        """Where the weight file that the program calls `name` should be."""
        return self.folder / name.removeprefix("@model_path/")

    def constant(self, operand: Immediate | BlobReference) -> Value:
        """The value of a constant operand."""
        if isinstance(operand, Immediate):
            return operand.value
        shape = tuple(size for size in operand.type.shape if size is not None)
        dtype = np.dtype(operand.type.dtype)
        return self.weight_file(operand.file).read(operand.offset, dtype, shape)

    @cached_property
    def _constants(self) -> dict[str, Value]:
        values = {}
        for operation in self.program.operations:
            if operation.kind == "const":
                operand = operation.attributes["val"]
                assert not isinstance(operand, str)
                values[operation.outputs[0].name] = self.constant(operand)
            elif operation.is_constant:
                values |= self._results(operation, values)
        return values

    def run(self, inputs: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Output name -> array. An optional input that is left out takes its declared default.

        Raises PackageError when an input is missing, unknown, or of another dtype or shape, and
        UnknownOperationError when the program has an operation that the interpreter does not know.
        """
        unknown = sorted(set(inputs) - {feature.name for feature in self.program.inputs})
        if unknown:
            known = ", ".join(feature.name for feature in self.program.inputs)
            raise PackageError(f"no input is called {', '.join(unknown)}; inputs are: {known}")
        values: dict[str, Value] = dict(self._constants)
        for feature in self.program.inputs:
            values[feature.name] = _input(feature, inputs.get(feature.name))
        for operation in self.program.operations:
            if not operation.is_constant:
                values |= self._results(operation, values)
        outputs = {name: values[name] for name in self.program.results}
        return {name: np.asarray(value) for name, value in outputs.items()}

    def _results(self, operation: Operation, values: Mapping[str, Value]) -> dict[str, Value]:
        name = operation.outputs[0].name

        def value(operand: Operand) -> Value:
            if not isinstance(operand, str):
                return _wide(self.constant(operand))
            if operand not in values:
                raise PackageError(f"{operation.kind} {name!r} reads {operand!r}, not yet computed")
            return _wide(values[operand])

        # Joining operations take a list even if it has one element; all others take one value.
        arguments = {
            key: [value(x) for x in operands] if key == "values" else value(operands[0])
            for key, operands in operation.arguments().items()
        }
        with np.errstate(all="ignore"):
            try:
                results = call(operation.kind, arguments)
            except (ValueError, IndexError) as error:
                if isinstance(error, PackageError):
                    raise
                raise PackageError(
                    f"{operation.kind} {name!r} cannot be evaluated: {error}"
                ) from error
            if len(results) != len(operation.outputs):
                raise PackageError(
                    f"{operation.kind} {name!r} gave {len(results)} results, "
                    f"the program declares {len(operation.outputs)}"
                )
            return {
                output.name: _declared(result, output.type, f"{operation.kind} {output.name!r}")
                for output, result in zip(operation.outputs, results, strict=True)
            }


def _input(feature: Feature, given: ArrayLike | None) -> NDArray[Any]:
    dtype = np.dtype(feature.type.dtype)
    if given is None:
        if not feature.optional or feature.default is None:
            raise PackageError(
                f"input {feature.name!r} ({feature.type}) is missing and has no default"
            )
        return np.full([low for low, _ in feature.limits], feature.default, dtype)
    array = np.asarray(given)
    if array.dtype.kind != dtype.kind:
        raise PackageError(f"input {feature.name!r} takes {dtype}, got {array.dtype}")
    fits = len(array.shape) == len(feature.limits) and all(
        low <= size <= high for size, (low, high) in zip(array.shape, feature.limits, strict=True)
    )
    if not fits:
        sizes = [str(low) if low == high else f"{low}..{high}" for low, high in feature.limits]
        raise PackageError(
            f"input {feature.name!r} takes shape [{', '.join(sizes)}], got {list(array.shape)}"
        )
    return array.astype(dtype)


def _wide(value: Value) -> Value:
    if isinstance(value, np.ndarray) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _declared(result: NDArray[Any], declared: TensorType, where: str) -> NDArray[Any]:
    array = np.asarray(result)
    if not declared.admits(array.shape):
        raise PackageError(f"{where} is declared {declared} and came out as {list(array.shape)}")
    return array.astype(declared.dtype)
