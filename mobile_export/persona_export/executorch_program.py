"""Modules lowered to one ExecuTorch program, with a check that slots stayed in the delegate.

A program's methods share their weights. What is said of each: its delegates, operators inside and
outside of them, and the bytes of the arena that its activations need.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export

from persona.backbones import Backbone, DynamicDim
from persona.quiet import quietly
from persona_export.precision import Shapes, in_precision
from persona_export.targets.base import ExportError, Precision

_PRODUCTS = ("aten.addmm", "aten.mm", "aten.bmm", "aten.linear", "aten.convolution", "aten.matmul")
_OPERATORS = ("aten.", "dim_order_ops.", "quantized_decomposed.", "torchao.")
_RESHAPES = (
    "aten.view", "aten.permute", "aten.unsqueeze", "aten.squeeze", "aten.expand", "aten.clone",
    "aten.t_copy", "aten.transpose", "aten.slice", "dim_order_ops.", "getitem",
)  # fmt: skip


@dataclass(frozen=True)
class Method:
    """An entry point: a module with inputs to trace it by.

    shapes: the free axes of each input. own: how many inputs are the model's; slots follow.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    shapes: Shapes
    own: int


@dataclass(frozen=True)
class Lowered:
    """A program's bytes, what runs where by method, and the lowered graphs as callables.

    A graph runs what went into each delegate with PyTorch, where no runtime can.
    """

    program: bytes
    delegation: dict[str, Any]
    graphs: dict[str, Callable[..., Any]]


def xnnpack() -> Any:
    """XNNPACK's partitioner with fed weights; ExecuTorch is imported only when it is needed."""
    from persona_export import slot_partitioner

    return slot_partitioner.slot_partitioner()


def lower(
    methods: Mapping[str, Method],
    partitioner: Callable[[], Any],
    backend: str,
    precision: Precision = "fp32",
) -> Lowered:
    """Lower methods to one program. backend: its name in messages.

    Raises ExportError when a matrix product, a convolution or a slot fell out of the delegate.
    """

    def to_edge(exported: Mapping[str, ExportedProgram]) -> Any:
        from executorch.exir import to_edge_transform_and_lower

        return to_edge_transform_and_lower(
            dict(exported), partitioner={name: [partitioner()] for name in exported}
        )

    return lower_with(to_edge, methods, backend, precision)


def lower_with(
    to_edge: Callable[[Mapping[str, ExportedProgram]], Any],
    methods: Mapping[str, Method],
    backend: str,
    precision: Precision,
) -> Lowered:
    """The same with a backend's own way from exported programs to an edge program."""
    with quietly():
        from executorch.exir import ExecutorchBackendConfig
        from executorch.exir.passes import MemoryPlanningPass

        exported = {name: _exported(method, precision) for name, method in methods.items()}
        edge = to_edge(exported)
        lowered = {name: edge.exported_program(name) for name in exported}
        delegation = {
            name: _delegation(name, program, methods[name].own, backend)
            for name, program in lowered.items()
        }
        graphs = {name: program.module() for name, program in lowered.items()}
        unplanned = MemoryPlanningPass(alloc_graph_input=False)
        config = ExecutorchBackendConfig(memory_planning_pass=unplanned)
        done = edge.to_executorch(config)
        for plan in done.executorch_program.execution_plan:
            delegation[plan.name]["planned_bytes"] = sum(plan.non_const_buffer_sizes)
        return Lowered(bytes(done.buffer), delegation, graphs)


def _exported(method: Method, precision: Precision) -> ExportedProgram:
    frozen = method.module.eval().requires_grad_(False)
    narrowed = in_precision(frozen, method.inputs, method.shapes, precision, method.own)
    return export(narrowed, method.inputs, dynamic_shapes=_as_declared(narrowed, method.shapes))


def _as_declared(module: nn.Module, shapes: Shapes) -> Any:
    """Our modules take `*args`, which counts as one argument; a graph module takes each."""
    return shapes if isinstance(module, fx.GraphModule) else (shapes,)


def input_shapes(backbone: Backbone, others: int = 0) -> Shapes:
    """The free axes of a backbone's inputs, then of `others` that have none."""
    dims: dict[str, Any] = {}
    shapes: list[dict[int, Any]] = []
    for spec in backbone.input_specs():
        axes = {}
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, DynamicDim):
                axes[axis] = dims.setdefault(dim.name, Dim(dim.name, min=dim.min, max=dim.max))
        shapes.append(axes)
    return tuple(shapes + [{}] * others)


def hidden_shapes(backbone: Backbone, first_half: nn.Module) -> tuple[tuple[Tensor, ...], Shapes]:
    """What the trunk gives for example inputs, and its free axes: those that grow with the input.

    Raises ExportError where more than one dimension is free, for then it cannot be told.
    """
    free = {d for s in backbone.input_specs() for d in s.shape if isinstance(d, DynamicDim)}
    with torch.no_grad():
        hidden: tuple[Tensor, ...] = first_half(*backbone.example_inputs())
        if not free:
            return hidden, ({},) * len(hidden)
        if len(free) > 1:
            raise ExportError("a head of its own needs a backbone with at most one free dimension")
        (dim,) = free
        smaller: tuple[Tensor, ...] = first_half(*backbone.example_inputs(0, dim.max - 1))
    grown = Dim(dim.name, min=dim.min, max=dim.max)
    shapes = tuple(
        {axis: grown for axis, n in enumerate(large.shape) if n != small.shape[axis]}
        for large, small in zip(hidden, smaller, strict=True)
    )
    return hidden, shapes


def _name(node: fx.Node) -> str:
    """Such as `aten.linear.default`, of an edge operator or of PyTorch's own."""
    text = str(node.target)
    return text if text.startswith("aten.") else str(getattr(node.target, "__name__", text))


def _delegation(method: str, program: ExportedProgram, own: int, backend: str) -> dict[str, Any]:
    from executorch.exir.lowered_backend_module import get_lowered_submodules

    calls = Counter(_name(n) for n in program.graph.nodes if n.op == "call_function")
    outside = {name: count for name, count in calls.items() if name.startswith(_OPERATORS)}
    fallen = [name for name in outside if name.startswith(_PRODUCTS)]
    if fallen:
        raise ExportError(
            f"{', '.join(fallen)} of method {method!r} fell out of the {backend} delegate and "
            "would run on a slow kernel; write the product as nn.Linear, torch.matmul or nn.Conv2d "
            "on float32 tensors"
        )
    _check_slots(method, program, own, backend)
    parts = [part for _, part, _ in get_lowered_submodules(program.graph_module)]
    inside = Counter(
        _name(node)
        for part in parts
        for node in part.original_module.graph.nodes
        if node.op == "call_function" and _name(node).startswith(_OPERATORS)
    )
    return {"delegates": len(parts), "inside": dict(sorted(inside.items())), "outside": outside}


def _check_slots(method: str, program: ExportedProgram, own: int, backend: str) -> None:
    """Every slot tensor must reach a delegate, through nothing but changes of its shape."""
    fed = set(program.graph_signature.user_inputs[own:])
    for start in [n for n in program.graph.nodes if n.op == "placeholder" and n.name in fed]:
        waiting, reached = [start], False
        while waiting:
            for user in waiting.pop().users:
                name = _name(user)
                if name == "executorch_call_delegate":
                    reached = True
                elif name.startswith(_RESHAPES):
                    waiting.append(user)
                elif user.op != "output":
                    raise ExportError(
                        f"slot input {start.name!r} of method {method!r} is used by {name} outside "
                        f"of the {backend} delegate; the slot would be slow"
                    )
        if not reached:
            raise ExportError(
                f"slot input {start.name!r} of method {method!r} reaches no {backend} delegate; "
                "does the model's output depend on this slot?"
            )
