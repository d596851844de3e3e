"""Sample models exported for XNNPACK, as calls to be timed: baked, at the base, and edited."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sample_models import Sample

from persona.formats.manifest import Program, patched_head
from persona.formats.slots import effective, zero_edit
from persona.method.slots import base_tensors
from persona_export.executorch_runtime import LoadedMethod
from persona_export.export import example_edit
from persona_export.feed_cost import chain
from persona_export.targets import Source, targets


def export_sample(sample: Sample, kind: str, feed: str, folder: Path) -> Program:
    """Export a sample into `folder`. Raises ExportError where it cannot be fed so."""
    backbone = sample.backbone()
    source = Source(backbone, sample.slots(backbone, kind), False, feed)  # type: ignore[arg-type]
    return targets["executorch-xnnpack"]().export(source, "fp32", folder)


def calls_of(
    sample: Sample, kind: str, program: Program, folder: Path
) -> dict[str, Callable[[], None]]:
    """An exported sample's calls `baked`, `base` and `edited`, inputs bound once.

    `baked` is the method `base` of the same program, with constant weights.
    """
    backbone = sample.backbone()
    slots = sample.slots(backbone, kind)
    base = {name: value.numpy() for name, value in base_tensors(backbone, slots).items()}
    inputs = list(backbone.example_inputs())
    made = {"baked": chain([LoadedMethod(folder / program.path, "base")], inputs)}
    for name, change in (("base", zero_edit(slots)), ("edited", example_edit(slots))):
        values = effective(slots, base, zero_edit(slots), change)
        methods = [LoadedMethod(folder / program.path, program.method)]
        if program.head is not None:
            head = patched_head((folder / program.head.path).read_bytes(), program, values)
            methods.append(LoadedMethod(head, program.head.method))
        fed = sorted((f for f in program.feeds if f.patch is None), key=lambda f: f.index or 0)
        tensors = [torch.from_numpy(np.ascontiguousarray(values[f.tensor])) for f in fed]
        made[name] = chain(methods, inputs + tensors)
    return made


def calls(sample: Sample, kind: str, feed: str, folder: Path) -> dict[str, Callable[[], None]]:
    """Both in one: export, and the calls."""
    return calls_of(sample, kind, export_sample(sample, kind, feed, folder), folder)
