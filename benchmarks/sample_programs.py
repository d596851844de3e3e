"""Sample models exported for XNNPACK, as calls to be timed: baked, at the base, and edited."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sample_models import Sample

from persona.formats.manifest import patched_head
from persona.formats.slots import effective, zero_edit
from persona.method.slots import base_tensors
from persona_export.executorch_runtime import LoadedMethod
from persona_export.export import example_edit
from persona_export.feed_cost import chain
from persona_export.targets import Source, targets


def calls(sample: Sample, kind: str, feed: str, folder: Path) -> dict[str, Callable[[], None]]:
    """Export a sample into `folder`; its calls `baked`, `base` and `edited`, inputs bound once.

    `baked` is the method `base` of the same program, with constant weights. Raises ExportError.
    """
    backbone = sample.backbone()
    slots = sample.slots(backbone, kind)
    base = {name: value.numpy() for name, value in base_tensors(backbone, slots).items()}
    nothing = zero_edit(slots)
    inputs = list(backbone.example_inputs())
    program = targets["executorch-xnnpack"]().export(
        Source(backbone, slots, False, feed),  # type: ignore[arg-type]
        "fp32",
        folder,
    )
    made = {"baked": chain([LoadedMethod(folder / program.path, "base")], inputs)}
    for name, change in (("base", nothing), ("edited", example_edit(slots))):
        values = effective(slots, base, nothing, change)
        methods = [LoadedMethod(folder / program.path, program.method)]
        if program.head is not None:
            head = patched_head((folder / program.head.path).read_bytes(), program, values)
            methods.append(LoadedMethod(head, program.head.method))
        fed = sorted((f for f in program.feeds if f.patch is None), key=lambda f: f.index or 0)
        tensors = [torch.from_numpy(np.ascontiguousarray(values[f.tensor])) for f in fed]
        made[name] = chain(methods, inputs + tensors)
    return made
