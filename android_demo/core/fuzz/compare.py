"""Mass comparison of the Kotlin readers with Python's: the same verdict on every mutant.

    python android_demo/core/fuzz/compare.py --inputs 1000000 --classpath CORE:TESTS:KOTLIN-STDLIB

Mutates files of the conformance corpus, signs mutated edits again so that what lies behind the
signature is reached, and asks `persona.formats` and a Kotlin process (`dev.persona.fuzz.Verdicts`,
a line an input) for their verdicts. Ends non-zero where any differs or crashes; those inputs lie in
build/fuzz. Runs outside of CI.
"""

import argparse
import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
CONFORMANCE = ROOT / "tests" / "conformance"
FINDINGS = ROOT / "build" / "fuzz"
sys.path[:0] = [str(ROOT / "tests" / "fuzz"), str(CONFORMANCE)]

from fuzzer import mutated_json  # noqa: E402
from generator import wire  # noqa: E402

from persona.bundles import verify_signed  # noqa: E402
from persona.formats import bundle_tensors, container, observation, schema  # noqa: E402
from persona.formats.edit import parse_time  # noqa: E402
from persona.formats.errors import FormatError  # noqa: E402
from persona.formats.manifest import decode_manifest  # noqa: E402
from persona.formats.slots import SlotSpec  # noqa: E402
from persona.formats.strict_json import RepeatedKeyError, strict_json  # noqa: E402
from persona.formats.verify import Expectation, verify_edit  # noqa: E402
from persona.signing import PublicKeys, read_signature  # noqa: E402

BATCH = 20_000
TOKENS = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\t", b"\n", b"\r", b"\x0b", b"\x00",
    b"\xef\xbb\xbf", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\x7f", b"0",
    b"-", b"-0", b"00", b"1.0", b"1e0", b"1e400", b"-1e400", b"1e-400", b"1E+2", b".5", b"5.",
    b"0e99999999999", b"9007199254740991", b"9007199254740992", b"18446744073709551616",
    b"true", b"false", b"null", b"NaN", b"Infinity", b'"\\ud83d"', b'"\\ud83d\\ude00"',
    b'"\\u0061"', b'"\\u00e9"',
    b'"\xc3\xa9"', b'"a":1,"a":2', b'"dtype":"F32",', b"/**/", b"[" * 63, b"[" * 65,
    b"2026-02-29T00:00:00Z",
)  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """A file of the corpus. words: the reader's name and what it needs to know."""

    words: tuple[str, ...]
    data: bytes
    framed: bool


def read_json(path: str) -> Any:
    """A file of the corpus."""
    return json.loads((CONFORMANCE / path).read_text("utf-8"))


def seeds() -> list[list[Seed]]:
    """The corpus by reader."""
    edits = [
        Seed(("edit", c["expectation"], c["key_id"], c["signature"], c["now"]), data, True)
        for c in read_json("cases.json")
        for data in [(CONFORMANCE / c["edit"]).read_bytes()]
    ]
    bundles = read_json("bundles/cases.json")
    manifests = [_seed(c["manifest"], "manifest") for c in bundles["manifests"]]
    signatures = [
        _seed(c["signature"], reader)
        for c in bundles["signatures"]
        for reader in ("signature", "unpinned")
    ]
    tensors = [_seed(c["file"], c["kind"]) for c in bundles["tensors"] if "observation" not in c]
    observations = [
        _seed(c["file"], "observation-json" if c["form"] == "json" else "observation", c["spec"])
        for c in read_json("observations/cases.json")
        if c["form"] != "window"
    ]
    containers = [Seed(("container",), s.data, True) for s in edits + tensors]
    texts = [Seed(("json",), s.data, False) for s in manifests + signatures]
    return [edits, edits, manifests, signatures, tensors, observations, containers, texts]


def _seed(path: str, *words: str) -> Seed:
    framed = words[0] in ("base", "prototypes", "golden", "observation")
    return Seed(words, (CONFORMANCE / path).read_bytes(), framed)


def mutants(rng: random.Random) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Words and bytes for ever."""
    families = seeds()
    while True:
        seed = rng.choice(rng.choice(families))
        data = _mutated(seed, rng)
        words = seed.words
        if words[0] == "edit" and rng.random() < 0.9:
            signature = wire.text(wire.CLOUD.sign(data))
            words = (*words[:2], wire.CLOUD.id, signature, words[4])
        if all(word and all("!" <= character <= "~" for character in word) for word in words):
            yield words, data


def _mutated(seed: Seed, rng: random.Random) -> bytes:
    if not seed.framed:
        return _replaced(seed.data, rng) if rng.random() < 0.5 else _scrambled(seed.data, rng)
    length = int.from_bytes(seed.data[:8], "little")
    if len(seed.data) < 8 + length or rng.random() < 0.2:
        return _scrambled(seed.data, rng)
    header, body = seed.data[8 : 8 + length], seed.data[8 + length :]
    match rng.randrange(4):
        case 0 | 1:
            header = _replaced(header, rng)
        case 2:
            header = _scrambled(header, rng)
        case _ if body:
            body = _scrambled(body, rng)
    return len(header).to_bytes(8, "little") + header + body


def _replaced(text: bytes, rng: random.Random) -> bytes:
    try:
        return mutated_json(text, rng)
    except OverflowError:  # the corpus has whole numbers that no float holds
        return text


def _scrambled(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.randint(1, 12))
        match rng.randrange(6):
            case 0 if at < len(out):
                out[at] = rng.randrange(256)
            case 1 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 2:
                del out[at:end]
            case 3:
                out[at:at] = out[at:end]
            case 4 if rng.random() < 0.3:
                del out[at:]
            case _:
                out[at : rng.choice((at, end))] = rng.choice(TOKENS)
    return bytes(out)


class Python:
    """The verdicts of `persona.formats`."""

    def __init__(self) -> None:
        folder = CONFORMANCE / "bundles" / "complete"
        self.text = (folder / "manifest.json").read_bytes()
        manifest = decode_manifest(self.text)
        slots, count = manifest.slots, manifest.prototype_count
        observed, width = manifest.observation, manifest.observation.width
        ports = manifest.inputs, manifest.outputs[0]
        keys = read_json("keys.json")
        self.edit_keys, publisher = (
            PublicKeys(base64.b64decode(key["public_key"]) for key in keys[use])
            for use in ("edits", "bundles")
        )
        self.expectations = {n: _expectation(k) for n, k in read_json("expectations.json").items()}
        self.specs = {
            name: schema.decode(
                observation.PooledSpec if spec["kind"] == "pooled" else observation.ItemsSpec, spec
            )
            for name, spec in read_json("observations/specs.json").items()
        }
        self.readers: dict[str, Callable[[bytes], Any]] = {
            "json": lambda data: strict_json(data.decode("utf-8")),
            "container": container.decode,
            "manifest": decode_manifest,
            "signature": lambda data: verify_signed(self.text, data, publisher),
            "unpinned": lambda data: verify_signed(self.text, data, None),
            "base": partial(bundle_tensors.decode_base, slots),
            "prototypes": partial(bundle_tensors.decode_prototypes, slots, count, width),
            "golden": partial(bundle_tensors.decode_golden, slots, count, *ports, observed),
        }

    def read(self, words: tuple[str, ...], data: bytes) -> None:
        """Hand `data` to the reader that the first word names."""
        match words[0]:
            case "edit":
                signature = read_signature(words[2], words[3])
                expected = self.expectations[words[1]]
                verify_edit(data, signature, self.edit_keys, expected, parse_time(words[4]))
            case "observation":
                observation.from_safetensors(self.specs[words[1]], data)
            case "observation-json":
                observation.parse_json(self.specs[words[1]], data)
            case reader:
                self.readers[reader](data)

    def verdict(self, words: tuple[str, ...], data: bytes) -> str:
        """`ok`, the code, or which exception a reader must never raise."""
        try:
            self.read(words, data)
        except FormatError as error:
            return str(error.code.value)
        except RepeatedKeyError:
            return "repeated"
        except ValueError as error:
            return "malformed" if words[0] == "json" else f"crash {type(error).__name__}"
        except Exception as error:
            return f"crash {type(error).__name__}"
        return "ok"


def _expectation(known: dict[str, Any]) -> Expectation:
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


def compare(batch: list[tuple[tuple[str, ...], bytes]], python: Python, classpath: str) -> Any:
    """Verdicts of both, input by input; the two work at the same time."""
    lines = [" ".join((*words, base64.b64encode(data).decode())) for words, data in batch]
    command = ["java", "-XX:+UseSerialGC", f"-Dpersona.conformance={CONFORMANCE}", "-cp", classpath]
    with tempfile.TemporaryFile("w+") as asked, tempfile.TemporaryFile("w+") as answered:
        asked.write("\n".join(lines) + "\n")
        asked.seek(0)
        command.append("dev.persona.fuzz.Verdicts")
        with subprocess.Popen(command, stdin=asked, stdout=answered):
            ours = [python.verdict(words, data) for words, data in batch]
        answered.seek(0)
        theirs = answered.read().splitlines()
    if len(theirs) != len(batch):
        raise SystemExit(f"the Kotlin process answered {len(theirs)} of {len(batch)} inputs")
    return zip(lines, ours, theirs, strict=True)


def main() -> int:
    """Compare until all inputs are done; 1 where a verdict differs or a reader crashes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--classpath", required=True, help="of core, its tests and kotlin-stdlib")
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    source, python = mutants(random.Random(chosen.seed)), Python()
    verdicts: Counter[str] = Counter()
    findings: list[str] = []
    start, done = time.monotonic(), 0
    while done < chosen.inputs:
        batch = [next(source) for _ in range(min(BATCH, chosen.inputs - done))]
        for line, ours, theirs in compare(batch, python, chosen.classpath):
            verdicts[ours] += 1
            if ours != theirs or ours.startswith("crash"):
                findings.append(f"python: {ours}, kotlin: {theirs}: {line}")
        done += len(batch)
        rate = done / (time.monotonic() - start)
        print(f"{done:9} inputs, {len(findings)} findings, {rate:.0f}/s", flush=True)
    for verdict, count in verdicts.most_common():
        print(f"{count:9} {verdict}")
    if findings:
        FINDINGS.mkdir(parents=True, exist_ok=True)
        place = FINDINGS / f"kotlin-{chosen.seed}.txt"
        place.write_text("\n".join(findings) + "\n")
        print(f"{len(findings)} findings in {place}, the first: {findings[0][:200]}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
