"""Runs the three fuzzers one after the other and says what they found.

    python tests/fuzz/run.py --inputs 400000     (outside of CI; each fuzzer gets as many)
    python tests/fuzz/run.py --seconds 20        (in CI)

Ends non-zero after a finding, whose input lies in build/fuzz. Needs `pip install atheris==3.0.0`,
which has wheels for Linux on x86-64 only; there the lock brings it.
"""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
FINDINGS = HERE.parents[1] / "build" / "fuzz"
FUZZERS = ("edit", "manifest", "patcher")
_LAST = re.compile(r"^#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What a fuzzer did. coverage: branches of persona.formats reached; corpus: inputs kept.

    finding: the end of what was printed, where an input failed.
    """

    inputs: int
    coverage: int
    corpus: int
    finding: str | None


def run(name: str, *limits: str) -> Outcome:
    """Run a fuzzer in a process of its own, with libFuzzer's options `limits`."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, HERE / f"fuzz_{name}.py", *limits]
    line += [f"-artifact_prefix={FINDINGS}/{name}-"]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    said = done.stdout + done.stderr
    last = _LAST.search(said)
    if done.returncode or last is None:
        return Outcome(0, 0, 0, said[-4000:])
    return Outcome(int(last[1]), int(last[2]), int(last[4]), None)


def main() -> int:
    """Run all and print a row each; 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--inputs", type=int, help="inputs for each fuzzer")
    limit.add_argument("--seconds", type=int, help="seconds for each fuzzer")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    option = f"-runs={chosen.inputs}" if chosen.inputs else f"-max_total_time={chosen.seconds}"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"{'fuzzer':10} {'inputs':>9} {'branches':>9} {'corpus':>7}")
    failed = False
    for name in FUZZERS:
        found = run(name, option, f"-seed={chosen.seed}")
        print(f"{name:10} {found.inputs:9} {found.coverage:9} {found.corpus:7}", flush=True)
        if found.finding is not None:
            failed = True
            print(found.finding)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
