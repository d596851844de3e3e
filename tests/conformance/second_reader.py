"""A second reader of edits, written from docs/edit-format.md alone, to show that the page suffices.

It shares nothing with the package: the standard library reads, `cryptography` checks ECDSA, and
binary32 is a Python float that is rounded after each operation. Sections are named as on the page.
"""

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

LARGEST_WHOLE = 2**53 - 1
ALL_SUFFIXES = ("weight", "a", "b", "scale", "shift", "bias")


class RefusedError(Exception):
    """A rule is broken; `code` is the verdict."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def require(holds: bool, code: str) -> None:
    if not holds:
        raise RefusedError(code)


# Strict JSON


class Number(str):
    """A number as it is written."""


class Members(list[tuple[str, Any]]):
    """An object with its members in order, repeated ones too."""


class MalformedError(Exception):
    """No strict JSON."""


def _nodes(value: Any, depth: int = 1) -> Iterator[Any]:
    """Every value and key of a document; too deep nesting ends in `MalformedError`."""
    yield value
    if isinstance(value, list):
        if depth > 64:
            raise MalformedError("nested too deep")
        for child in value:
            if isinstance(value, Members):
                yield child[0]
                child = child[1]
            yield from _nodes(child, depth + 1)


def _refuse_constant(name: str) -> None:
    raise MalformedError(name)


def parse_strictly(data: bytes) -> tuple[Any, bool]:
    """The document, and whether a key stands twice somewhere, which is the last fault to report."""
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=Members,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise MalformedError(str(error)) from error
    nodes = list(_nodes(document))
    for node in nodes:
        if isinstance(node, Number):
            if math.isinf(float(node)):
                raise MalformedError("number beyond binary64")
        elif isinstance(node, str) and re.search("[\ud800-\udfff]", node):
            raise MalformedError("half of a surrogate pair")
    objects = [node for node in nodes if isinstance(node, Members)]
    return document, any(len({key for key, _ in pairs}) < len(pairs) for pairs in objects)


# Container

BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("F64", "I64", "U64"), 8),
}
STRUCT_CODES = {"F16": "e", "F32": "f", "I64": "q"}


@dataclass(frozen=True)
class Tensor:
    """A tensor's bytes; `values` decodes the dtypes of this format, exactly."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def values(self) -> list[float]:
        count = math.prod(self.shape)
        return list(struct.unpack(f"<{count}{STRUCT_CODES[self.dtype]}", self.data))


@dataclass(frozen=True)
class Container:
    metadata: dict[str, str] | None
    tensors: dict[str, Tensor]


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, Number)
        and re.fullmatch("0|[1-9][0-9]*", value) is not None
        and len(value) <= 16
        and int(value) <= LARGEST_WHOLE
    )


def _entry(value: Any) -> tuple[str, tuple[int, ...], int, int]:
    """One tensor's dtype, shape, begin and end."""
    invalid = "container.header_invalid"
    require(isinstance(value, Members), invalid)
    fields = dict(value)
    require(set(fields) == {"dtype", "shape", "data_offsets"}, invalid)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    require(type(dtype) is str and dtype in BYTES, invalid)
    require(type(shape) is list and len(shape) <= 8 and all(map(_is_plain, shape)), invalid)
    require(type(offsets) is list and len(offsets) == 2 and all(map(_is_plain, offsets)), invalid)
    begin, end = map(int, offsets)
    require(begin <= end, invalid)
    return dtype, tuple(map(int, shape)), begin, end


def _size(dtype: str, shape: Sequence[int]) -> int | None:
    if BYTES[dtype] * math.prod(size for size in shape if size) > LARGEST_WHOLE:
        return None
    return BYTES[dtype] * math.prod(shape)


def read_container(file: bytes, longest_header: int = 65536) -> Container:
    require(len(file) >= 8, "container.truncated")
    (length,) = struct.unpack_from("<Q", file)
    require(length <= longest_header, "container.header_too_long")
    require(len(file) >= 8 + length, "container.truncated")
    header, data = file[8 : 8 + length], file[8 + length :]
    require(header.startswith(b"{"), "container.header_invalid")
    try:
        document, repeated = parse_strictly(header)
    except MalformedError as error:
        raise RefusedError("container.header_invalid") from error
    numbers = (node for node in _nodes(document) if isinstance(node, Number))
    require(all(map(_is_plain, numbers)), "container.header_invalid")
    require(not repeated, "container.duplicate_key")

    members = dict(document)
    metadata = None
    if "__metadata__" in members:
        pairs = members.pop("__metadata__")
        require(
            isinstance(pairs, Members) and all(type(value) is str for _, value in pairs),
            "container.header_invalid",
        )
        metadata = dict(pairs)
    entries = {name: _entry(value) for name, value in members.items()}
    for dtype, shape, begin, end in entries.values():
        require(_size(dtype, shape) == end - begin, "container.size_mismatch")
    for _, _, _, end in entries.values():
        require(end <= len(data), "container.out_of_bounds")
    position = 0
    for begin, end in sorted(entry[2:] for entry in entries.values()):
        require(begin >= position, "container.overlap")
        require(begin <= position, "container.hole")
        position = end
    require(position == len(data), "container.trailing_bytes")
    tensors = {
        name: Tensor(dtype, shape, data[begin:end])
        for name, (dtype, shape, begin, end) in entries.items()
    }
    return Container(metadata, tensors)


# Metadata

METADATA = {"format", "model", "bundle", "device", "sequence", "prototype"}
TIMES = {"issued_at", "expires_at"}


def read_time(text: str) -> datetime:
    """A *time*; ValueError where it is none."""
    match = re.fullmatch("(....)-(..)-(..)T(..):(..):(..)Z", text)
    if match is None or not all(re.fullmatch("[0-9]+", group) for group in match.groups()):
        raise ValueError(text)
    year, month, day, hour, minute, second = map(int, match.groups())
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def _check_metadata(metadata: Mapping[str, str]) -> None:
    invalid = "edit.metadata_invalid"
    require(set(metadata) == METADATA | TIMES, invalid)
    require(metadata["model"] != "" and metadata["device"] != "", invalid)
    require(re.fullmatch("[0-9a-f]{64}", metadata["bundle"]) is not None, invalid)
    require(_is_plain(Number(metadata["sequence"])) and int(metadata["sequence"]) >= 1, invalid)
    require(metadata["prototype"] == "none" or _is_plain(Number(metadata["prototype"])), invalid)
    try:
        ordered = read_time(metadata["issued_at"]) < read_time(metadata["expires_at"])
    except ValueError as error:
        raise RefusedError(invalid) from error
    require(ordered, invalid)


# Tensors


def to_binary32(value: float) -> float:
    """The nearest binary32 number, ties to even; infinite where there is none."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def slot_tensors(slot: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], float]]:
    """Suffix → shape and bound of the tensors that a slot has in an edit."""
    out, width, rank = slot["out"], slot["in"], slot["rank"]
    bound, bias_bound = to_binary32(slot["bound"]), to_binary32(slot["bias_bound"])
    tensors: dict[str, tuple[tuple[int, ...], float]]
    if slot["kind"] == "dense":
        tensors = {"weight": ((out, width), bound)}
    elif slot["kind"] == "low-rank":
        tensors = {"a": ((rank, width), 1.0), "b": ((out, rank), to_binary32(slot["bound"] / rank))}
    else:
        tensors = {"scale": ((out,), bound), "shift": ((out,), bias_bound)}
    if slot["bias"]:
        tensors["bias"] = ((out,), bias_bound)
    return tensors


# Signature


def verifies(signature: str, message: bytes, public_key: bytes) -> bool:
    try:
        decoded = base64.b64decode(signature, validate=True)
    except (ValueError, binascii.Error):
        return False
    if base64.b64encode(decoded).decode() != signature:
        return False
    key = load_der_public_key(public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        decode_dss_signature(decoded)
        key.verify(decoded, message, ec.ECDSA(SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


# Verification


@dataclass(frozen=True)
class Device:
    """What the device knows."""

    keys: Mapping[str, bytes]
    model: str
    bundle: str
    id: str
    sequence: int
    slots: Sequence[Mapping[str, Any]]
    prototype_count: int
    probe_shape: tuple[int, ...]
    max_edit_bytes: int


def verify(file: bytes, key_id: str, signature: str, device: Device, now: datetime) -> Container:
    """The edit, or `RefusedError` with the code of the first rule that it breaks."""
    require(len(file) <= device.max_edit_bytes, "edit.too_large")
    require(key_id in device.keys, "edit.unknown_key")
    require(verifies(signature, file, device.keys[key_id]), "edit.bad_signature")
    edit = read_container(file)
    metadata = edit.metadata or {}
    require(metadata.get("format") == "persona.edit/1", "edit.unknown_format")
    _check_metadata(metadata)
    same_base = metadata["model"] == device.model and metadata["bundle"] == device.bundle
    require(same_base, "edit.other_base")
    require(metadata["device"] == device.id, "edit.other_device")
    require(int(metadata["sequence"]) > device.sequence, "edit.replayed")
    require(read_time(metadata["expires_at"]) > now, "edit.expired")
    ahead = (read_time(metadata["issued_at"]) - now).total_seconds()
    require(ahead <= 300, "edit.from_future")
    prototype = metadata["prototype"]
    known = prototype == "none" or int(prototype) < device.prototype_count
    require(known, "edit.unknown_prototype")
    _check_tensors(edit.tensors, device)
    return edit


def _check_tensors(tensors: Mapping[str, Tensor], device: Device) -> None:
    possible = {
        slot["name"]: {f"{slot['name']}.{suffix}" for suffix in ALL_SUFFIXES}
        for slot in device.slots
    }
    wanted = {
        f"{slot['name']}.{suffix}": shape_and_bound
        for slot in device.slots
        for suffix, shape_and_bound in slot_tensors(slot).items()
    }
    present = set(tensors) - {"probe.expected"}
    require(all(names & present for names in possible.values()), "slot.missing")
    require(present <= set().union(*possible.values()), "slot.unknown")
    require(present == set(wanted), "slot.kind")
    require(all(tensors[name].shape == wanted[name][0] for name in wanted), "slot.shape")
    require(all(tensors[name].dtype in ("F16", "F32") for name in wanted), "slot.dtype")
    require("probe.expected" in tensors, "probe.missing")
    probe = tensors["probe.expected"]
    require(probe.dtype == "F32" and probe.shape == device.probe_shape, "probe.shape")
    finite = (math.isfinite(value) for tensor in tensors.values() for value in tensor.values)
    require(all(finite), "value.not_finite")
    within = (
        abs(value) <= bound for name, (_, bound) in wanted.items() for value in tensors[name].values
    )
    require(all(within), "value.beyond_bound")


# Applying

Values = tuple[tuple[int, ...], list[float]]


@dataclass(frozen=True)
class Applied:
    """What a program takes, by `SLOT.SUFFIX`, as shape and binary32 values."""

    change: dict[str, Values]
    effective: dict[str, Values]
    changes_nothing: bool


def _add(left: Sequence[float], right: Sequence[float]) -> list[float]:
    return [to_binary32(a + b) for a, b in zip(left, right, strict=True)]


def apply(
    edit: Container,
    slots: Sequence[Mapping[str, Any]],
    base: Mapping[str, Tensor],
    prototypes: Mapping[str, Tensor],
) -> Applied:
    assert edit.metadata is not None
    number = edit.metadata["prototype"]
    changes: dict[str, Values] = {}
    effective: dict[str, Values] = {}
    nothing = True
    for slot in slots:
        halves: dict[str, tuple[list[float], list[float]]] = {}
        for suffix, (shape, _) in slot_tensors(slot).items():
            name = f"{slot['name']}.{suffix}"
            mine = edit.tensors[name].values
            group = [0.0] * len(mine) if number == "none" else prototypes[f"{number}.{name}"].values
            halves[suffix] = (group, mine)
            if suffix == "a":
                changes[name] = ((2 * shape[0], shape[1]), group + mine)
                effective[name] = changes[name]
            elif suffix == "b":
                out, rank = shape
                rows = [
                    half[row * rank : (row + 1) * rank]
                    for row in range(out)
                    for half in halves["b"]
                ]
                changes[name] = ((out, 2 * rank), [value for row in rows for value in row])
                effective[name] = changes[name]
            else:
                change = _add(group, mine)
                changes[name] = (shape, change)
                effective[name] = (shape, _add(base[name].values, change))
                nothing &= not any(change)
        if slot["kind"] == "low-rank":
            pairs = zip(halves["a"], halves["b"], strict=True)
            nothing &= all(not any(a) or not any(b) for a, b in pairs)
    return Applied(changes, effective, nothing)


def patch(
    head: bytes, feeds: Sequence[Mapping[str, Any]], effective: Mapping[str, Values]
) -> bytes:
    """A head's file with the values of its slots in place."""
    patched = bytearray(head)
    for feed in feeds:
        if feed.get("patch") is not None:
            _, values = effective[feed["tensor"]]
            require(feed["patch"]["length"] == 4 * len(values), "bundle.manifest_invalid")
            struct.pack_into(f"<{len(values)}f", patched, feed["patch"]["offset"], *values)
    return bytes(patched)


# The probe


def probe(
    expected: Tensor, output: Tensor, without: Tensor, tolerance: float, changes_nothing: bool
) -> str:
    """`ok` or the code, for the outputs of the edited program and of the one without."""
    if output.shape != expected.shape:
        return "probe.mismatch"
    allowed = tolerance * max(1.0, *map(abs, expected.values), 1.0)
    pairs = zip(expected.values, output.values, strict=True)
    if not all(abs(to_binary32(e - o)) <= allowed for e, o in pairs):
        return "probe.mismatch"
    if not changes_nothing and output.values == without.values:
        return "probe.no_effect"
    return "ok"


# Choosing a prototype


def choose(vector: Sequence[float], prototypes: Mapping[str, Tensor]) -> int:
    mean, deviation = prototypes["assign.mean"].values, prototypes["assign.deviation"].values
    weight, bias = prototypes["assign.weight"].values, prototypes["assign.bias"].values
    clamped = [
        min(max((v - m) / d, -6.0), 6.0) for v, m, d in zip(vector, mean, deviation, strict=True)
    ]
    width = len(clamped)
    scores = [
        sum(w * c for w, c in zip(weight[k * width : (k + 1) * width], clamped, strict=True))
        + bias[k]
        for k in range(len(bias))
    ]
    return max(range(len(scores)), key=scores.__getitem__)


def verdict(read: Callable[[], object]) -> str:
    """`ok`, or the code with which `read` refuses."""
    try:
        read()
    except RefusedError as error:
        return error.code
    return "ok"
