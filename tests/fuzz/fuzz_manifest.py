"""Fuzzes the manifest reader: any bytes end in a manifest that survives being written and read, or
in a `FormatError`; and what it takes is strict JSON to the second reader too.
"""

import random

import atheris
from fuzzer import CONFORMANCE, fuzz, mutated_json

with atheris.instrument_imports(include=["persona.formats"]):
    from persona.formats.errors import FormatError
    from persona.formats.manifest import decode_manifest, encode_manifest

import second_reader as second


def check(data: bytes) -> None:
    """Raises what a faulty reader does."""
    try:
        manifest = decode_manifest(data)
    except FormatError:
        return
    assert decode_manifest(encode_manifest(manifest)) == manifest, "it does not come back"
    _, repeated = second.parse_strictly(data)
    assert not repeated, "a key stands twice"


def mutate(data: bytes, longest: int, rng: random.Random) -> bytes:  # noqa: ARG001
    """Mutate as JSON."""
    return mutated_json(data, rng)


def seeds() -> list[bytes]:
    """The corpus of manifests, good and bad."""
    return [path.read_bytes() for path in sorted((CONFORMANCE / "bundles/manifests").iterdir())]


if __name__ == "__main__":
    fuzz(check, seeds(), mutate)
