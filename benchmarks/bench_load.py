"""Claim: a program with slots as inputs loads in at most 1.25 times a baked export's time.

Rival: the same model exported with baked weights. Load is from the file to the first output, in a
fresh process (first) and again in the same one (warm), one thread; processes of both take turns,
and times are of the processor, so waiting for storage is left out.
Beside it, without a claim, what a bundle holds against the rival's file: program, head, base, and
golden vectors, without prototypes and manifest (some KB). A bundle holds the slots' weights up to
four times, see docs/decisions/0006-patched-heads.md: large heads cost much more than 5 %.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from sample_models import SAMPLES, Sample

from persona.formats.bundle_tensors import encode_base
from persona.formats.manifest import Program
from persona.method.slots import base_tensors
from persona.quiet import quietly
from persona_export.executorch_methods import baked_method
from persona_export.executorch_program import lower, xnnpack
from persona_export.executorch_runtime import LoadedMethod
from persona_export.export import example_edit
from persona_export.targets import Source, targets

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CHART = Path(__file__).parents[1] / "docs" / "load-and-size.png"
CLAIM = 1.25
PROCESSES, WARM = 3, 10
GOLDEN_INPUTS = 4
CASES = (
    ("image-net", "inputs"),
    ("sasrec", "inputs"),
    ("mobilenet-v3-small", "inputs"),
    ("mobilenet-v3-small", "patched"),
)


def write(sample: Sample, feed: str, folder: Path) -> dict[str, int]:
    """Export both; bytes of the rival and of each part of ours. What to load is in load.json."""
    backbone = sample.backbone()
    slots = sample.slots(backbone, "dense")
    pooled = backbone.task == "classification"
    rival = lower({"base": baked_method(backbone, ())}, xnnpack, "XNNPACK").program
    (folder / "rival.pte").write_bytes(rival)
    program = targets["executorch-xnnpack"]().export(
        Source(backbone, slots, pooled, feed),  # type: ignore[arg-type]
        "fp32",
        folder,
    )
    base = {name: value.numpy() for name, value in base_tensors(backbone, slots).items()}
    inputs = [x.numpy() for x in backbone.example_inputs()]
    np.savez(folder / "inputs.npz", *inputs)
    fed = sorted((f for f in program.feeds if f.patch is None), key=lambda f: f.index or 0)
    np.savez(folder / "slots.npz", *[base[f.tensor] for f in fed])
    plan = {"rival": [["rival.pte", "base"]], "ours": _halves(program)}
    (folder / "load.json").write_text(json.dumps(plan))
    golden = GOLDEN_INPUTS * sum(x.nbytes for x in inputs)
    golden += sum(v.astype(np.float16).nbytes for v in example_edit(slots).values())
    return {
        "rival": len(rival),
        "program": (folder / program.path).stat().st_size,
        "head": 0 if program.head is None else (folder / program.head.path).stat().st_size,
        "base": len(encode_base(slots, base)),
        "golden": golden,
    }


def _halves(program: Program) -> list[list[str]]:
    head = program.head
    second = [] if head is None else [[head.path, head.method]]
    return [[program.path, program.method], *second]


def load(folder: Path, which: str) -> list[float]:
    """Milliseconds from files to the first output: the first time, then again."""
    with quietly():  # what importing takes is no load time
        from executorch.extension.pybindings import portable_lib  # noqa: F401
    plan = json.loads((folder / "load.json").read_text())[which]
    with np.load(folder / "inputs.npz") as inputs, np.load(folder / "slots.npz") as slots:
        given = list(inputs.values())
        given += list(slots.values()) if which == "ours" else []
    times = []
    for _ in range(1 + WARM):
        start = time.process_time_ns()
        values: list[Any] = given
        for path, method in plan:
            values = LoadedMethod(folder / path, method)(values)
        times.append((time.process_time_ns() - start) / 1e6)
    return times


def in_turn(folder: Path) -> dict[str, tuple[float, float]]:
    """Medians of first and warm over processes, by which."""
    times: dict[str, list[list[float]]] = {"rival": [], "ours": []}
    for _ in range(PROCESSES):
        for which, found in times.items():
            line = [sys.executable, __file__, "--load", str(folder), which]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return {
        which: (
            statistics.median(t[0] for t in found),
            statistics.median(x for t in found for x in t[1:]),
        )
        for which, found in times.items()
    }


def main() -> int:
    """Print and draw both; 1 where a program whose slots are inputs loads too slowly."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--load"]:
        print(json.dumps(load(Path(sys.argv[2]), sys.argv[3])))
        return 0
    chosen = sys.argv[1:] or [name for name, _ in CASES]
    samples = {sample.name: sample for sample in SAMPLES}
    table: dict[str, tuple[dict[str, int], dict[str, tuple[float, float]]]] = {}
    for name, feed in CASES:
        if name in chosen:
            with tempfile.TemporaryDirectory() as folder:
                sizes = write(samples[name], feed, Path(folder))
                table[f"{name}, {feed}"] = sizes, in_turn(Path(folder))
    holds = True
    for name, (sizes, times) in table.items():
        first, warm = (times["ours"][i] / times["rival"][i] for i in (0, 1))
        parts = ", ".join(f"{part} {size / 1024:.0f}" for part, size in sizes.items())
        more = sum(sizes.values()) / sizes["rival"] - 2
        print(f"{name:30} load ÷ baked: first {first:.2f}, warm {warm:.2f}")
        print(f"{'':30} ms: first {times['ours'][0]:.2f} and {times['rival'][0]:.2f}, "
              f"warm {times['ours'][1]:.2f} and {times['rival'][1]:.2f}")  # fmt: skip
        print(f"{'':30} KB: {parts}; {more:+.0%} beside the prototypes")
        holds &= name.endswith("patched") or warm <= CLAIM
    if len(table) == len(CASES):
        _draw(table)
    return 0 if holds else 1


def _draw(table: dict[str, tuple[dict[str, int], dict[str, tuple[float, float]]]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    names, places = list(table), np.arange(len(table))
    for offset, index, label in ((-0.2, 0, "first"), (0.2, 1, "warm")):
        ratios = [times["ours"][index] / times["rival"][index] for _, times in table.values()]
        left.barh(places + offset, ratios, 0.38, label=label)
    left.axvline(1, color="black", linewidth=0.8)
    left.set_yticks(places, names, fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("load ÷ baked export")
    left.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    start = np.zeros(len(table))
    for part in ("program", "head", "base", "golden"):
        widths = np.array([sizes[part] / sizes["rival"] for sizes, _ in table.values()])
        right.barh(places, widths, 0.6, start, label=part)
        start += widths
    right.axvline(1, color="black", linewidth=0.8)
    right.set_xlabel("bundle without prototypes ÷ baked file")
    right.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False)
    figure.savefig(CHART, dpi=110)
    plt.close(figure)
    print(f"chart: {CHART}")


if __name__ == "__main__":
    sys.exit(main())
