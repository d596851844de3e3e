"""Write docs/targets.md: backbone × slot kind × target × precision, each cell exported and proven.

A cell is one `persona export` of a run with random weights and three random prototypes. It holds
the largest difference from PyTorch in fp32 that was found, or why there is no program. What is in
build/targets.json is not done again; remove it to begin anew. `make targets` runs this; it takes
more than an hour.
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
from rich.console import Console
from sample_models import RANKER, SAMPLES, Sample
from torch import nn

from persona.backbones import Backbone
from persona.bundles import open_bundle
from persona.durable import write_atomic
from persona.formats.observation import ItemsSpec, ObservationSpec, PooledSpec
from persona.method.adapter import Adapter
from persona.method.prototypes import PrototypeBank
from persona.runs import RUN_FORMAT, Run, RunRecord, versions
from persona.training.config import BackboneConfig, DataConfig, RunConfig
from persona.training.stages import DeviceRule
from persona_export.export import Wanted, example_edit, export_bundle
from persona_export.parity import RUN_IN_CPP, check_in_cpp
from persona_export.runner import MACHINES, MissingToolsError
from persona_export.runner.toolchain import install_tools
from persona_export.targets import ExportError, Precision, targets

DOCS = Path(__file__).parents[1] / "docs"
PAGE, CELLS = DOCS / "targets.md", DOCS.parent / "build" / "targets.json"
KINDS = ("dense", "low-rank", "affine")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
PROTOTYPES = 3

SMALLEST = {"size": 32}
"""Input sizes of backbones that have them: they change no cell, only how long it takes."""

Cell = dict[str, str | float]


def random_run(sample: Sample, kind: str, path: Path) -> Run:
    """A run as training leaves it, with random weights, prototypes and rule; keys go to `path`."""
    backbone = sample.backbone()
    slots = sample.slots(backbone, kind)
    bank = PrototypeBank(slots, PROTOTYPES, code_width=1)
    for index in range(PROTOTYPES):
        change = example_edit(slots, seed=1 + index)
        bank.set_group(index, {name: torch.from_numpy(value) for name, value in change.items()})
    observation = _observation(backbone)
    width = observation.width
    rule = DeviceRule(
        torch.zeros(width), torch.ones(width), torch.randn(PROTOTYPES, width), torch.zeros(3)
    )
    name = sample.name.replace(" ", "-")
    record = RunRecord(
        format=RUN_FORMAT,
        config=RunConfig(name, DataConfig("none"), BackboneConfig(name)),
        backbone_settings={},
        slots=slots,
        observation=observation,
        curves={},
        data_fingerprint="none",
        versions=versions(),
        files={"backbone.safetensors": 64 * "0"},
        left_out="",
    )
    return Run(path, record, backbone, _no_adapter(), bank, rule)


def _observation(backbone: Backbone) -> ObservationSpec:
    if backbone.task == "ranking":
        return ItemsSpec("items", RANKER["items"], 1, RANKER["length"])
    with torch.no_grad():
        features, posterior = backbone.features(*backbone.example_inputs())
    classes = posterior.shape[1]
    return PooledSpec("pooled", features.shape[1], classes, 1, 1, (1 / classes,) * classes)


def _no_adapter() -> Adapter:
    """Export leaves the adapter in the cloud and never looks at it."""
    nothing = {"cross_layer": False, "prior": None, "strength": None, "familiarity": None}
    return Adapter((), nn.Identity(), 1, output_std=0.0, **nothing)


def cell(sample: Sample, kind: str, target: str, precision: Precision) -> Cell:
    """Export one cell and run it wherever it runs; `difference` and `verified`, or `reason`."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        run, out = random_run(sample, kind, Path(scratch) / "run"), Path(scratch) / "bundle"
        try:
            exported = export_bundle(run, (Wanted(target, precision),), out, lambda _: None)
            (program,), (written,) = exported.manifest.programs, exported.report.values()
            worst = written.largest_difference
            for machine in MACHINES if target in RUN_IN_CPP else ():
                worst = max(worst, check_in_cpp(open_bundle(out), program, machine).worst)
        except ExportError as error:
            return {"reason": str(error)}
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            return {"reason": f"{type(error).__name__}: {text}"}
    return {
        "difference": worst,
        "verified": program.verified,
        "feed": written.slot_feed,
        "kilobytes": round(sum(written.files.values()) / 1024),
        "seconds": round(time.perf_counter() - start, 1),
    }


def page(cells: dict[str, Cell]) -> str:
    """The table in Markdown, with the reasons under it."""
    columns = [f"{t} {p}" for t, p in product(targets, PRECISIONS)]
    reasons: list[str] = []
    made_on = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "executorch", "coremltools")
    )
    lines = [
        "# Targets",
        "",
        f"Made by `make targets` on {made_on}, one machine without phones. Each cell is one "
        "`persona export` of a run with random weights and three random prototypes within the "
        "bounds, MobileNetV3-small with inputs of 32 × 32. Its figure is the largest difference "
        "from PyTorch in fp32, relative to max(1, largest output), that was found in the program:",
        "",
        "- on golden inputs: the base, each prototype, an edit within the bounds, an edit with "
        "every slot value at its bound, features and posterior where a device pools them;",
        "- on random inputs of 1, 20 and 100 candidates (where a backbone has them): the base, "
        "each prototype, an edit with every slot value at its bound;",
        "- `executorch-xnnpack`: all on golden inputs but the edit at the bound again in the C++ "
        "runner, on this processor and on two emulated arm64 ones, cortex-a53 and cortex-a76.",
        "",
        "A cell with a figure says more: each slot tensor, changed alone, changed an output of the "
        "lowered program; the operators that slots feed lie inside the delegate (ExecuTorch); the "
        "package passed its structural checks (Core ML, also inside ExecuTorch's delegate). "
        "`persona export` refuses to write a program otherwise.",
        "",
        "A figure's letter says how the program was run: **e**xecuted by its runtime, "
        "**i**nterpreted operator by operator from the written package, or **l**owered only: the "
        "graph that went into the delegate was run, for no runtime here executes it. * marks a "
        "dense slot that is patched into a head of its own, see "
        "[edit-format](edit-format.md#a-program-in-two). Numbers in brackets are reasons.",
        "",
        "Tolerances are 1e-5 (fp32; delegates that run elsewhere 1e-4), 1e-2 (fp16) and 5e-2 "
        "(int8). A graph that is lowered only is run in fp32 whatever its precision, so Vulkan's "
        "fp16 is not proven by its figure.",
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


def main() -> int:
    """Fill what is missing, writing the page after each cell; arguments limit the backbones.

    0 when done, 2 where the tools for the C++ runner are missing.
    """
    torch.set_num_threads(1)
    try:
        for machine in MACHINES:
            install_tools(machine)
    except MissingToolsError as error:
        Console().print(f"[bold yellow]SKIPPED, no cell was run:[/] {error}", soft_wrap=True)
        return 2
    CELLS.parent.mkdir(exist_ok=True)
    cells: dict[str, Cell] = json.loads(CELLS.read_text()) if CELLS.is_file() else {}
    small = [
        replace(s, settings={n: SMALLEST.get(n, v) for n, v in s.settings.items()}) for s in SAMPLES
    ]
    for sample, precision, kind, target in product(
        sorted(small, key=_parameters), PRECISIONS, KINDS, targets
    ):
        wanted = not sys.argv[1:] or sample.name in sys.argv[1:]
        name = f"{sample.name}|{kind}|{target} {precision}"
        if wanted and name not in cells:
            cells[name] = cell(sample, kind, target, precision)
            print(name, cells[name], flush=True)
            write_atomic(CELLS, json.dumps(cells, indent=0).encode())
            write_atomic(PAGE, page(cells).encode())
    write_atomic(PAGE, page(cells).encode())
    print(f"{PAGE}: {len(cells)} cells")
    return 0


if __name__ == "__main__":
    sys.exit(main())
