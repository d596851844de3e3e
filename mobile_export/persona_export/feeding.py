"""A backbone whose slots are fed from outside: the modules that every target lowers.

ExecuTorch takes the effective tensor (base + prototype + edit), Core ML the change alone
(prototype + edit) beside a constant base. Both become extra inputs after the backbone's own; or,
where a slot is large, effective tensors are constants of a head of its own that a device patches.
Slots compute in binary32 whatever the precision around them.
"""

import copy
from collections.abc import Mapping
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
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


UNPACKED = 512 * 512
"""Weights from which on packing one dense slot takes longer than reading it unpacked."""


class DenseUnpacked(DenseEffective):
    """The same for a runtime that packs the right factor of a product on each call.

    Where x is one row and W large, y = (W·xᵀ)ᵀ + b, so that x is packed and W is read in place.
    """

    def forward(self, x: Tensor) -> Tensor:
        one_row = x.dim() == 2 and isinstance(x.shape[0], int) and x.shape[0] == 1
        if not one_row or self.weight.numel() < UNPACKED:
            return super().forward(x)
        y = F.linear(self.weight, x.to(self.weight.dtype)).reshape(1, -1)
        return (y if self.bias is None else y + self.bias).to(x.dtype)


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
    """y = x·Wᵀ + ((x·aᵀ)·bᵀ + bias); the bias is the whole one (effective) or a change to it."""

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
        change = F.linear(F.linear(x.to(self.a.dtype), self.a), self.b, self.bias)
        y: Tensor = self.base(x).to(change.dtype) + change
        return y.to(x.dtype)


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
        return (y.to(scale.dtype) * scale + shift).to(x.dtype)


class Constant(nn.Module):
    """A dense slot's layer with its weights as constants, in binary32 whatever is around it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.float())
        return y.to(x.dtype)


def _fed_layer(
    layer: nn.Module, slot: SlotSpec, feed: Feed, dense: type[DenseEffective]
) -> nn.Module:
    change = feed is Feed.CHANGE
    match slot.kind:
        case SlotKind.DENSE:
            return DenseChange(layer, slot) if change else dense(slot)
        case SlotKind.LOW_RANK:
            return LowRank(layer, slot, keeps_bias=change)
        case SlotKind.AFFINE:
            return Affine(layer, slot, offset=1.0 if change else 0.0)


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _with_fed_layers(
    model: nn.Module,
    slots: tuple[SlotSpec, ...],
    feed: Feed,
    dense: type[DenseEffective] = DenseEffective,
) -> nn.Module:
    fed = copy.deepcopy(model).eval().requires_grad_(False)
    for slot in slots:
        _replace(fed, slot.name, _fed_layer(fed.get_submodule(slot.name), slot, feed, dense))
    return fed.requires_grad_(False)


class FedModel(nn.Module):
    """forward(*inputs, *feeds) -> output. Feeds follow the inputs in the order of `feed_names`.

    model: a backbone, or its first half; inputs: how many it takes itself. dense: how a dense slot
    with effective weights is computed.
    """

    def __init__(
        self,
        model: nn.Module,
        slots: tuple[SlotSpec, ...],
        feed: Feed,
        inputs: int | None = None,
        dense: type[DenseEffective] = DenseEffective,
    ) -> None:
        super().__init__()
        if inputs is None:
            assert isinstance(model, Backbone)
            inputs = len(model.input_specs())
        self.model = _with_fed_layers(model, slots, feed, dense)
        self.inputs = inputs
        self.feed_names: tuple[str, ...] = tuple(
            f"{slot.name}.{suffix}" for slot in slots for suffix in slot.feeds()
        )
        self.feed_shapes = tuple(shape for slot in slots for shape in slot.feeds().values())

    def forward(self, *args: Tensor) -> Tensor:
        fed = dict(zip(self.feed_names, args[self.inputs :], strict=True))
        output: Tensor = functional_call(self.model, fed, args[: self.inputs])
        return output


class BakedModel(nn.Module):
    """The backbone itself, its dense slots as binary32 constants."""

    def __init__(self, backbone: Backbone, slots: tuple[SlotSpec, ...]) -> None:
        super().__init__()
        self.model = copy.deepcopy(backbone).eval().requires_grad_(False)
        for slot in slots:
            if slot.kind is SlotKind.DENSE:
                _replace(self.model, slot.name, Constant(self.model.get_submodule(slot.name)))

    def forward(self, *inputs: Tensor) -> Tensor:
        output: Tensor = self.model(*inputs)
        return output


class Observe(BakedModel):
    """`features` as a forward."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        assert isinstance(self.model, Backbone)
        return self.model.features(*inputs)


class FirstHalf(nn.Module):
    """The trunk as a program of its own: inputs -> what the head takes, always as a tuple."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.trunk = backbone.trunk

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        hidden = self.trunk(*inputs)
        return hidden if isinstance(hidden, tuple) else (hidden,)


class SecondHalf(nn.Module):
    """The head as a program of its own: hidden -> output, with slot tensors as constants."""

    def __init__(
        self, backbone: Backbone, slots: tuple[SlotSpec, ...], constants: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        whole = nn.Module()
        whole.head = backbone.head
        self.fed = _with_fed_layers(whole, slots, Feed.EFFECTIVE)
        with torch.no_grad():
            for name, value in constants.items():
                self.fed.get_parameter(name).copy_(value)

    def forward(self, *hidden: Tensor) -> Tensor:
        head = self.fed.head
        assert isinstance(head, nn.Module)
        output: Tensor = head(*hidden)
        return output
