"""Core ML: a backbone and its slots as an .mlpackage that takes each edit as optional inputs.

    y = x·Wᵀ + b + x·dWᵀ + db

W and b are constants of the package; dW and db are inputs whose default is zero, so that a
prediction without them is the base. Inputs and outputs are binary32 (integers: int32) whatever the
precision inside: "fp32" loads from iOS 15, "fp16" and "int8" (weights packed, arithmetic as in
fp16) from iOS 16.
"""

import re
import shutil
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from persona.backbones import Backbone, DynamicDim
from persona.backbones.base import InputSpec
from persona.formats.manifest import Feed as FeedEntry
from persona.formats.manifest import Program
from persona.formats.slots import Array, SlotKind, SlotSpec
from persona.quiet import quietly
from persona_export.coreml_int8 import pack_weights
from persona_export.coreml_package.checks import (
    check_package,
    minimum_ios,
    operation_histogram,
    unused_inputs,
)
from persona_export.coreml_package.interpreter import Package
from persona_export.coreml_package.program import model_path
from persona_export.feeding import FedModel, Feed
from persona_export.targets.base import (
    Executor,
    ExportError,
    Precision,
    Source,
    Target,
    targets,
)

MINIMUM_IOS: Mapping[Precision, int] = {"fp32": 15, "fp16": 16, "int8": 16}
"""Precision of the package -> the first iOS version that loads it."""


class CoreMLError(ValueError):
    """A backbone that does not become a Core ML package, or becomes one with a fault."""


def feed_input_name(name: str) -> str:
    """The package's input for the feed `SLOT.SUFFIX`: other characters than letters become `_`."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def convert_forward(
    backbone: Backbone, slots: tuple[SlotSpec, ...], precision: Precision, out: Path
) -> None:
    """Write `backbone`, with the change of every slot as inputs, to the .mlpackage `out`.

    Inputs are those of `backbone.input_specs()`, then `feed_input_name` of each feed, with shapes
    as in `SlotSpec.feeds`; low-rank factors of prototype and edit come stacked. The output is
    called `output`. Whatever was at `out` is replaced.
    Raises CoreMLError when two inputs would share a name, an input has no effect on the output, an
    operator has no counterpart in Core ML, or int8 finds nothing to pack.
    """
    model = FedModel(backbone, slots, Feed.CHANGE).eval()
    feeds = {
        feed_input_name(name): shape
        for name, shape in zip(model.feed_names, model.feed_shapes, strict=True)
    }
    names = [*(spec.name for spec in backbone.input_specs()), *feeds]
    if len(set(names)) < len(backbone.input_specs()) + len(model.feed_names):
        raise CoreMLError(f"inputs or slots share a name in Core ML: {', '.join(sorted(names))}")
    _convert(model, backbone, feeds, ("output",), precision, out, _exact_weights(backbone, slots))


def convert_observe(
    backbone: Backbone, precision: Precision, out: Path, slots: tuple[SlotSpec, ...] = ()
) -> None:
    """Write `backbone.features` to the .mlpackage `out`: outputs `features` and `posterior`.

    slots: the dense ones among them keep their weights as they are in int8.
    Raises NotImplementedError when the backbone has no pooled features.
    """
    model, outputs = _Features(backbone).eval(), ("features", "posterior")
    _convert(model, backbone, {}, outputs, precision, out, _exact_weights(backbone, slots))


def _exact_weights(backbone: Backbone, slots: tuple[SlotSpec, ...]) -> list[NDArray[Any]]:
    dense = [slot.name for slot in slots if slot.kind is SlotKind.DENSE]
    return [backbone.get_parameter(f"{name}.weight").detach().numpy() for name in dense]


class _Features(nn.Module):
    """`Backbone.features` as a forward."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.backbone.features(*inputs)


def _convert(
    model: nn.Module,
    backbone: Backbone,
    feeds: Mapping[str, tuple[int, ...]],
    outputs: Sequence[str],
    precision: Precision,
    out: Path,
    exact: Sequence[NDArray[Any]],
) -> None:
    exported = _export(model, backbone, feeds)
    with quietly():
        import coremltools as ct

        inputs = _input_types(backbone.input_specs())
        inputs += [
            ct.TensorType(name, shape, np.float32, default_value=np.zeros(shape, np.float32))
            for name, shape in feeds.items()
        ]
        try:
            package = ct.convert(
                exported,
                convert_to="mlprogram",
                inputs=inputs,
                outputs=[ct.TensorType(name, dtype=np.float32) for name in outputs],
                minimum_deployment_target=getattr(ct.target, f"iOS{MINIMUM_IOS[precision]}"),
                compute_precision=getattr(
                    ct.precision, "FLOAT32" if precision == "fp32" else "FLOAT16"
                ),
                skip_model_load=True,
            )
        except Exception as error:
            raise CoreMLError(_reason(error, exported)) from error
        if precision == "int8":
            try:
                package = pack_weights(package, exact)
            except ValueError as error:
                raise CoreMLError(str(error)) from error
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            written = Path(folder) / "model.mlpackage"
            package.save(str(written))
            # Debugging data for ExecuTorch's delegate, which no Core ML loader reads.
            (written / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
            # coremltools lets only the owner read the model; a server may be someone else.
            model_path(written).chmod(0o644)
            _check(written, backbone, feeds, precision)
            shutil.rmtree(out, ignore_errors=True)
            written.rename(out)


def _reason(error: Exception, exported: torch.export.ExportedProgram) -> str:
    """What the converter stumbled over: the operator and its layer, where that can be told."""
    said = " ".join(str(error).split())[:300]
    graph = {node.name: node for node in exported.graph.nodes if node.op == "call_function"}
    # The converter's frames hold the node at hand; its messages name it in several ways, or not.
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        node = graph.get(getattr(frame.f_locals.get("node"), "name", None) or "")
        if node is not None:
            return (
                f"operator {node.target} of {_layer(node)} does not become Core ML: {said}; "
                "write the layer with other operators, or leave this target out"
            )
    return f"the model does not become Core ML: {type(error).__name__}: {said}"


def _layer(node: fx.Node) -> str:
    """Such as "layer 'trunk.stages.0.conv' (Conv2d)"; the model itself for its own forward."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = stack[-1] if stack else ("", "")
    name = re.sub(r"^(model|backbone)\.?|\.base$", "", path)
    kind = str(getattr(kind, "__name__", kind)).rpartition(".")[2]
    return f"layer {name!r} ({kind})" if name else "the model's own forward"


def _export(
    model: nn.Module, backbone: Backbone, feeds: Mapping[str, tuple[int, ...]]
) -> torch.export.ExportedProgram:
    specs = backbone.input_specs()
    examples = (*backbone.example_inputs(), *(torch.zeros(shape) for shape in feeds.values()))
    dims = {
        name: torch.export.Dim(name, min=dim.min, max=dim.max)
        for name, dim in _dynamic(specs).items()
    }
    dynamic = [
        {axis: dims[d.name] for axis, d in enumerate(spec.shape) if isinstance(d, DynamicDim)}
        for spec in specs
    ]
    dynamic += [{} for _ in feeds]
    # coremltools converts every operation of ours but recurrent layers, which are unrolled here.
    recurrent = {torch.ops.aten.gru.input, torch.ops.aten.lstm.input}
    decompositions = {
        op: rule for op, rule in torch.export.default_decompositions().items() if op in recurrent
    }
    with quietly(), torch.no_grad():
        exported = torch.export.export(model, examples, dynamic_shapes=(tuple(dynamic),))
        return exported.run_decompositions(decompositions)


def _dynamic(specs: Sequence[InputSpec]) -> dict[str, DynamicDim]:
    return {d.name: d for spec in specs for d in spec.shape if isinstance(d, DynamicDim)}


def _input_types(specs: Sequence[InputSpec]) -> list[Any]:
    import coremltools as ct

    ranges = {
        name: ct.RangeDim(dim.min, dim.max, default=dim.max)
        for name, dim in _dynamic(specs).items()
    }
    dtypes = {"int64": np.int32, "float32": np.float32}
    return [
        ct.TensorType(
            spec.name,
            [ranges[d.name] if isinstance(d, DynamicDim) else d for d in spec.shape],
            dtypes[spec.dtype],
        )
        for spec in specs
    ]


def _check(
    path: Path, backbone: Backbone, feeds: Mapping[str, tuple[int, ...]], precision: Precision
) -> None:
    package = Package.open(path)
    effective = {argument.name for argument in package.program.arguments}
    effective -= set(unused_inputs(package))
    expected = [*(spec.name for spec in backbone.input_specs()), *feeds]
    lost = [name for name in expected if name not in effective]
    if lost:
        raise CoreMLError(
            f"{', '.join(lost)} would be without effect in the package; "
            "does the backbone's forward call the slot's layer, and does the output depend on it?"
        )
    findings = check_package(path, MINIMUM_IOS[precision], precision)
    if findings:
        raise CoreMLError("the package has faults: " + "; ".join(findings))


TOLERANCE: Mapping[str, float] = {"fp32": 1e-5, "fp16": 1e-2, "int8": 5e-2}
"""Largest difference from PyTorch by precision, relative to max(1, largest output)."""


@targets.register("coreml")
class CoreML(Target):
    """Core ML packages for iOS CPU, GPU and Neural Engine; slots are optional delta inputs."""

    precisions = ("fp16", "fp32", "int8")

    def export(self, source: Source, precision: Precision, bundle: Path) -> Program:
        folder = f"coreml/{precision}"
        forward = f"{folder}/forward.mlpackage"
        observe = f"{folder}/observe.mlpackage" if source.pooled else None
        try:
            convert_forward(source.backbone, source.slots, precision, bundle / forward)
            if observe is not None:
                convert_observe(source.backbone, precision, bundle / observe, source.slots)
        except CoreMLError as error:
            raise ExportError(f"Core ML {precision}: {error}") from None
        package = Package.open(bundle / forward)
        return Program(
            target="coreml",
            precision=precision,
            path=forward,
            method="main",
            observe_path=observe,
            observe_method=None if observe is None else "main",
            feeds=tuple(
                FeedEntry(
                    f"{slot.name}.{x}", None, feed_input_name(f"{slot.name}.{x}"), "change", s
                )
                for slot in source.slots
                for x, s in slot.feeds().items()
            ),
            tolerance=TOLERANCE[precision],
            verified="interpreted",
            delegation={
                "minimum_ios": minimum_ios(package),
                "operations": dict(sorted(operation_histogram(package).items())),
            },
        )

    def executor(self, bundle: Path, program: Program) -> Executor:
        package = Package.open(bundle / program.path)

        def run(inputs: Mapping[str, NDArray[Any]], slots: Mapping[str, Array]) -> Array:
            fed = {f.input: slots[f.tensor] for f in program.feeds if f.input is not None}
            output: Array = package.run({**_narrow(inputs), **fed})["output"]
            return output

        return run

    def features(
        self, bundle: Path, program: Program
    ) -> Callable[[Mapping[str, NDArray[Any]]], tuple[Array, Array]]:
        assert program.observe_path is not None
        package = Package.open(bundle / program.observe_path)

        def run(inputs: Mapping[str, NDArray[Any]]) -> tuple[Array, Array]:
            outputs = package.run(_narrow(inputs))
            return outputs["features"], outputs["posterior"]

        return run

    def faults(self, bundle: Path, program: Program) -> list[str]:
        precision = program.precision
        return [
            f"{place}: {finding}"
            for place in (program.path, program.observe_path)
            if place is not None
            for finding in check_package(bundle / place, MINIMUM_IOS[precision], precision)
        ]


def _narrow(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Core ML has no 64-bit integers."""
    return {n: x.astype(np.int32) if x.dtype == np.int64 else x for n, x in inputs.items()}
