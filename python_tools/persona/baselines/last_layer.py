"""A classifier's last linear layer: what it takes, for rivals that adjust it without gradients."""

import torch
from torch import Tensor, nn

from persona.backbones import Backbone


def last_linear(backbone: Backbone) -> nn.Linear | None:
    """The linear layer of the head whose outputs are the logits; None where there is none."""
    layers = [layer for layer in backbone.head.modules() if isinstance(layer, nn.Linear)]
    if backbone.task != "classification" or not layers:
        return None
    with torch.no_grad():
        features, logits = taken(backbone, tuple(x[None] for x in backbone.example_inputs()))
        said = layers[-1](features)
    return layers[-1] if said.shape == logits.shape and torch.allclose(said, logits) else None


def taken(backbone: Backbone, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Inputs [D, n, ...] -> what the head's last linear layer takes [D, n, F], logits [D, n, C]."""
    shape = inputs[0].shape[:2]
    layer = [m for m in backbone.head.modules() if isinstance(m, nn.Linear)][-1]
    found: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _layer, given: found.append(given[0]))
    try:
        logits = backbone(*(x.flatten(0, 1) for x in inputs))
    finally:
        hook.remove()
    return found[-1].unflatten(0, shape), logits.unflatten(0, shape)
