"""Normalisation layers of a frozen backbone, with statistics and affine parts for each device.

    y = γ_d (x − μ_d) / √(σ²_d + ε) + β_d

for devices d side by side in one batch. The layers themselves are never changed: hooks compute
their outputs anew while a forward pass lasts.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from persona.backbones import Backbone

Affine = dict[str, Tensor]
"""`LAYER.weight` and `LAYER.bias` -> values of each device [D, ...]."""


def batch_norms(backbone: Backbone) -> dict[str, _BatchNorm]:
    """The batch normalisation layers that have running statistics, by path."""
    return {
        name: layer
        for name, layer in backbone.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def affine_norms(backbone: Backbone) -> dict[str, nn.Module]:
    """The layers whose γ and β may differ between devices: batch, layer or group normalisation."""
    others = {
        name: layer
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.LayerNorm | nn.GroupNorm)
    }
    return {
        name: layer
        for name, layer in (batch_norms(backbone) | others).items()
        if isinstance(layer.weight, Tensor) and isinstance(layer.bias, Tensor)
    }


def shared_affine(backbone: Backbone, count: int) -> Affine:
    """The backbone's own γ and β, copied for `count` devices."""
    return {
        f"{name}.{part}": torch.stack([layer.get_parameter(part).detach()] * count)
        for name, layer in affine_norms(backbone).items()
        for part in ("weight", "bias")
    }


@dataclass
class DeviceNorms:
    """A backbone whose normalisation belongs to each of D devices.

    strength: N, how many samples the source statistics count for beside a window's n, as in
    μ = (N μ_source + n μ_window) / (N + n) and σ² likewise (Schneider et al. 2020, arXiv
    2006.16971, section 3); None leaves the source's. affine: γ and β where they differ.
    """

    backbone: Backbone
    strength: float | None
    affine: Affine = field(default_factory=dict)
    statistics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def window(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Windows [D, w, ...] -> outputs [D, w, classes], by statistics that they bring along."""
        return self._forward(inputs, estimate=self.strength is not None)

    def queries(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Queries [D, q, ...] -> outputs [D, q, classes], by the statistics of the last window."""
        return self._forward(inputs, estimate=False)

    def _forward(self, inputs: tuple[Tensor, ...], estimate: bool) -> Tensor:
        shape = inputs[0].shape[:2]
        found = []
        for name, layer in (batch_norms(self.backbone) | affine_norms(self.backbone)).items():

            def replace(
                layer: nn.Module, taken: tuple[Tensor], _given: Tensor, name: str = name
            ) -> Tensor:
                return self._normalise(name, layer, taken[0].unflatten(0, shape), estimate)

            found.append(layer.register_forward_hook(replace))
        try:
            output: Tensor = self.backbone(*(x.flatten(0, 1) for x in inputs))
        finally:
            for hook in found:
                hook.remove()
        return output.unflatten(0, shape)

    def _normalise(self, name: str, layer: nn.Module, x: Tensor, estimate: bool) -> Tensor:
        """x [D, n, ...] -> the layer's output [D · n, ...]."""
        first = 2
        if isinstance(layer, _BatchNorm):
            if estimate:
                self.statistics[name] = self._mixed(layer, x)
            mean, variance = (
                _placed(s, x, first) for s in self.statistics.get(name, _source(layer))
            )
            y = (x - mean) / (variance + layer.eps).sqrt()
        elif isinstance(layer, nn.GroupNorm):
            y = F.group_norm(x.flatten(0, 1), layer.num_groups, eps=layer.eps).view_as(x)
        else:
            assert isinstance(layer, nn.LayerNorm)
            y = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
            first = x.dim() - len(layer.normalized_shape)
        for part in ("weight", "bias"):
            own, shared = self.affine.get(f"{name}.{part}"), getattr(layer, part)
            if shared is not None:
                placed = _placed(shared[None] if own is None else own, x, first)
                y = y * placed if part == "weight" else y + placed
        return y.flatten(0, 1)

    def _mixed(self, layer: _BatchNorm, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x [D, n, C, ...] mixed with the source's, each [D, C]."""
        assert self.strength is not None
        others = [i for i in range(x.dim()) if i not in (0, 2)]
        variance, mean = torch.var_mean(x, dim=others, correction=0)
        share = x.shape[1] / (self.strength + x.shape[1])
        source_mean, source_variance = _source(layer)
        return (
            share * mean + (1 - share) * source_mean,
            share * variance + (1 - share) * source_variance,
        )


def _source(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Mean and variance of training, each [1, C]."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean[None], layer.running_var[None]


def _placed(values: Tensor, x: Tensor, first: int) -> Tensor:
    """Values [D or 1, ...] of devices, shaped to meet x [D, n, ...] from axis `first` on."""
    devices, *rest = values.shape
    after = x.dim() - first - len(rest)
    return values.reshape(devices, *[1] * (first - 1), *rest, *[1] * after)
