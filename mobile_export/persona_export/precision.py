"""A backbone in fewer bits, its slots in binary32: what is lowered for `fp16` and `int8`.

fp16: weights and activations in binary16. int8: weights in 8 bits, one scale a channel;
activations are quantised as they come, with the range that they have, so no data is needed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
    slots = [name for name, m in module.named_modules() if isinstance(m, Constant)]
    if any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules()):
        from persona_export.int8_graph import in_int8

        graph = in_int8(module, inputs, shapes, slots)
        if graph is not None:
            return graph
    elif _linears_in_int8(module, slots):
        return module
    raise ExportError(
        "int8 found no convolution or linear layer outside of dense slots to quantise; export fp32"
    )


def _linears_in_int8(module: nn.Module, slots: Sequence[str]) -> bool:
    """Quantise in place; whether there was anything to."""
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.quant_api import Int8DynamicActivationIntxWeightConfig, quantize_

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
