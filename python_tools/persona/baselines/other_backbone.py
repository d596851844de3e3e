"""Rivals that serve everybody with a backbone of their own, trained with the same budget."""

from typing import ClassVar

import torch
from torch import Tensor

from persona.backbones import Backbone
from persona.baselines.base import Rival, Setting
from persona.data import Dataset
from persona.data.base import Arrays
from persona.training.config import RunConfig
from persona.training.devices import Fleet
from persona.training.pipeline import give_items
from persona.training.stages import train_backbone

_CHUNK = 512
"""Queries whose outputs are computed at once."""


class OtherBackbone(Rival):
    """Base of such rivals: their `fit` calls `train`."""

    trains: ClassVar[bool] = True
    backbone: Backbone

    def train(self, setting: Setting, data: Dataset, config: RunConfig) -> None:
        """Train a backbone of the same kind, by the settings of `config`, on `data`.

        Raises TypeError where the backbone has no such setting, and ConfigError where it cannot
        take the ranker's item table though `config` says so.
        """
        settings = {**data.backbone_settings(), **config.backbone.settings}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            self.backbone = type(setting.backbone)(**settings)
            if config.backbone.item_table == "ranker":
                give_items(self.backbone, setting.cloud_ranker)
            self.backbone_curve = train_backbone(
                self.backbone, data, config.backbone, setting.seed, lambda _done, _all: None
            )

    def prepared(self, queries: Arrays) -> Arrays:
        """What the app makes of one device's queries before it asks the backbone."""
        return queries

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:  # noqa: ARG002
        shape = fleet.tensors.targets.shape
        queries = (
            torch.stack([torch.from_numpy(x) for x in column])
            for column in zip(*(self.prepared(d.queries) for d in fleet.devices), strict=True)
        )
        chunks = zip(*(q.flatten(0, 1).split(_CHUNK) for q in queries), strict=True)
        with torch.inference_mode():
            said = torch.cat([self.backbone(*inputs) for inputs in chunks])
        return said.unflatten(0, shape)
