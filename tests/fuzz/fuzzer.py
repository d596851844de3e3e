"""Runs one check under the coverage-guided fuzzer atheris (libFuzzer), from seeds, with mutations
that keep JSON readable half of the time so that what lies behind the parser is reached too.
"""

import copy
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import atheris

HERE = Path(__file__).parent
CONFORMANCE = HERE.parent / "conformance"
sys.path.insert(0, str(CONFORMANCE))

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, 1e308, -0.0, 0.5, "", "none", "NaN",
    "-1", "0", "01", "9" * 40, "\u0000", "\ud7ff", "../x", "head.0.weight", "F16", "F32", "I64",
    "fp32", "effective", "change", "2026-06-01T12:00:00Z", [], {}, [0], [1, 1], [2**40, 2**40],
)  # fmt: skip

Mutate = Callable[[bytes, int, random.Random], bytes]


def fuzz(check: Callable[[bytes], None], seeds: Iterable[bytes], mutate: Mutate) -> None:
    """Call `check` with inputs until libFuzzer's limits in the command line are reached.

    What `check` raises, and any input that takes longer than 5 s, is a finding.
    """

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            found = mutate(data, longest, rng)
            if len(found) <= longest:
                return found
        plain: bytes = atheris.Mutate(data, longest)
        return plain

    with tempfile.TemporaryDirectory() as folder:
        for index, seed in enumerate(seeds):
            (Path(folder) / f"{index:04}").write_bytes(seed)
        limits = ["-timeout=5", "-rss_limit_mb=2048", "-max_len=16384", "-verbosity=1"]
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], folder], check, custom_mutator=mutated)
        atheris.Fuzz()


def mutated_json(text: bytes, rng: random.Random) -> bytes:
    """The document with one to three of its values replaced, moved, left out or doubled."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for _ in range(rng.randint(1, 3)):
        places = list(_places(document))
        if not places:
            return text
        parent, key = rng.choice(places)
        _change(parent, key, rng, places)
    try:
        return json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return text


def _places(value: Any) -> Iterable[tuple[Any, Any]]:
    """Parent and key of every value, without recursion."""
    waiting = [value]
    while waiting:
        parent = waiting.pop()
        if isinstance(parent, dict | list):
            keys = list(parent) if isinstance(parent, dict) else range(len(parent))
            for key in keys:
                yield parent, key
                waiting.append(parent[key])


def _change(parent: Any, key: Any, rng: random.Random, places: list[tuple[Any, Any]]) -> None:
    value = parent[key]
    match rng.randrange(5):
        case 0:
            parent[key] = copy.deepcopy(rng.choice(STRANGE))
        case 1:
            del parent[key]
        case 2:
            other, there = rng.choice(places)
            parent[key] = json.loads(json.dumps(other[there])) if there in _keys(other) else value
        case 3 if isinstance(value, float):
            parent[key] = value + rng.choice((-1, 1, -4, 4, 0.5))
        case 3 if isinstance(value, int):
            parent[key] = value + rng.choice((-1, 1, -4, 4))
        case 3 if isinstance(value, str) and value:
            at = rng.randrange(len(value))
            parent[key] = value[:at] + chr(rng.randrange(1, 0xD7FF)) + value[at + 1 :]
        case _ if isinstance(parent, list):
            parent.append(json.loads(json.dumps(value)))
        case _:
            parent[f"{key}{rng.choice(('2', '.', ''))}"] = value


def _keys(value: Any) -> Any:
    return value if isinstance(value, dict) else range(len(value))
