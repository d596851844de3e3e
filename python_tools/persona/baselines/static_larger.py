"""A larger backbone for everybody: what more capacity is worth without any edit."""

from typing import ClassVar

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.training.config import ConfigError
from persona.training.devices import Fleet
from persona.training.stages import train_backbone

_CHUNK = 512
"""Queries whose outputs are computed at once."""


@rivals.register("static-larger")
class StaticLarger(Rival):
    """The backbone with the settings of `evaluation.larger`, trained with the backbone's budget."""

    trains: ClassVar[bool] = True

    def applies(self, setting: Setting) -> bool:
        return bool(setting.config.evaluation.larger) and setting.config.backbone.steps > 0

    def fit(self, setting: Setting) -> None:
        config = setting.config.backbone
        settings = {
            **setting.data.backbone_settings(),
            **config.settings,
            **setting.config.evaluation.larger,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            try:
                self.backbone = type(setting.backbone)(**settings)
            except TypeError as error:
                raise ConfigError(
                    f"evaluation.larger: settings of backbone {config.name!r}: {error}"
                ) from None
            train_backbone(
                self.backbone, setting.data, config, setting.seed, lambda _done, _all: None
            )

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:  # noqa: ARG002
        shape = fleet.tensors.targets.shape
        queries = (
            torch.stack([torch.from_numpy(x) for x in column])
            for column in zip(*(d.queries for d in fleet.devices), strict=True)
        )
        chunks = zip(*(q.flatten(0, 1).split(_CHUNK) for q in queries), strict=True)
        with torch.inference_mode():
            said = torch.cat([self.backbone(*inputs) for inputs in chunks])
        return said.unflatten(0, shape)
