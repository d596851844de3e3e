"""The three tensor files of a bundle: base slots, prototypes with their choice, golden vectors.

    prototype = argmax_k( weight · clamp((v − mean) / deviation, ±6) + bias )

Names, shapes, dtypes, finiteness and bounds are checked against the bundle's slots, ports and
observation, so that a device finds out before it runs anything.
Files: docs/edit-format.md, "Bundle".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from persona.formats import container
from persona.formats.errors import Code, FormatError
from persona.formats.manifest import Port
from persona.formats.observation import ItemsSpec, ObservationSpec
from persona.formats.slots import Array, SlotSpec, tensor_names

BASE_FORMAT = "persona.base/1"
PROTOTYPES_FORMAT = "persona.prototypes/1"
GOLDEN_FORMAT = "persona.golden/1"

MAX_HEADER_BYTES = 2**20
"""Longest header of a bundle's tensor file: about ten thousand tensors."""

CLAMP = 6.0
"""How many deviations from the mean of the training devices still count."""

_FLOAT32, _FLOAT16, _INT64 = "F32", "F16", "I64"
_PORT_DTYPE = {"float32": _FLOAT32, "int64": _INT64}


@dataclass(frozen=True)
class Prototypes:
    """Each prototype's change, and the linear rule by which a device chooses one.

    changes: for each prototype `SLOT.SUFFIX` -> float32, as in an edit.
    mean, deviation [width]: of the training devices' observation vectors.
    weight [count, width], bias [count]: the score of each prototype.
    """

    changes: tuple[dict[str, Array], ...]
    mean: Array
    deviation: Array
    weight: Array
    bias: Array

    def assign(self, vector: Array) -> int:
        """The prototype for an observation vector [width]; the lowest of equal ones.

        Raises ValueError where there is none to choose or the vector is of another width.
        """
        if not self.changes:
            raise ValueError("the bundle has no prototypes; use the base")
        if vector.shape != self.mean.shape:
            raise ValueError(
                f"expected an observation vector of shape {list(self.mean.shape)}, "
                f"got {list(vector.shape)}"
            )
        standard = (vector.astype(np.float64) - self.mean) / self.deviation
        scores = self.weight.astype(np.float64) @ np.clip(standard, -CLAMP, CLAMP) + self.bias
        return int(np.argmax(scores))


@dataclass(frozen=True)
class Golden:
    """Inputs with the outputs that a program must give for them.

    inputs: for each golden input, port name -> float32 or int64.
    base: outputs without a change. prototypes: for each prototype, its outputs.
    edit: an example edit, relative to no prototype; edited: its outputs.
    features [1, F], posterior [1, C]: what the observe program must give for each input, where
    the observation is pooled; else empty.
    """

    inputs: tuple[dict[str, NDArray[Any]], ...]
    base: tuple[Array, ...]
    prototypes: tuple[tuple[Array, ...], ...]
    edit: dict[str, Array]
    edited: tuple[Array, ...]
    features: tuple[Array, ...]
    posterior: tuple[Array, ...]


def encode_base(slots: tuple[SlotSpec, ...], base: Mapping[str, Array]) -> bytes:
    """Write `base.safetensors`: `SLOT.SUFFIX` -> what a program's slot holds before any edit."""
    data = container.encode(
        {name: base[name] for name in _feed_names(slots)}, {"format": BASE_FORMAT}
    )
    decode_base(slots, data)
    return data


def decode_base(slots: tuple[SlotSpec, ...], data: bytes) -> dict[str, Array]:
    """Read `base.safetensors`. Raises FormatError."""
    tensors = _read("base", BASE_FORMAT, data)
    shapes = _feed_names(slots)
    _check_names("base", tensors, shapes)
    return {name: _float("base", name, tensors[name], shape) for name, shape in shapes.items()}


def encode_prototypes(slots: tuple[SlotSpec, ...], prototypes: Prototypes) -> bytes:
    """Write `prototypes.safetensors`. Changes are stored as F16 where that loses nothing."""
    tensors: dict[str, NDArray[Any]] = {}
    for k, change in enumerate(prototypes.changes):
        tensors |= {f"{k}.{name}": _shortest(change[name]) for name in tensor_names(slots)}
    if prototypes.changes:
        tensors |= {f"assign.{name}": getattr(prototypes, name) for name in _ASSIGN}
    data = container.encode(tensors, {"format": PROTOTYPES_FORMAT})
    decode_prototypes(slots, len(prototypes.changes), len(prototypes.mean), data)
    return data


def decode_prototypes(
    slots: tuple[SlotSpec, ...], count: int, width: int, data: bytes
) -> Prototypes:
    """Read `prototypes.safetensors` of a bundle with `count` prototypes and observations [width].

    Raises FormatError: a prototype obeys the slots' bounds as an edit does. A bundle without
    prototypes has the file, without tensors.
    """
    file = "prototypes"
    tensors = _read(file, PROTOTYPES_FORMAT, data)
    shapes = {f"{k}.{n}": shape for k in range(count) for n, shape in tensor_names(slots).items()}
    rule = {"mean": (width,), "deviation": (width,), "weight": (count, width), "bias": (count,)}
    _check_names(file, tensors, {*shapes, *(f"assign.{name}" for name in rule if count)})
    changes = tuple(
        {
            name: _float(file, f"{k}.{name}", tensors[f"{k}.{name}"], shape, half=True)
            for name, shape in tensor_names(slots).items()
        }
        for k in range(count)
    )
    limits = {f"{s.name}.{x}": limit for s in slots for x, limit in s.limits().items()}
    for k, change in enumerate(changes):
        for name, values in change.items():
            largest = float(np.abs(values).max())
            if largest > limits[name]:
                _invalid(file, f"'{k}.{name}' reaches {largest:.9g}, above {limits[name]:.9g}")
    if not count:
        return Prototypes((), *(np.zeros(s, np.float32) for s in (width, width, (0, width), 0)))
    found = {
        name: _float(file, f"assign.{name}", tensors[f"assign.{name}"], shape)
        for name, shape in rule.items()
    }
    if not (found["deviation"] > 0).all():
        _invalid(file, "'assign.deviation' must be above 0 everywhere")
    return Prototypes(changes, **found)


_ASSIGN = ("mean", "deviation", "weight", "bias")


def encode_golden(
    slots: tuple[SlotSpec, ...],
    inputs: tuple[Port, ...],
    output: Port,
    observation: ObservationSpec,
    golden: Golden,
) -> bytes:
    """Write `golden.safetensors` for programs with these inputs and this first output.

    The edit is stored as F16 where that loses nothing.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for i, (values, base, edited) in enumerate(
        zip(golden.inputs, golden.base, golden.edited, strict=True)
    ):
        tensors |= {f"input.{i}.{port.name}": values[port.name] for port in inputs}
        tensors[f"base.{i}"] = base
        tensors |= {f"prototype.{k}.{i}": outputs[i] for k, outputs in enumerate(golden.prototypes)}
        tensors[f"edited.{i}"] = edited
    for name in _observed_shapes(observation):
        tensors |= {f"{name}.{i}": value for i, value in enumerate(getattr(golden, name))}
    tensors |= {f"edit.{name}": _shortest(golden.edit[name]) for name in tensor_names(slots)}
    data = container.encode(tensors, {"format": GOLDEN_FORMAT})
    decode_golden(slots, len(golden.prototypes), inputs, output, observation, data)
    return data


def decode_golden(
    slots: tuple[SlotSpec, ...],
    count: int,
    inputs: tuple[Port, ...],
    output: Port,
    observation: ObservationSpec,
    data: bytes,
) -> Golden:
    """Read `golden.safetensors` of a bundle with `count` prototypes. Raises FormatError."""
    file = "golden"
    tensors = _read(file, GOLDEN_FORMAT, data)
    number = 0
    while f"base.{number}" in tensors:
        number += 1
    if not number:
        _invalid(file, "expected one golden input or more, there is no tensor 'base.0'")
    outputs = [f"prototype.{k}" for k in range(count)]
    observed = _observed_shapes(observation)
    changes = {f"edit.{name}": shape for name, shape in tensor_names(slots).items()}
    names = {f"input.{i}.{port.name}" for i in range(number) for port in inputs}
    computed = ("base", *outputs, "edited", *observed)
    names |= {f"{name}.{i}" for name in computed for i in range(number)}
    _check_names(file, tensors, names | set(changes))

    found_inputs: list[dict[str, NDArray[Any]]] = []
    found: dict[str, list[Array]] = {}
    for i in range(number):
        free: dict[str, int] = {}
        found_inputs.append(
            {p.name: _port(file, p, f"input.{i}.{p.name}", tensors, free) for p in inputs}
        )
        for name in ("base", *outputs, "edited"):
            value = _port(file, output, f"{name}.{i}", tensors, free)
            found.setdefault(name, []).append(value)
        for name, shape in observed.items():
            value = _float(file, f"{name}.{i}", tensors[f"{name}.{i}"], shape)
            found.setdefault(name, []).append(value)
    edit = {
        name.removeprefix("edit."): _float(file, name, tensors[name], shape, half=True)
        for name, shape in changes.items()
    }
    return Golden(
        tuple(found_inputs),
        tuple(found["base"]),
        tuple(tuple(found[name]) for name in outputs),
        edit,
        tuple(found["edited"]),
        tuple(found.get("features", ())),
        tuple(found.get("posterior", ())),
    )


def _observed_shapes(observation: ObservationSpec) -> dict[str, tuple[int, int]]:
    """What the observe program gives for one sample; nothing where item ids are observed."""
    if isinstance(observation, ItemsSpec):
        return {}
    return {"features": (1, observation.features), "posterior": (1, observation.classes)}


def _invalid(file: str, message: str) -> NoReturn:
    raise FormatError(
        Code.BUNDLE_TENSORS, f"{file}.safetensors: {message}; export the bundle again"
    )


def _feed_names(slots: tuple[SlotSpec, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{s.name}.{suffix}": shape for s in slots for suffix, shape in s.feeds().items()}


def _shortest(values: Array) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else values


def _read(file: str, wanted: str, data: bytes) -> dict[str, container.Tensor]:
    tensors, metadata = container.decode(data, MAX_HEADER_BYTES)
    if metadata != {"format": wanted}:
        _invalid(file, f"expected the metadata format = {wanted!r} alone, got {metadata}")
    return tensors


def _check_names(
    file: str, tensors: Mapping[str, container.Tensor], wanted: Mapping[str, Any] | set[str]
) -> None:
    missing, unknown = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing:
        _invalid(file, f"there is no tensor {missing[0]!r}")
    if unknown:
        _invalid(file, f"tensor {unknown[0]!r} is not one of this bundle's")


def _float(
    file: str, name: str, tensor: container.Tensor, shape: tuple[int, ...], half: bool = False
) -> Array:
    if tensor.dtype != _FLOAT32 and not (half and tensor.dtype == _FLOAT16):
        _invalid(file, f"{name!r} must be F32{' or F16' if half else ''}, got {tensor.dtype}")
    if tensor.shape != shape:
        _invalid(file, f"{name!r} must have shape {list(shape)}, got {list(tensor.shape)}")
    values: Array = tensor.array().astype(np.float32)
    if not np.isfinite(values).all():
        _invalid(file, f"{name!r} holds NaN or infinity")
    return values


def _port(
    file: str, port: Port, name: str, tensors: Mapping[str, container.Tensor], free: dict[str, int]
) -> NDArray[Any]:
    """The value of a port; `free` keeps the sizes of dimensions that the caller chooses."""
    tensor = tensors[name]
    dtype = _PORT_DTYPE[port.dtype]
    if tensor.dtype != dtype:
        _invalid(file, f"{name!r} must be {dtype}, got {tensor.dtype}")
    if len(tensor.shape) != len(port.shape):
        _invalid(file, f"{name!r} must have shape {list(port.shape)}, got {list(tensor.shape)}")
    limits = iter(port.free)
    for wanted, size in zip(port.shape, tensor.shape, strict=True):
        if wanted == -1:
            dimension = next(limits)
            fits = dimension.min <= size <= dimension.max
            wanted = free.setdefault(dimension.name, size) if fits else -1
        if wanted != size:
            _invalid(file, f"{name!r} must have shape {list(port.shape)}, got {list(tensor.shape)}")
    if dtype == _INT64:
        return tensor.array()
    return _float(file, name, tensor, tensor.shape)
