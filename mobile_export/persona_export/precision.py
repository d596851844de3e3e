"""A backbone in fewer bits, its slots in binary32: what is lowered for `fp16` and `int8`.

fp16: weights and activations in binary16. int8: weights in 8 bits, one scale a channel;
activations are quantised as they come, with the range that they have, so no data is needed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import export

from persona.quiet import quietly
from persona_export.feeding import Constant
from persona_export.targets.base import ExportError, Precision

TOLERANCE: dict[Precision, float] = {"fp32": 1e-5, "fp16": 1e-2, "int8": 5e-2}
"""Largest difference from PyTorch in fp32, relative to max(1, largest output)."""

Shapes = tuple[dict[int, Any], ...]


def in_precision(
    module: nn.Module, inputs: tuple[Tensor, ...], shapes: Shapes, precision: Precision, own: int
) -> nn.Module:
    """`module` with the backbone in this precision; float inputs and outputs stay binary32.

    own: how many of `inputs` are the backbone's; the others are slot tensors.
    Raises ExportError where int8 finds no layer that it could quantise.
    """
    if precision == "fp16":
        return _Half(module, own)
    if precision == "int8":
        with quietly():
            return _quantised(module, inputs, shapes)
    return module


class _Half(nn.Module):
    """binary16 inside: float inputs are narrowed on the way in, outputs widened on the way out."""

    def __init__(self, module: nn.Module, own: int) -> None:
        super().__init__()
        self.module = module.half()
        self.own = own
        for layer in self.module.modules():
            if isinstance(layer, Constant):
                layer.float()

    def forward(self, *args: Tensor) -> Any:
        own = [x.half() if x.is_floating_point() else x for x in args[: self.own]]
        output = self.module(*own, *args[self.own :])
        if isinstance(output, tuple):
            return tuple(x.float() for x in output)
        return output.float()


def _quantised(module: nn.Module, inputs: tuple[Tensor, ...], shapes: Shapes) -> nn.Module:
    convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())
    quantised = _graph_in_int8(module, inputs, shapes) if convolves else _linears_in_int8(module)
    if not quantised:
        raise ExportError(
            "int8 found no convolution or linear layer outside of dense slots to quantise; "
            "export fp32"
        )
    return module if quantised is True else quantised


def _linears_in_int8(module: nn.Module) -> bool:
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.quant_api import Int8DynamicActivationIntxWeightConfig, quantize_

    slots = [name for name, m in module.named_modules() if isinstance(m, Constant)]
    chosen = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not any(name.startswith(f"{s}.") for s in slots)
    ]
    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int8, weight_granularity=PerAxis(0)
    )
    quantize_(module, config, lambda _, name: name in chosen)
    return bool(chosen)


def _graph_in_int8(
    module: nn.Module, inputs: tuple[Tensor, ...], shapes: Shapes
) -> nn.Module | None:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    slots = [f"{name}." for name, m in module.named_modules() if isinstance(m, Constant)]
    graph = export(module, inputs, dynamic_shapes=(shapes,)).module()
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    quantizer.set_filter_function(lambda node: _has_own_weight(node, slots))
    prepared = prepare_pt2e(graph, quantizer)
    prepared(*inputs)
    converted: nn.Module = convert_pt2e(prepared)
    narrow = [b for b in converted.buffers() if b.dtype == torch.int8]
    return converted if narrow else None


def _has_own_weight(node: fx.Node, slots: Sequence[str]) -> bool:
    """Whether a layer's weight is the backbone's: neither fed from outside nor a dense slot's."""
    weight = node.args[1] if len(node.args) > 1 else None
    if not isinstance(weight, fx.Node):
        return True
    return weight.op == "get_attr" and not str(weight.target).startswith(tuple(slots) or ("\0",))
