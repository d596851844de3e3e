"""Runs a bundle in the C++ runner and reads its report and its outputs."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from persona.formats import container
from persona.formats.slots import Array
from persona_export.runner.build import command
from persona_export.runner.toolchain import Machine, RunnerError

_PASSED, _MISMATCH = 0, 1
_SAYS = "persona-runner: "
_TIMEOUT_SECONDS = 300
_LONGEST_HEADER = 2**20


@dataclass(frozen=True)
class Case:
    """Largest differences from the golden outputs over all golden inputs.

    largest: absolute. relative: to max(1, largest magnitude), as a bundle's tolerance is.
    Both are infinite where an output has another shape or is not a number.
    """

    largest: float
    relative: float


@dataclass(frozen=True)
class Report:
    """What the runner found.

    cases: `base`, `prototype.K`, `edited` and, where there is an observe program, `features` and
    `posterior`. outputs: by the names that the expectations have in `golden.safetensors`.
    """

    machine: Machine
    precision: str
    tolerance: float
    passed: bool
    cases: Mapping[str, Case]
    outputs: Mapping[str, Array]

    def worst(self, *kinds: str) -> float | None:
        """The largest relative difference of the cases of some kinds; None where there is none.

        kinds: what cases are called, without their numbers.
        """
        found = (c.relative for name, c in self.cases.items() if name.partition(".")[0] in kinds)
        return max(found, default=None)


def run_bundle(bundle: Path, machine: Machine = "native", precision: str | None = None) -> Report:
    """Run a bundle's ExecuTorch program on a machine, against its golden vectors.

    precision: of the program; the first that the bundle has where none is named. The runner is
    built first where it has to be. Raises RunnerError where it cannot be, where it does not
    understand the bundle, or where ExecuTorch refuses the program; golden vectors that differ are
    no error, but `passed` is false.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder) / "outputs.safetensors"
        line = [*command(machine), bundle, "--outputs", outputs]
        line += [] if precision is None else ["--precision", precision]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise RunnerError(
                f"the {machine} runner did not end within {_TIMEOUT_SECONDS} s on {bundle}"
            ) from None
        if done.returncode not in (_PASSED, _MISMATCH):
            raise RunnerError(_reason(machine, done))
        tensors, _ = container.decode(outputs.read_bytes(), _LONGEST_HEADER)
        return _report(machine, done.stdout, {n: t.array() for n, t in tensors.items()})


def _reason(machine: Machine, done: subprocess.CompletedProcess[str]) -> str:
    """The runner's own line among what the runtime logs; all of it where there is none."""
    said = [line for line in done.stderr.splitlines() if line.startswith(_SAYS)]
    reason = said[-1].removeprefix(_SAYS) if said else done.stderr.strip() or "it said nothing"
    return f"the {machine} runner ended with exit code {done.returncode}: {reason}"


def _report(machine: Machine, text: str, outputs: Mapping[str, Array]) -> Report:
    found = json.loads(text)
    return Report(
        machine=machine,
        precision=found["precision"],
        tolerance=found["tolerance"],
        passed=found["passed"],
        cases={
            name: Case(_number(case["largest_difference"]), _number(case["relative_difference"]))
            for name, case in found["cases"].items()
        },
        outputs=outputs,
    )


def _number(value: float | None) -> float:
    return float("inf") if value is None else float(value)
