"""Fuzzes the edit reader: any bytes end in an edit or a `FormatError`, with the second reader's
verdict.

Signatures are taken for good, for no mutation would keep one: the first byte says what the device
expects, the others are the file.
"""

import json
import random
import struct
from datetime import UTC, datetime

import atheris
from fuzzer import CONFORMANCE, fuzz, mutated_json

with atheris.instrument_imports(include=["persona.formats"]):
    from persona.formats import schema
    from persona.formats.errors import FormatError
    from persona.formats.slots import SlotSpec
    from persona.formats.verify import Expectation, Signature, verify_edit

import second_reader as second

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
KNOWN = json.loads((CONFORMANCE / "expectations.json").read_text())
NAMES = sorted(KNOWN)


class _AnyKey:
    """Takes every signature."""

    def knows(self, key_id: str) -> bool:  # noqa: ARG002
        return True

    def verifies(self, key_id: str, der: bytes, data: bytes) -> bool:  # noqa: ARG002
        return True


def _expectation(known: dict) -> Expectation:
    return Expectation(
        known["model"],
        known["bundle"],
        known["device"],
        known["sequence"],
        schema.decode(tuple[SlotSpec, ...], known["slots"]),
        known["prototype_count"],
        tuple(known["probe_shape"]),
        known["max_bytes"],
    )


def _device(known: dict) -> second.Device:
    return second.Device(
        {"": b""},
        known["model"],
        known["bundle"],
        known["device"],
        known["sequence"],
        known["slots"],
        known["prototype_count"],
        tuple(known["probe_shape"]),
        known["max_bytes"],
    )


OURS = [_expectation(KNOWN[name]) for name in NAMES]
THEIRS = [_device(KNOWN[name]) for name in NAMES]
second.verifies = lambda *_: True  # type: ignore[assignment]


def check(data: bytes) -> None:
    """Raises AssertionError where the two readers differ, and lets pass what else is raised."""
    which, file = (data[0] % len(NAMES), data[1:]) if data else (0, b"")
    try:
        verify_edit(file, Signature("", b""), _AnyKey(), OURS[which], NOW)
        ours = "ok"
    except FormatError as error:
        ours = str(error.code)
    theirs = second.verdict(lambda: second.verify(file, "", "", THEIRS[which], NOW))
    assert ours == theirs, f"this reader says {ours}, the second reader {theirs}"


def mutate(data: bytes, longest: int, rng: random.Random) -> bytes:  # noqa: ARG001
    """Mutate the header as JSON and say its new length; tensors stay."""
    which, file = data[:1] or b"\0", data[1:]
    if len(file) < 8:
        return data
    (length,) = struct.unpack_from("<Q", file)
    if length > len(file) - 8:
        return data
    header = mutated_json(file[8 : 8 + length], rng)
    header += b" " * (-len(header) % 8)
    body = file[8 + length :]
    if body and rng.random() < 0.3:
        at = rng.randrange(len(body))
        body = body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
    return which + struct.pack("<Q", len(header)) + header + body


def seeds() -> list[bytes]:
    """The corpus: each edit for the device that it was made for."""
    cases = json.loads((CONFORMANCE / "cases.json").read_text())
    return [
        bytes([NAMES.index(case["expectation"])]) + (CONFORMANCE / case["edit"]).read_bytes()
        for case in cases
    ]


if __name__ == "__main__":
    fuzz(check, seeds(), mutate)
