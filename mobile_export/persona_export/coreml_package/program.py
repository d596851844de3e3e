"""The package's protobuf as plain dataclasses: what goes in, what comes out, which operations.

`Manifest.json` names `model.mlmodel`, a `Model` message. Its description is what the app sees; its
ML program is what runs. The two must agree, which `checks` looks at.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.quiet import quietly
from persona_export.coreml_package.errors import PackageError

_MIL_DTYPES = {
    "BOOL": "bool",
    "FLOAT16": "float16",
    "FLOAT32": "float32",
    "FLOAT64": "float64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "STRING": "str",
}
_FEATURE_DTYPES = {
    "FLOAT16": "float16",
    "FLOAT32": "float32",
    "DOUBLE": "float64",
    "INT32": "int32",
    "INT8": "int8",
}
_OPSETS = {"CoreML5": 6, "CoreML6": 7, "CoreML7": 8, "CoreML8": 9}


@dataclass(frozen=True)
class TensorType:
    """Declared dtype ("str" for strings) and shape; None is a size known only at run time."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('?' if n is None else str(n) for n in self.shape)}]"

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` is of this type."""
        return len(shape) == len(self.shape) and all(
            declared in (None, size) for declared, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Feature:
    """One input or output as the app sees it. Each limit is (smallest, largest) size of an axis.

    default: what every element is when the app leaves an optional input out.
    """

    name: str
    type: TensorType
    limits: tuple[tuple[int, int], ...]
    optional: bool = False
    default: float | None = None


@dataclass(frozen=True)
class Named:
    """A value of the program: its name and declared type."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Immediate:
    """A constant written in the program itself."""

    value: NDArray[Any] | str


@dataclass(frozen=True)
class BlobReference:
    """A constant whose elements are in a weight file, at the blob whose header is at `offset`."""

    file: str
    offset: int
    type: TensorType


Operand = str | Immediate | BlobReference
"""The name of an earlier value, or a constant."""


@dataclass(frozen=True)
class Operation:
    """One operation. An input with several operands is a list, such as what `concat` joins."""

    kind: str
    inputs: dict[str, tuple[Operand, ...]]
    outputs: tuple[Named, ...]
    attributes: dict[str, Operand]

    @property
    def is_constant(self) -> bool:
        """Whether the result is known before any input is: a constant, stored plainly or packed."""
        return self.kind == "const" or self.kind.startswith("constexpr_")

    def arguments(self) -> dict[str, tuple[Operand, ...]]:
        """What the operation computes from; a packed constant has it among its attributes."""
        if not self.is_constant:
            return self.inputs
        return {key: (value,) for key, value in self.attributes.items() if key != "name"}

    def uses(self) -> set[str]:
        """Names of the values that the operation reads."""
        return {x for operands in self.inputs.values() for x in operands if isinstance(x, str)}


@dataclass(frozen=True)
class Program:
    """A package's description and the one function that it runs."""

    specification_version: int
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    opset: str
    arguments: tuple[Named, ...]
    operations: tuple[Operation, ...]
    results: tuple[str, ...]

    def opset_version(self) -> int | None:
        """The specification version in which the program's operations were introduced."""
        return _OPSETS.get(self.opset)


def model_path(package: Path) -> Path:
    """Where the package's manifest says that its model is.

    Raises PackageError when the manifest is missing, is not one, or names a file that is not there.
    """
    manifest_path = package / "Manifest.json"
    try:
        manifest = json.loads(manifest_path.read_text("utf-8"))
        items = manifest["itemInfoEntries"]
        item = items[manifest["rootModelIdentifier"]]
        paths = [package / "Data" / entry["path"] for entry in items.values()]
        model = package / "Data" / item["path"]
    except FileNotFoundError:
        raise PackageError(f"{package.name} has no Manifest.json; it is no .mlpackage") from None
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"{package.name}: Manifest.json is not understood: {error!r}") from error
    for path in paths:
        if not path.exists():
            raise PackageError(
                f"{package.name}: the manifest names {path.relative_to(package)}, which is missing"
            )
    return model


def read_program(path: Path) -> Program:
    """Parse a `model.mlmodel`. Raises PackageError unless it is a stateless ML program."""
    with quietly():
        from coremltools.proto import Model_pb2
        from google.protobuf.message import DecodeError

    model = Model_pb2.Model()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise PackageError(f"{path.name} is not a Core ML model: {error}") from error
    if model.WhichOneof("Type") != "mlProgram":
        raise PackageError(f"{path.name} holds {model.WhichOneof('Type')}, expected an mlProgram")
    if model.description.state or model.description.functions:
        raise PackageError(
            f"{path.name} has states or several functions; only one plain one is read"
        )
    if list(model.mlProgram.functions) != ["main"]:
        raise PackageError(
            f"{path.name} has functions {list(model.mlProgram.functions)}, not [main]"
        )
    function = model.mlProgram.functions["main"]
    if function.opset not in function.block_specializations:
        raise PackageError(
            f"{path.name}: function main has no block for its opset {function.opset}"
        )
    block = function.block_specializations[function.opset]
    return Program(
        specification_version=model.specificationVersion,
        inputs=tuple(_feature(feature) for feature in model.description.input),
        outputs=tuple(_feature(feature) for feature in model.description.output),
        opset=function.opset,
        arguments=tuple(_named(value) for value in function.inputs),
        operations=tuple(_operation(operation) for operation in block.operations),
        results=tuple(block.outputs),
    )


def _feature(feature: Any) -> Feature:
    if feature.type.WhichOneof("Type") != "multiArrayType":
        raise PackageError(
            f"{feature.name} is {feature.type.WhichOneof('Type')}, not a multi-array"
        )
    array = feature.type.multiArrayType
    dtype = _FEATURE_DTYPES[array.ArrayDataType.Name(array.dataType)]
    flexibility = array.WhichOneof("ShapeFlexibility")
    match flexibility:
        case None:
            limits = tuple((size, size) for size in array.shape)
        case "shapeRange":
            limits = tuple((r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges)
        case _:
            raise PackageError(
                f"{feature.name} has {flexibility}; only fixed sizes and ranges are read"
            )
    shape = tuple(low if low == high else None for low, high in limits)
    default = array.WhichOneof("defaultOptionalValue")
    return Feature(
        name=feature.name,
        type=TensorType(dtype, shape),
        limits=limits,
        optional=feature.type.isOptional,
        default=None if default is None else float(getattr(array, default)),
    )


def _tensor_type(value_type: Any, where: str) -> TensorType:
    if value_type.WhichOneof("type") != "tensorType":
        raise PackageError(f"{where} is {value_type.WhichOneof('type')}; only tensors are read")
    tensor = value_type.tensorType
    name = type(tensor).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
    dtype = name[tensor.dataType].name
    if dtype not in _MIL_DTYPES:
        raise PackageError(f"{where} is {dtype}; known: {', '.join(_MIL_DTYPES)}")
    shape = tuple(
        int(d.constant.size) if d.WhichOneof("dimension") == "constant" else None
        for d in tensor.dimensions
    )
    return TensorType(_MIL_DTYPES[dtype], shape)


def _named(value: Any) -> Named:
    return Named(value.name, _tensor_type(value.type, value.name))


def _operation(operation: Any) -> Operation:
    where = operation.outputs[0].name if operation.outputs else operation.type
    if operation.blocks:
        raise PackageError(f"{operation.type} {where!r} has nested blocks, which are not read")
    return Operation(
        kind=operation.type,
        inputs={
            key: tuple(
                b.name if b.WhichOneof("binding") == "name" else _constant(b.value, where)
                for b in argument.arguments
            )
            for key, argument in operation.inputs.items()
        },
        outputs=tuple(_named(output) for output in operation.outputs),
        attributes={key: _constant(value, where) for key, value in operation.attributes.items()},
    )


def _constant(value: Any, where: str) -> Operand:
    declared = _tensor_type(value.type, where)
    if None in declared.shape:
        raise PackageError(f"constant {where!r} has an open shape: {declared}")
    if value.WhichOneof("value") == "blobFileValue":
        blob = value.blobFileValue
        return BlobReference(blob.fileName, blob.offset, declared)
    tensor = value.immediateValue.tensor
    stored = tensor.WhichOneof("value")
    if stored == "bytes":
        elements = np.frombuffer(tensor.bytes.values, np.dtype(declared.dtype).newbyteorder("<"))
    else:
        elements = np.array(getattr(tensor, stored).values if stored else [])
    shape = [size for size in declared.shape if size is not None]
    if elements.size != int(np.prod(shape)):
        raise PackageError(f"constant {where!r} is {declared} and holds {elements.size} elements")
    if declared.dtype == "str":
        return Immediate(str(elements[0]) if not shape else elements.reshape(shape))
    return Immediate(elements.astype(declared.dtype).reshape(shape))
