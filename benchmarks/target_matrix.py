"""Write docs/targets.md: backbone × slot kind × target × precision, each cell exported and checked.

A cell holds the largest difference from PyTorch in fp32 over random inputs of every size with edits
at the bounds, or why there is no program. What is in build/targets.json is not done again; remove
it to begin anew. `make targets` runs this; it takes many minutes.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from importlib import metadata
from itertools import product
from pathlib import Path

import torch
from sample_models import SAMPLES, Sample

from persona.durable import write_atomic
from persona_export.parity import check_against_eager
from persona_export.targets import ExportError, Precision, Source, targets

DOCS = Path(__file__).parents[1] / "docs"
PAGE, CELLS = DOCS / "targets.md", DOCS.parent / "build" / "targets.json"
KINDS = ("dense", "low-rank", "affine")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

SMALLEST = {"size": 32}
"""Input sizes of backbones that have them: they change no cell, only how long it takes."""

Cell = dict[str, str | float]


def cell(sample: Sample, kind: str, target: str, precision: Precision) -> Cell:
    """Export one cell and compare it; `difference` and `verified`, or `reason`."""
    made = targets[target]()
    if precision not in made.precisions:
        return {"reason": f"{target} has no {precision}"}
    backbone = sample.backbone()
    slots = sample.slots(backbone, kind)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = made.export(Source(backbone, slots, False), precision, Path(folder))
            worst = check_against_eager(made, Path(folder), program, backbone, slots)
        except ExportError as error:
            return {"reason": str(error)}
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            return {"reason": f"{type(error).__name__}: {text}"}
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    return {
        "difference": worst,
        "verified": program.verified,
        "feed": str(program.slot_feed.get("chosen", "inputs")),
        "kilobytes": round(size / 1024),
        "seconds": round(time.perf_counter() - start, 1),
    }


def page(cells: dict[str, Cell]) -> str:
    """The table in Markdown, with the reasons under it."""
    columns = [f"{t} {p}" for t in targets for p in PRECISIONS if p in targets[t].precisions]
    reasons: list[str] = []
    lines = [
        "# Targets",
        "",
        "Made by `make targets` on "
        + ", ".join(f"{n} {metadata.version(n)}" for n in ("torch", "executorch", "coremltools"))
        + ", one machine without phones. A figure is the largest difference from PyTorch in fp32, "
        "relative to max(1, largest output), over random inputs of 1, 20 and 100 candidates "
        "(where a backbone has them) with every slot value at its bound. Its letter says how the "
        "program was run: **e**xecuted by its runtime, **i**nterpreted operator by operator from "
        "the written package, or **l**owered only: the graph that went into the delegate was run, "
        "for no runtime here executes it. * marks a dense slot that is patched into a head of its "
        "own, see [edit-format](edit-format.md#a-program-in-two). Numbers in brackets are reasons.",
        "",
        "Models have random weights, MobileNetV3-small inputs of 32 × 32; tolerances are 1e-5 "
        "(fp32; delegates that run elsewhere 1e-4), 1e-2 (fp16) and 5e-2 (int8). A graph that is "
        "lowered only is run in fp32 whatever its precision, so Vulkan's fp16 is not proven by its "
        "figure. What `persona export` also proves of each program (prototypes, golden inputs, "
        "observations, that every slot has an effect) is not repeated here.",
        "",
    ]
    for kind in KINDS:
        lines += [f"## {kind} slots", "", "| backbone | " + " | ".join(columns) + " |"]
        lines += ["|---" * (len(columns) + 1) + "|"]
        for sample in SAMPLES:
            row = []
            for column in columns:
                found = cells.get(f"{sample.name}|{kind}|{column}")
                row.append("not run" if found is None else _text(found, reasons))
            lines.append(f"| {sample.name} | " + " | ".join(row) + " |")
        lines.append("")
    lines += ["## Reasons", ""]
    lines += [f"{i}. {' '.join(reason.split())}" for i, reason in enumerate(reasons, 1)]
    return "\n".join(lines) + "\n"


def _text(found: Cell, reasons: list[str]) -> str:
    if "reason" in found:
        reason = str(found["reason"])
        if reason not in reasons:
            reasons.append(reason)
        return f"[{reasons.index(reason) + 1}]"
    star = "*" if found["feed"] == "patched" else ""
    return f"{found['difference']:.0e} {str(found['verified'])[0]}{star}"


def _parameters(sample: Sample) -> int:
    return sum(parameter.numel() for parameter in sample.backbone().parameters())


def main() -> None:
    """Fill what is missing, writing the page after each cell; arguments limit the backbones."""
    torch.set_num_threads(1)
    CELLS.parent.mkdir(exist_ok=True)
    cells: dict[str, Cell] = json.loads(CELLS.read_text()) if CELLS.is_file() else {}
    small = [
        replace(s, settings={n: SMALLEST.get(n, v) for n, v in s.settings.items()}) for s in SAMPLES
    ]
    for precision, sample, kind, target in product(
        PRECISIONS, sorted(small, key=_parameters), KINDS, targets
    ):
        wanted = not sys.argv[1:] or sample.name in sys.argv[1:]
        name = f"{sample.name}|{kind}|{target} {precision}"
        if wanted and name not in cells and precision in targets[target].precisions:
            cells[name] = cell(sample, kind, target, precision)
            print(name, cells[name], flush=True)
            write_atomic(CELLS, json.dumps(cells, indent=0).encode())
            write_atomic(PAGE, page(cells).encode())
    write_atomic(PAGE, page(cells).encode())
    print(f"{PAGE}: {len(cells)} cells")


if __name__ == "__main__":
    main()
