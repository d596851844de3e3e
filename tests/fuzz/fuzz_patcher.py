"""Fuzzes the weight patcher: whatever patches a manifest gets past its reader, only their bytes of
the head change, to the values, as the second reader has it.
"""

import json
import random
import zlib

import atheris
import numpy as np
from fuzzer import CONFORMANCE, fuzz, mutated_json

with atheris.instrument_imports(include=["persona.formats"]):
    from persona.formats.errors import FormatError
    from persona.formats.manifest import Program, decode_manifest, patched_head

import second_reader as second

LARGEST = 65_536
"""Bytes of a head that is made here; a manifest may name a larger one."""


def check(data: bytes) -> None:
    """Raises AssertionError at a wrong byte, and lets pass what else is raised."""
    try:
        manifest = decode_manifest(data)
    except FormatError:
        return
    for program in manifest.programs:
        if program.head is not None and manifest.files[program.head.path].size <= LARGEST:
            _check(program, manifest.files[program.head.path].size, zlib.crc32(data))


def _check(program: Program, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    head = rng.bytes(size)
    patched = [feed for feed in program.feeds if feed.patch is not None]
    values = {f.tensor: rng.standard_normal(f.shape, np.float32) for f in patched}
    found = patched_head(head, program, values)
    feeds = [
        {"tensor": f.tensor, "patch": {"offset": f.patch.offset, "length": f.patch.length}}
        for f in patched
        if f.patch is not None
    ]
    lists = {name: (v.shape, v.ravel().tolist()) for name, v in values.items()}
    assert found == second.patch(head, feeds, lists), "the two readers patch differently"
    assert len(found) == size, "the head has another size"
    rest = bytearray(found)
    for feed in feeds:
        start, length = feed["patch"]["offset"], feed["patch"]["length"]
        assert found[start : start + length] == values[feed["tensor"]].astype("<f4").tobytes()
        rest[start : start + length] = head[start : start + length]
    assert rest == head, "a byte outside of the patches changed"


def mutate(data: bytes, longest: int, rng: random.Random) -> bytes:  # noqa: ARG001
    """Mutate programs and files as JSON; half of the time only the patches' numbers."""
    try:
        document = json.loads(data)
        programs = document["programs"]
        if rng.random() < 0.5:
            feed = rng.choice([f for p in programs for f in p["feeds"] if f.get("patch")])
            field = rng.choice(("offset", "length"))
            feed["patch"][field] += rng.choice((-4096, -12, -4, -1, 1, 4, 12, 4096))
        else:
            part = rng.choice(("programs", "files"))
            document[part] = json.loads(mutated_json(json.dumps(document[part]).encode(), rng))
        return json.dumps(document).encode()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return mutated_json(data, rng)


def seeds() -> list[bytes]:
    """The corpus's manifests with patches."""
    found = [path.read_bytes() for path in sorted((CONFORMANCE / "bundles/manifests").iterdir())]
    return [data for data in found if b'"patch"' in data]


if __name__ == "__main__":
    fuzz(check, seeds(), mutate)
