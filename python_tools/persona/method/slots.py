"""Editable slots on any `nn.Module`, by name; an edit is a change of parameters.

    W_eff = W + P + ΔW          dense                         (Persona, effective weights)
    W_eff = W + Σ B·A           low-rank, over prototype and edit
    W_eff = (1 + s) ⊙ W,  b_eff = (1 + s) ⊙ b + t      affine, one s and t a channel

Tensors may carry a leading device axis D; arithmetic is the same with and without it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from persona.formats.slots import SlotKind, SlotSpec

Edit = dict[str, Tensor]


class SlotError(ValueError):
    """A slot that the module does not have, or cannot have."""


def make_slot(
    module: nn.Module,
    name: str,
    kind: str = "dense",
    rank: int = 4,
    bound: float = 0.5,
    bias_bound: float = 3.0,
) -> SlotSpec:
    """Describe the slot at `name`, a module path in `module`.

    Dense and low-rank slots want an `nn.Linear`. An affine slot wants a layer with a weight whose
    first axis is the output channel, and a bias of one value a channel.
    Raises SlotError when there is no such layer or it cannot be such a slot.
    """
    slot_kind = SlotKind(kind)
    try:
        layer = module.get_submodule(name)
    except AttributeError:
        fitting = ", ".join(n for n, m in module.named_modules() if n and _fits(slot_kind, m))
        raise SlotError(
            f"no layer is called {name!r}; layers for {kind} slots are: {fitting or 'none'}"
        ) from None
    _check_alone(module, name, layer)
    if bound <= 0 or bias_bound < 0 or (slot_kind is SlotKind.LOW_RANK and rank < 1):
        raise SlotError(
            f"slot {name!r}: bound must be above 0, bias_bound 0 or more and rank 1 or more, "
            f"got {bound}, {bias_bound} and {rank}"
        )
    if slot_kind is SlotKind.AFFINE:
        if not _fits(slot_kind, layer):
            raise SlotError(
                f"affine slot {name!r} needs a layer with weight and bias, one value of the bias "
                f"for each row of the weight, got {layer}"
            )
        out = layer.get_parameter("weight").shape[0]
        return SlotSpec(name, slot_kind, out, 0, 0, False, bound, bias_bound)
    if not isinstance(layer, nn.Linear):
        advice = "; try kind = 'affine'" if _fits(SlotKind.AFFINE, layer) else ""
        raise SlotError(f"{kind} slot {name!r} needs nn.Linear, got {layer}{advice}")
    out, in_ = layer.weight.shape
    rank = rank if slot_kind is SlotKind.LOW_RANK else 0
    has_bias = layer.bias is not None
    return SlotSpec(
        name, slot_kind, out, in_, rank, has_bias, bound, bias_bound if has_bias else 0.0
    )


def _check_alone(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Raise SlotError where another layer, or the same one by another name, would change too."""
    own = {id(parameter) for parameter in layer.parameters(recurse=False)}
    others = [
        repr(path)
        for path, other in module.named_modules(remove_duplicate=False)
        if path != name and not own.isdisjoint(map(id, other.parameters(recurse=False)))
    ]
    if others:
        raise SlotError(
            f"slot {name!r} shares its parameters with {', '.join(others)}: an edit would change "
            "more than the slot; register the layer once, and give it weights of its own"
        )


def _fits(kind: SlotKind, layer: nn.Module) -> bool:
    """Whether a layer can be a slot of this kind; rows of a transposed weight are no channels."""
    if kind is not SlotKind.AFFINE:
        return isinstance(layer, nn.Linear)
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return False
    return bias.shape == weight.shape[:1] and not getattr(layer, "transposed", False)


def clip(slots: tuple[SlotSpec, ...], edit: Mapping[str, Tensor]) -> Edit:
    """Clamp each tensor to its slot's bound: clip(·, ±ε_l)."""
    return {
        f"{s.name}.{suffix}": edit[f"{s.name}.{suffix}"].clamp(-limit, limit)
        for s in slots
        for suffix, limit in s.limits().items()
    }


def compose(slots: tuple[SlotSpec, ...], *edits: Mapping[str, Tensor]) -> Edit:
    """Sum of changes: element by element, low-rank factors stacked along the rank."""
    stacked = {"a": -2, "b": -1}
    return {
        name: torch.cat([e[name] for e in edits], dim=stacked[suffix])
        if suffix in stacked
        else torch.stack([e[name] for e in edits]).sum(0)
        for s in slots
        for suffix in s.tensors()
        for name in (f"{s.name}.{suffix}",)
    }


def effective_parameters(
    module: nn.Module, slots: tuple[SlotSpec, ...], change: Mapping[str, Tensor]
) -> Edit:
    """Parameter path -> base + change, for the parameters that slots touch.

    change: as from `compose`; each tensor [...] or [D, ...], the result likewise.
    """
    parameters: Edit = {}
    for slot in slots:
        layer = module.get_submodule(slot.name)
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        delta = {suffix: change[f"{slot.name}.{suffix}"] for suffix in slot.tensors()}
        match slot.kind:
            case SlotKind.DENSE:
                parameters[f"{slot.name}.weight"] = weight + delta["weight"]
            case SlotKind.LOW_RANK:
                parameters[f"{slot.name}.weight"] = weight + delta["b"] @ delta["a"]
            case SlotKind.AFFINE:
                assert isinstance(bias, Tensor)
                scale = 1 + delta["scale"]
                across = scale.reshape(*scale.shape, *[1] * (weight.dim() - 1))
                parameters[f"{slot.name}.weight"] = weight * across
                parameters[f"{slot.name}.bias"] = bias * scale + delta["shift"]
        if "bias" in delta:
            assert isinstance(bias, Tensor)
            parameters[f"{slot.name}.bias"] = bias + delta["bias"]
    return parameters


def edited_forward(
    module: nn.Module,
    slots: tuple[SlotSpec, ...],
    change: Mapping[str, Tensor],
    inputs: tuple[Tensor, ...],
) -> Tensor:
    """Run `module` for D devices at once, each with its own change.

    change: tensors [D, ...]; inputs: tensors [D, n, ...]. Returns [D, n, outputs].
    """

    def one_device(parameters: Edit, *device_inputs: Tensor) -> Tensor:
        output: Tensor = functional_call(module, parameters, device_inputs)
        return output

    parameters = effective_parameters(module, slots, change)
    output: Tensor = vmap(one_device)(parameters, *inputs)
    return output


@contextmanager
def applied(
    module: nn.Module, slots: tuple[SlotSpec, ...], change: Mapping[str, Tensor]
) -> Iterator[nn.Module]:
    """Edit `module` in place for a while; leaving restores the base bit for bit."""
    with torch.no_grad():
        parameters = effective_parameters(module, slots, change)
        base = {name: module.get_parameter(name).detach().clone() for name in parameters}
        try:
            for name, value in parameters.items():
                module.get_parameter(name).copy_(value)
            yield module
        finally:
            for name, value in base.items():
                module.get_parameter(name).copy_(value)


def base_tensors(module: nn.Module, slots: tuple[SlotSpec, ...]) -> Edit:
    """`SLOT.SUFFIX` -> what a program's slot holds before any edit, with the shapes of `feeds`."""
    base: Edit = {}
    for slot in slots:
        layer = module.get_submodule(slot.name)
        for suffix, shape in slot.feeds().items():
            match suffix:
                case "weight" | "bias":
                    value = layer.get_parameter(suffix).detach().clone()
                case "scale":
                    value = torch.ones(shape)
                case _:
                    value = torch.zeros(shape)
            base[f"{slot.name}.{suffix}"] = value
    return base
