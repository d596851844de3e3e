"""Claim: one edit is active sooner than a model exported again; beside it, the other ways.

Ours: from the edit's bytes to the first output (verify, add, bind or patch and load, probe).
Rivals, on the same model: export it again and load it; write a .ptd beside a program and load
both; write the slots into mutable buffers of the program, which costs little and does nothing where
methods cannot share an arena (Python here, Java and Swift alike); one step of fine-tuning on the
device with the gradient (PyTorch here). One process, round by round in turn, the dear ones in few
rounds; times are of the processor, so that a busy machine changes ratios little.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import matplotlib
import numpy as np
import torch
from mutable_buffers import mutable_buffers
from sample_models import SAMPLES, Sample
from sample_programs import export_sample

from persona.backbones import Backbone
from persona.formats.edit import EditInfo, encode_edit, quantise
from persona.formats.manifest import patched_head
from persona.formats.slots import effective, zero_edit
from persona.formats.verify import Expectation, verify_edit
from persona.method.slots import base_tensors
from persona.quiet import quietly
from persona.signing import PublicKeys, SigningKey
from persona_export.executorch_methods import baked_method
from persona_export.executorch_program import lower, xnnpack
from persona_export.executorch_runtime import LoadedMethod
from persona_export.export import example_edit

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CHART = Path(__file__).parents[1] / "docs" / "edit-cost.png"
ROUNDS = 31
DEAR = 15
"""A dear way takes part in the first of so many rounds."""

INPUTS, PATCHED, AGAIN = "edit, inputs", "edit, patched", "export again + load"


@dataclass(frozen=True)
class Way:
    """How a model is changed: its parts in order."""

    parts: Mapping[str, Callable[[], object]]
    dear: bool = False


@dataclass(frozen=True)
class Cost:
    """Medians over rounds: milliseconds of each part, and quartiles of the sum ÷ that of INPUTS."""

    parts: dict[str, float]
    ratio: tuple[float, float, float]
    rounds: int


def edit(sample: Sample, feed: str, folder: Path) -> Way:
    """One edit of an exported sample: verify, add, make active, probe."""
    folder.mkdir()
    backbone = sample.backbone()
    slots = sample.slots(backbone, "dense")
    now = datetime.now(UTC).replace(microsecond=0)
    key = SigningKey.load_or_create(folder / "key.pem")
    inputs = [x.numpy() for x in backbone.example_inputs()]
    program = export_sample(sample, "dense", feed, folder)
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
    return Way(
        {
            "verify": lambda: verify_edit(data, signature, ring, known, now),
            "add": lambda: effective(slots, base, nothing, change),
            "make active": activate,
            "probe": probe,
        }
    )


def rivals(sample: Sample, folder: Path) -> dict[str, Way]:
    """What else changes a model: export again, a .ptd, mutable buffers, a step of fine-tuning."""
    backbone = sample.backbone()
    slots = sample.slots(backbone, "dense")

    def again() -> None:
        done = lower({"base": baked_method(backbone, ())}, xnnpack, "XNNPACK")
        (folder / "again.pte").write_bytes(done.program)
        LoadedMethod(folder / "again.pte", "base")

    buffers = mutable_buffers(backbone, slots)
    effect = "in effect" if buffers.largest_effect else "WITHOUT EFFECT here"
    learner = sample.backbone()
    inputs = tuple(x.repeat(8, *[1] * (x.dim() - 1)) for x in learner.example_inputs())
    optimiser = torch.optim.SGD(learner.head.requires_grad_(True).parameters(), 1e-3)

    def step() -> None:
        optimiser.zero_grad()
        learner(*inputs).square().mean().backward()
        optimiser.step()

    return {
        AGAIN: Way({"all": again}, dear=True),
        "rewrite .ptd + load": Way({"all": _external_weights(backbone, folder)}),
        f"set mutable buffers, {effect}": Way(
            {"all": lambda: buffers.set_slots.tensors(buffers.values)}
        ),
        "one gradient step (8 samples, head)": Way({"all": step}),
    }


def _external_weights(backbone: Backbone, folder: Path) -> Callable[[], None]:
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

    return replace


def in_turn(ways: Mapping[str, Way]) -> dict[str, Cost]:
    """Round by round, each way once, after one round that does not count."""
    times: dict[str, dict[int, dict[str, float]]] = {name: {} for name in ways}
    for index in range(-1, ROUNDS):
        for name, way in ways.items():
            if way.dear and (index < 0 or index % DEAR):
                continue
            times[name][index] = {part: _milliseconds(do) for part, do in way.parts.items()}
    ours = {index: sum(parts.values()) for index, parts in times[INPUTS].items()}
    costs = {}
    for name, rounds in times.items():
        counted = {index: parts for index, parts in rounds.items() if index >= 0}
        ratios = [sum(parts.values()) / ours[index] for index, parts in counted.items()]
        medians = {
            part: statistics.median(parts[part] for parts in counted.values())
            for part in ways[name].parts
        }
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
        costs[name] = Cost(medians, (low, middle, high), len(ratios))
    return costs


def _milliseconds(action: Callable[[], object]) -> float:
    start = time.process_time_ns()
    action()
    return (time.process_time_ns() - start) / 1e6


def main() -> int:
    """Print all parts and draw them; 1 where our cheapest edit is dearer than exporting again."""
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or ["image-net", "mobilenet-v3-small"]
    table: dict[str, dict[str, Cost]] = {}
    for sample in (s for s in SAMPLES if s.name in chosen):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ways = {
                INPUTS: edit(sample, "inputs", folder / "inputs"),
                PATCHED: edit(sample, "patched", folder / "patched"),
                **rivals(sample, folder),
            }
            table[sample.name] = in_turn(ways)
        print(f"{sample.name:40} {'÷ edit, inputs [quartiles]':>31} rounds      ms")
        for way, cost in table[sample.name].items():
            low, middle, high = (f"{ratio:,.2f}" for ratio in cost.ratio)
            parts = ", ".join(f"{part} {value:.2f}" for part, value in cost.parts.items())
            print(f"  {way:40}{middle:>9} [{low:>9} {high:>9}] {cost.rounds:6}  ({parts})")
    if len(sys.argv) == 1:
        _draw(table)
    print(json.dumps({name: {w: c.ratio[1] for w, c in t.items()} for name, t in table.items()}))
    beaten = all(
        min(costs[way].ratio[1] for way in (INPUTS, PATCHED)) < costs[AGAIN].ratio[1]
        for costs in table.values()
    )
    return 0 if beaten else 1


def _draw(table: dict[str, dict[str, Cost]]) -> None:
    """Each way's time over that of the same model's edit whose slots are inputs."""
    rows = {f"{name}: {way}": cost for name, costs in table.items() for way, cost in costs.items()}
    low, ratios, high = np.array([cost.ratio for cost in rows.values()]).T
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(rows) + 0.8), layout="constrained")
    colours = ["#d55e00" if ": edit," in name else "#999999" for name in rows]
    bars = axes.barh(list(rows), ratios, color=colours, xerr=(ratios - low, high - ratios),
                     error_kw={"elinewidth": 0.8})  # fmt: skip
    axes.bar_label(
        bars,
        [f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}" for ratio in ratios],
        fontsize=7,
        padding=6,
    )
    axes.set_xscale("log")
    axes.set_xlim(min(ratios) / 2, max(ratios) * 4)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("time until the change is active ÷ that of an edit into inputs", fontsize=8)
    figure.savefig(CHART, dpi=130)
    plt.close(figure)
    print(f"chart: {CHART}")


if __name__ == "__main__":
    sys.exit(main())
