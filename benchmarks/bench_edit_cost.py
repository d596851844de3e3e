"""Claim: one edit is active sooner than a model exported again; beside it, the other ways.

Ours: from the edit's bytes to the first output (verify, add, bind or patch and load, probe).
Rivals, on the same model: export it again and load it; write a .ptd beside a program and load
both; write the slots into mutable buffers of the program, which costs little and does nothing where
methods cannot share an arena (Python here, Java and Swift alike); one step of fine-tuning on the
device with the gradient (PyTorch here). Times are wall time, medians.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import matplotlib
import numpy as np
import torch
from mutable_buffers import mutable_buffers
from sample_models import SAMPLES, Sample

from persona.backbones import Backbone
from persona.formats.edit import EditInfo, encode_edit, quantise
from persona.formats.manifest import patched_head
from persona.formats.slots import SlotSpec, effective, zero_edit
from persona.formats.verify import Expectation, verify_edit
from persona.method.slots import base_tensors
from persona.quiet import quietly
from persona.signing import PublicKeys, SigningKey
from persona_export.executorch_methods import baked_method
from persona_export.executorch_program import lower, xnnpack
from persona_export.executorch_runtime import LoadedMethod
from persona_export.export import example_edit
from persona_export.targets import Source, targets

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CHART = Path(__file__).parents[1] / "docs" / "edit-cost.png"
TIMES = 15


def milliseconds(action: Callable[[], object], times: int = TIMES) -> float:
    """Median wall time of an action."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        found.append((time.perf_counter() - start) * 1e3)
    return statistics.median(found)


def ours(
    backbone: Backbone, slots: tuple[SlotSpec, ...], feed: str, folder: Path
) -> dict[str, float]:
    """The parts of one edit: verify, add, make active, probe."""
    now = datetime.now(UTC).replace(microsecond=0)
    key = SigningKey.load_or_create(folder / "key.pem")
    inputs = [x.numpy() for x in backbone.example_inputs()]
    program = targets["executorch-xnnpack"]().export(
        Source(backbone, slots, False, feed),  # type: ignore[arg-type]
        "fp32",
        folder,
    )
    base = {n: v.numpy() for n, v in base_tensors(backbone, slots).items()}
    nothing, change = zero_edit(slots), example_edit(slots)
    method = LoadedMethod(folder / program.path, program.method)
    fed = sorted((f for f in program.feeds if f.patch is None), key=lambda f: f.index or 0)
    file = None if program.head is None else (folder / program.head.path).read_bytes()
    state: dict[str, LoadedMethod | None] = {"head": None}
    values = effective(slots, base, nothing, change)

    def activate() -> None:
        if file is not None and program.head is not None:
            state["head"] = None
            state["head"] = LoadedMethod(patched_head(file, program, values), program.head.method)

    def probe() -> np.ndarray:
        given = method([*inputs, *(values[f.tensor] for f in fed)])
        head = state["head"]
        return given[0] if head is None else head(given)[0]

    activate()
    info = EditInfo("m", "0" * 64, "d", 1, None, now, now + timedelta(days=1))
    data = encode_edit(info, quantise(slots, change), probe())
    signature = key.sign(data)
    known = Expectation("m", "0" * 64, "d", 0, slots, 0, probe().shape, 10**8)
    ring = PublicKeys([key.public])
    return {
        "verify": milliseconds(lambda: verify_edit(data, signature, ring, known, now)),
        "add": milliseconds(lambda: effective(slots, base, nothing, change)),
        "make active": milliseconds(activate),
        "probe": milliseconds(probe),
    }


def rivals(backbone: Backbone, slots: tuple[SlotSpec, ...], folder: Path) -> dict[str, float]:
    """What else changes a model: export again, a .ptd, mutable buffers, a step of fine-tuning."""

    def again() -> None:
        done = lower({"base": baked_method(backbone, ())}, xnnpack, "XNNPACK")
        (folder / "again.pte").write_bytes(done.program)
        LoadedMethod(folder / "again.pte", "base")

    buffers = mutable_buffers(backbone, slots)
    effect = "in effect" if buffers.largest_effect else "WITHOUT EFFECT here"
    inputs = tuple(x.repeat(8, *[1] * (x.dim() - 1)) for x in backbone.example_inputs())
    optimiser = torch.optim.SGD(backbone.head.requires_grad_(True).parameters(), 1e-3)

    def step() -> None:
        optimiser.zero_grad()
        backbone(*inputs).square().mean().backward()
        optimiser.step()

    return {
        "export again + load": milliseconds(again, 2),
        "rewrite .ptd + load": _external_weights(backbone, folder),
        f"set mutable buffers, {effect}": milliseconds(
            lambda: buffers.set_slots.tensors(buffers.values)
        ),
        "one gradient step (8 samples, head)": milliseconds(step),
    }


def _external_weights(backbone: Backbone, folder: Path) -> float:
    """Rewrite the data file with all weights and load program and data anew."""
    from torch.export import export

    with quietly():
        from executorch.exir import to_edge_transform_and_lower
        from executorch.exir.capture import ExecutorchBackendConfig
        from executorch.exir.passes.external_constants_pass import (
            delegate_external_constants_pass_unlifted,
        )
        from executorch.extension.pybindings import portable_lib

        exported = export(backbone, backbone.example_inputs())
        module = exported.module()
        delegate_external_constants_pass_unlifted(module, gen_tag_fn=lambda _: "weights")
        tagged = export(module, backbone.example_inputs())
        edge = to_edge_transform_and_lower(tagged, partitioner=[xnnpack()])
        done = edge.to_executorch(ExecutorchBackendConfig())
    (folder / "rival.pte").write_bytes(bytes(done.buffer))
    done.write_tensor_data_to_file(str(folder))
    weights = next(folder.glob("*.ptd"))
    data = weights.read_bytes()

    def replace() -> None:
        weights.write_bytes(data)
        program = portable_lib._load_program(str(folder / "rival.pte"), data_path=str(weights))
        program.load_method("forward")

    return milliseconds(replace)


def main() -> int:
    """Print all parts and draw them; 1 where our cheapest edit is dearer than exporting again."""
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or ["image-net", "mobilenet-v3-small"]
    table: dict[str, dict[str, float]] = {}
    for sample in (s for s in SAMPLES if s.name in chosen):
        for feed in ("inputs", "patched"):
            table[f"{sample.name}: edit, {feed}"] = _ours(sample, feed)
        backbone = sample.backbone()
        slots = sample.slots(backbone, "dense")
        with tempfile.TemporaryDirectory() as folder:
            for name, cost in rivals(backbone, slots, Path(folder)).items():
                table[f"{sample.name}: {name}"] = {"all": cost}
    for name, parts in table.items():
        shown = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
        print(f"{name:55} {sum(parts.values()):9.2f} ms  ({shown})")
    _draw(table)
    totals = {name: round(sum(parts.values()), 3) for name, parts in table.items()}
    print(json.dumps(totals))
    beaten = all(
        min(totals[f"{name}: edit, {feed}"] for feed in ("inputs", "patched"))
        < totals[f"{name}: export again + load"]
        for name in chosen
    )
    return 0 if beaten else 1


def _ours(sample: Sample, feed: str) -> dict[str, float]:
    backbone = sample.backbone()
    with tempfile.TemporaryDirectory() as folder:
        return ours(backbone, sample.slots(backbone, "dense"), feed, Path(folder))


def _draw(table: dict[str, dict[str, float]]) -> None:
    """Each way's time over that of the same model's edit whose slots are inputs."""
    times = {name: sum(parts.values()) for name, parts in table.items()}
    edits = {
        name.split(":")[0]: ms for name, ms in times.items() if name.endswith(": edit, inputs")
    }
    ratios = [ms / edits[name.split(":")[0]] for name, ms in times.items()]
    ours = [": edit," in name for name in times]
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(table) + 0.8), layout="constrained")
    bars = axes.barh(list(times), ratios, color=["#d55e00" if own else "#999999" for own in ours])
    axes.bar_label(
        bars,
        [f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}" for ratio in ratios],
        fontsize=7,
        padding=3,
    )
    axes.set_xscale("log")
    axes.set_xlim(min(ratios) / 2, max(ratios) * 4)
    axes.set_ylim(len(times) - 0.4, -0.6)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("time until the change is active ÷ that of an edit into inputs", fontsize=8)
    figure.savefig(CHART, dpi=130)
    plt.close(figure)
    print(f"chart: {CHART}")


if __name__ == "__main__":
    sys.exit(main())
