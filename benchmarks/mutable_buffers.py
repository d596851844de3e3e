"""The rival of shared mutable buffers: slots are state of the program, and `set_slots` writes them.

ExecuTorch can place a buffer of several methods in one arena, which only C++ callers can hand to
all of them. Through Python's runtime, as through Java's and Swift's, every method has an arena of
its own: then `set_slots` succeeds and `forward` does not change.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import export

from persona.backbones import Backbone
from persona.formats.slots import SlotSpec
from persona.method.slots import Edit, base_tensors
from persona.quiet import quietly
from persona_export.executorch_program import xnnpack
from persona_export.executorch_runtime import LoadedMethod
from persona_export.feeding import FedModel, Feed


class _Forward(nn.Module):
    """inputs -> output, with slots from buffers."""

    def __init__(self, backbone: Backbone, slots: tuple[SlotSpec, ...], base: Edit) -> None:
        super().__init__()
        self.fed = FedModel(backbone, slots, Feed.EFFECTIVE)
        self.names = [name.replace(".", "_") for name in base]
        for name, value in zip(self.names, base.values(), strict=True):
            self.register_buffer(name, value.clone())

    def forward(self, *inputs: Tensor) -> Tensor:
        output: Tensor = self.fed(*inputs, *(getattr(self, name) for name in self.names))
        return output


class _SetSlots(_Forward):
    """Slot tensors -> the first value of the first, after all are written."""

    def forward(self, *values: Tensor) -> Tensor:
        for name, value in zip(self.names, values, strict=True):
            getattr(self, name).copy_(value)
        return values[0].flatten()[0]


@dataclass(frozen=True)
class MutableBuffers:
    """Both methods with what they take. largest_effect: of `set_slots` on the output of `forward`,
    which a working edit would change.
    """

    set_slots: LoadedMethod
    values: list[Tensor]
    largest_effect: float


def mutable_buffers(backbone: Backbone, slots: tuple[SlotSpec, ...]) -> MutableBuffers:
    """Lower, load, and set slots once to values off the base by 0.05."""
    base = base_tensors(backbone, slots)
    changed = [value + 0.05 for value in base.values()]
    inputs = backbone.example_inputs()
    with quietly():
        from executorch.exir import to_edge_transform_and_lower
        from executorch.exir.capture import ExecutorchBackendConfig
        from executorch.exir.passes import MemoryPlanningPass

        programs = {
            "forward": export(_Forward(backbone, slots, base).eval(), inputs),
            "set_slots": export(_SetSlots(backbone, slots, base).eval(), tuple(changed)),
        }
        edge = to_edge_transform_and_lower(
            programs, partitioner={"forward": [xnnpack()], "set_slots": []}
        )
        shared = MemoryPlanningPass(share_mutable_buffers=True)
        done = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=shared))
    program = bytes(done.buffer)
    forward, set_slots = LoadedMethod(program, "forward"), LoadedMethod(program, "set_slots")
    before = forward.tensors(inputs)[0].clone()
    set_slots.tensors(changed)
    after = forward.tensors(inputs)[0]
    return MutableBuffers(set_slots, changed, float(torch.abs(after - before).max()))
