"""A backbone whose slots are fed from outside: the module that every target lowers.

ExecuTorch takes the effective tensor (base + prototype + edit), Core ML the change alone
(prototype + edit) beside a constant base. Both become extra inputs after the backbone's own.
"""

import copy
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from persona.backbones import Backbone
from persona.formats.slots import SlotKind, SlotSpec


class Feed(StrEnum):
    """What a slot's inputs carry."""

    EFFECTIVE = "effective"
    CHANGE = "change"


def _register_feeds(module: nn.Module, slot: SlotSpec) -> None:
    """Give `module` a parameter for each tensor that a caller feeds, and no bias where none is."""
    module.register_parameter("bias", None)
    for suffix, shape in slot.feeds().items():
        module.register_parameter(suffix, nn.Parameter(torch.zeros(shape)))


class DenseEffective(nn.Module):
    """y = x·Wᵀ + b, with W and b from outside."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, slot: SlotSpec) -> None:
        super().__init__()
        _register_feeds(self, slot)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class DenseChange(nn.Module):
    """y = x·Wᵀ + b + x·dWᵀ + db, with dW and db from outside."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Module, slot: SlotSpec) -> None:
        super().__init__()
        self.base = layer
        _register_feeds(self, slot)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(x, self.weight, self.bias)


class LowRank(nn.Module):
    """y = x·Wᵀ + (x·aᵀ)·bᵀ + bias; the bias is the whole one (effective) or a change to it."""

    a: Tensor
    b: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Module, slot: SlotSpec, *, keeps_bias: bool) -> None:
        super().__init__()
        assert isinstance(layer, nn.Linear)
        self.base = layer
        if not keeps_bias:
            self.base.register_parameter("bias", None)
        _register_feeds(self, slot)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x) + F.linear(F.linear(x, self.a), self.b)
        return y if self.bias is None else y + self.bias


class Affine(nn.Module):
    """y = layer(x)·scale + shift a channel; `offset` is 1 where the scale is a change to 1."""

    scale: Tensor
    shift: Tensor

    def __init__(self, layer: nn.Module, slot: SlotSpec, *, offset: float) -> None:
        super().__init__()
        self.base = layer
        self.offset = offset
        self.channels_last = isinstance(layer, nn.Linear | nn.LayerNorm)
        _register_feeds(self, slot)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        scale, shift = self.scale, self.shift
        if self.offset:
            scale = scale + self.offset
        if not self.channels_last:
            across = (1, -1, *[1] * (y.dim() - 2))
            scale, shift = scale.reshape(across), shift.reshape(across)
        return y * scale + shift


def _fed_layer(layer: nn.Module, slot: SlotSpec, feed: Feed) -> nn.Module:
    change = feed is Feed.CHANGE
    match slot.kind:
        case SlotKind.DENSE:
            return DenseChange(layer, slot) if change else DenseEffective(slot)
        case SlotKind.LOW_RANK:
            return LowRank(layer, slot, keeps_bias=change)
        case SlotKind.AFFINE:
            return Affine(layer, slot, offset=1.0 if change else 0.0)


class FedModel(nn.Module):
    """forward(*inputs, *feeds) -> output. Feeds follow the inputs in the order of `feed_names`."""

    def __init__(self, backbone: Backbone, slots: tuple[SlotSpec, ...], feed: Feed) -> None:
        super().__init__()
        self.model = copy.deepcopy(backbone).eval().requires_grad_(False)
        self.inputs = len(backbone.input_specs())
        self.feed_names: tuple[str, ...] = tuple(
            f"{slot.name}.{suffix}" for slot in slots for suffix in slot.feeds()
        )
        self.feed_shapes = tuple(shape for slot in slots for shape in slot.feeds().values())
        for slot in slots:
            parent, _, child = slot.name.rpartition(".")
            owner = self.model.get_submodule(parent)
            setattr(owner, child, _fed_layer(self.model.get_submodule(slot.name), slot, feed))

    def forward(self, *args: Tensor) -> Tensor:
        fed = dict(zip(self.feed_names, args[self.inputs :], strict=True))
        output: Tensor = functional_call(self.model, fed, args[: self.inputs])
        return output
