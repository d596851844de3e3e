"""ExecuTorch on the CPU through XNNPACK, with slot weights as trailing inputs.

One `.pte` with up to three methods that share their weights: `forward` takes the inputs and then
every slot tensor; `base` is the same model with baked weights, to measure against; `observe`
computes what the observation pools.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, export

from persona.backbones import Backbone, DynamicDim
from persona.formats.manifest import Feed as FeedEntry
from persona.formats.manifest import Program
from persona.formats.slots import Array
from persona.quiet import quietly
from persona_export.feeding import FedModel, Feed
from persona_export.targets.base import (
    Executor,
    ExportError,
    Precision,
    Source,
    Target,
    targets,
)

PATH = "executorch/xnnpack.pte"
TOLERANCE = 1e-5

_PRODUCTS = ("aten.addmm", "aten.mm", "aten.bmm", "aten.linear", "aten.convolution", "aten.matmul")


class _Observe(nn.Module):
    """`features` as a forward."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.backbone.features(*inputs)


@targets.register("executorch-xnnpack")
class ExecutorchXnnpack(Target):
    """ExecuTorch on Android and iOS CPUs (XNNPACK); slots are inputs of the delegate."""

    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)

    def export(self, source: Source, precision: Precision, bundle: Path) -> Program:
        fed = FedModel(source.backbone, source.slots, Feed.EFFECTIVE)
        inputs = source.backbone.example_inputs()
        feeds = tuple(torch.zeros(shape) for shape in fed.feed_shapes)
        methods: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
            "forward": (fed, inputs + feeds),
            "base": (source.backbone, inputs),
        }
        if source.pooled:
            methods["observe"] = (_Observe(source.backbone), inputs)
        program, delegation = lower(source.backbone, methods)
        path = bundle / PATH
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(program)
        return Program(
            target="executorch-xnnpack",
            precision=precision,
            path=PATH,
            method="forward",
            observe_path=PATH if source.pooled else None,
            observe_method="observe" if source.pooled else None,
            feeds=tuple(
                FeedEntry(name, len(inputs) + index, None, "effective", shape)
                for index, (name, shape) in enumerate(
                    zip(fed.feed_names, fed.feed_shapes, strict=True)
                )
            ),
            tolerance=TOLERANCE,
            verified="executed",
            delegation=delegation,
        )

    def executor(self, bundle: Path, program: Program) -> Executor:
        method = _load(bundle / program.path, program.method)
        feeds = sorted(program.feeds, key=lambda feed: feed.index or 0)

        def run(inputs: Mapping[str, NDArray[Any]], slots: Mapping[str, Array]) -> Array:
            ordered = [*inputs.values(), *(slots[feed.tensor] for feed in feeds)]
            return method(ordered)[0]

        return run

    def features(
        self, bundle: Path, program: Program
    ) -> Callable[[Mapping[str, NDArray[Any]]], tuple[Array, Array]]:
        assert program.observe_path is not None
        assert program.observe_method is not None
        method = _load(bundle / program.observe_path, program.observe_method)

        def run(inputs: Mapping[str, NDArray[Any]]) -> tuple[Array, Array]:
            features, posterior = method(list(inputs.values()))
            return features, posterior

        return run


def _load(path: Path, method_name: str) -> Callable[[list[NDArray[Any]]], list[Array]]:
    with quietly():
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(path)
        method = program.load_method(method_name)
    if method is None:
        raise ExportError(f"{path} has no method {method_name!r}")

    def run(arrays: list[NDArray[Any]]) -> list[Array]:
        tensors = [torch.from_numpy(np.array(a, order="C")) for a in arrays]
        return [output.numpy() for output in method.execute(tensors)]

    return run


def lower(
    backbone: Backbone, methods: Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]
) -> tuple[bytes, dict[str, Any]]:
    """Lower modules that take the backbone's inputs first to one program.

    Returns its bytes, and for each method how many delegates it has and what stayed outside.
    Raises ExportError when a matrix product or convolution fell out of the delegate.
    """
    with quietly():
        from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
        from executorch.exir.passes import MemoryPlanningPass

        from persona_export.slot_partitioner import slot_partitioner

        exported = {}
        for name, (module, inputs) in methods.items():
            shapes = (_dynamic_shapes(backbone, len(inputs)),)
            frozen = module.eval().requires_grad_(False)
            exported[name] = export(frozen, inputs, dynamic_shapes=shapes)
        edge = to_edge_transform_and_lower(
            exported, partitioner={name: [slot_partitioner()] for name in exported}
        )
        unplanned = MemoryPlanningPass(alloc_graph_input=False)
        config = ExecutorchBackendConfig(memory_planning_pass=unplanned)
        program = bytes(edge.to_executorch(config).buffer)
    graphs = {name: edge.exported_program(name).graph for name in exported}
    return program, {name: _delegation(name, graph) for name, graph in graphs.items()}


def _dynamic_shapes(backbone: Backbone, arguments: int) -> tuple[dict[int, Any], ...]:
    dims: dict[str, Any] = {}
    shapes: list[dict[int, Any]] = []
    for spec in backbone.input_specs():
        axes = {}
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, DynamicDim):
                axes[axis] = dims.setdefault(dim.name, Dim(dim.name, min=dim.min, max=dim.max))
        shapes.append(axes)
    return tuple(shapes + [{}] * (arguments - len(shapes)))


def _delegation(method: str, graph: torch.fx.Graph) -> dict[str, Any]:
    calls = Counter(str(n.target) for n in graph.nodes if n.op == "call_function")
    outside = {
        name: count
        for name, count in calls.items()
        if name.startswith(("aten.", "dim_order_ops.", "quantized_decomposed."))
    }
    fallen = [name for name in outside if name.startswith(_PRODUCTS)]
    if fallen:
        raise ExportError(
            f"{', '.join(fallen)} of method {method!r} fell out of the XNNPACK delegate and would "
            "run on a slow kernel; write the product as nn.Linear, torch.matmul or nn.Conv2d on "
            "float32 tensors"
        )
    return {"delegates": calls["executorch_call_delegate"], "outside": outside}
