"""A convolutional network's graph in 8 bits: which of its layers are quantised, and how.

Weights have one scale a channel; activations are quantised as they come. XNNPACK does that for
linear layers and two-dimensional convolutions, so a convolution along time becomes one of height 1,
and depthwise convolutions, whose weights are few, stay in binary32. Executorch's own quantiser
leaves out a convolution before a ReLU where activations are dynamic; this one takes it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    get_symmetric_quantization_config,
)
from torch import Tensor, fx, nn
from torch.export import export
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer

_LINEAR = torch.ops.aten.linear.default
_CONV1D = torch.ops.aten.conv1d.default
_CONV2D = torch.ops.aten.conv2d.default


def in_int8(
    module: nn.Module, inputs: tuple[Tensor, ...], shapes: Any, slots: Sequence[str]
) -> nn.Module | None:
    """`module` as a graph with its own layers in 8 bits; None where it has none to quantise.

    shapes: the free axes of each input. slots: paths of dense slots with constant weights, which
    stay as they are.
    """
    graph = export(module, inputs, dynamic_shapes=(shapes,)).module()
    quantizer = _Dynamic(slots)
    prepared = prepare_pt2e(graph, quantizer)
    if not quantizer.chosen:
        return None
    prepared(*inputs)
    converted: nn.Module = convert_pt2e(prepared)
    return converted


class _Dynamic(Quantizer):
    """Quantises layers that have weights of their own. chosen: how many."""

    def __init__(self, slots: Sequence[str]) -> None:
        super().__init__()
        self.slots = tuple(f"{slot}." for slot in slots)
        self.chosen = 0

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Convolutions along time get a height of 1; batch norms are folded into them by now."""
        for node in [n for n in model.graph.nodes if n.target is _CONV1D]:
            if self._weight(node) is not None:
                _make_flat(model, node)
        model.recompile()
        return model

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
        for node in model.graph.nodes:
            weight = self._weight(node)
            if weight is None or _is_depthwise(model, node):
                continue
            specs = {node.args[0]: config.input_activation, weight: config.weight}
            if len(node.args) > 2 and isinstance(node.args[2], fx.Node):
                specs[node.args[2]] = config.bias
            node.meta["quantization_annotation"] = QuantizationAnnotation(specs, _annotated=True)
            self.chosen += 1
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Lowering checks that what was quantised stays in the delegate."""

    def _weight(self, node: fx.Node) -> fx.Node | None:
        """The weight of a layer that has one of its own, neither fed nor a dense slot's."""
        if node.target not in (_LINEAR, _CONV1D, _CONV2D):
            return None
        weight = node.args[1]
        assert isinstance(weight, fx.Node)
        own = weight.op == "get_attr" and not str(weight.target).startswith(self.slots)
        return weight if own else None


def _attribute(model: fx.GraphModule, node: fx.Node) -> Tensor:
    parent, _, name = str(node.target).rpartition(".")
    found: Tensor = getattr(model.get_submodule(parent), name)
    return found


def _is_depthwise(model: fx.GraphModule, node: fx.Node) -> bool:
    """One input channel a group, or at all; XNNPACK quantises no such convolution dynamically."""
    if node.target is not _CONV2D:
        return False
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    return _attribute(model, weight).shape[1] == 1


def _make_flat(model: fx.GraphModule, node: fx.Node) -> None:
    """conv1d(x, w) -> conv2d(x[:, :, None], w[:, :, None])[:, :, 0]."""
    x, weight, *others = node.args
    assert isinstance(x, fx.Node)
    assert isinstance(weight, fx.Node)
    parent, _, name = str(weight.target).rpartition(".")
    flat = f"{name}_flat"
    value = nn.Parameter(_attribute(model, weight).unsqueeze(2), requires_grad=False)
    model.get_submodule(parent).register_parameter(flat, value)
    rest: list[Any] = [*others, *(None, 1, 0, 1, 1)[len(others) :]]
    bias, stride, padding, dilation, groups = rest
    with model.graph.inserting_before(node):
        kernel = model.graph.get_attr(f"{parent}.{flat}" if parent else flat)
        raised = model.graph.call_function(torch.ops.aten.unsqueeze.default, (x, 2))
        pairs = [_pair(1, stride), _pair(0, padding), _pair(1, dilation)]
        convolved = model.graph.call_function(_CONV2D, (raised, kernel, bias, *pairs, groups))
        result = model.graph.call_function(torch.ops.aten.squeeze.dim, (convolved, 2))
    for made in (kernel, raised, convolved, result):
        made.meta = {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
    kernel.meta["val"], raised.meta["val"] = value.data, x.meta["val"].unsqueeze(2)
    result.meta["val"] = node.meta["val"]
    convolved.meta["val"] = node.meta["val"].unsqueeze(2)
    node.replace_all_uses_with(result)
    model.graph.erase_node(node)


def _pair(above: int, along: Any) -> list[int]:
    (value,) = along if isinstance(along, list | tuple) else (along,)
    return [above, value]
