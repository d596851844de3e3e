"""The head as a program of its own, whose slot tensors a device patches in the file's bytes.

Where they lie is not read from the file's format but found: the head is lowered with random marks
in place of its slots, each mark is searched for, and the base's values are written over it.
"""

import numpy as np
import torch

from persona.backbones import Backbone
from persona.formats.manifest import Patch
from persona.formats.slots import SlotSpec
from persona.method.slots import base_tensors
from persona_export.executorch_program import Lowered, Method, hidden_shapes, lower, xnnpack
from persona_export.feeding import FirstHalf, SecondHalf
from persona_export.targets.base import ExportError


def in_head(slot: SlotSpec) -> bool:
    """Whether a slot lies in the backbone's head."""
    return slot.name.startswith("head.") or slot.name == "head"


def halves_reason(backbone: Backbone, slots: tuple[SlotSpec, ...]) -> str | None:
    """Why a backbone cannot be cut into a trunk and a head with patched slots; None if it can."""
    if not (hasattr(backbone, "trunk") and hasattr(backbone, "head")):
        return "the backbone is not cut into trunk and head"
    if not any(in_head(slot) for slot in slots):
        return "no slot lies in the head"
    return None


def lower_head(backbone: Backbone, slots: tuple[SlotSpec, ...]) -> tuple[Lowered, dict[str, Patch]]:
    """The head's program with the base's values, and where each tensor of `slots` lies in it.

    Raises ExportError where a tensor cannot be found in it, or not once.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = {f"{s.name}.{x}": shape for s in slots for x, shape in s.feeds().items()}
    marks = {name: 1 + torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    hidden, axes = hidden_shapes(backbone, FirstHalf(backbone).eval())
    second = SecondHalf(backbone, slots, marks)
    methods = {"forward": Method(second, hidden, axes, len(hidden))}
    lowered = lower(methods, xnnpack, "XNNPACK")
    data, patches = bytearray(lowered.program), {}
    for name, base in base_tensors(backbone, slots).items():
        mark = marks[name].numpy().astype("<f4").tobytes()
        if lowered.program.count(mark) != 1:
            raise ExportError(
                f"{name!r} stands {lowered.program.count(mark)} times in the head's program, not "
                "once, so it cannot be patched there; choose --slot-feed inputs"
            )
        start = lowered.program.index(mark)
        patches[name] = Patch(start, len(mark), "F32")
        data[start : start + len(mark)] = base.numpy().astype(np.dtype("<f4")).tobytes()
    return Lowered(bytes(data), lowered.delegation, lowered.graphs), patches
