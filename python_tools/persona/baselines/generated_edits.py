"""Rivals that learn, as the adapter does, to give devices edits: encoder, training and outputs."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from persona.baselines.base import Rival, Setting
from persona.formats.slots import SlotKind, SlotSpec
from persona.method.slots import Edit
from persona.training.devices import Fleet, edited_part, losses
from persona.training.pipeline import build_adapter
from persona.training.stages import Schedule, index_batches, minimise


class EditGenerator(nn.Module, ABC):
    """Observations [D, ...] -> edits, `SLOT.SUFFIX` -> [D, ...]. No bound clips them."""

    @abstractmethod
    def forward(self, observations: Tensor) -> Edit:
        """One edit for each device."""


class GeneratedEdits(Rival):
    """Trained on the adapter's devices with the adapter's budget, chosen on validation devices."""

    trains: ClassVar[bool] = True

    @abstractmethod
    def generator(self, setting: Setting) -> EditGenerator:
        """An untrained generator for the setting's slots and observations."""

    def fit(self, setting: Setting) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            self.trained = self.generator(setting)
            _train(self.trained, setting)

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        with torch.inference_mode():
            change = self.trained(fleet.tensors.observations)
        return setting.outputs(change, fleet.tensors)


def _train(generator: EditGenerator, setting: Setting) -> None:
    module, _ = edited_part(setting.backbone, setting.slots)
    config = setting.config.adapter
    train, validation = setting.train, setting.validation.tensors
    batches = index_batches(len(train), config.batch, torch.Generator().manual_seed(setting.seed))

    def loss() -> Tensor:
        devices = train.subset(next(batches))
        return losses(module, setting.slots, generator(devices.observations), devices).mean()

    def check() -> float:
        edit = generator(validation.observations)
        return float(losses(module, setting.slots, edit, validation).mean())

    minimise(generator, loss, check, Schedule.of(config), lambda _done, _all: None)


def encoder(setting: Setting) -> nn.Module:
    """The adapter's own window encoder before any edit was made with it: observations -> z₀."""
    made: nn.Module = build_adapter(
        setting.backbone, setting.slots, setting.observation, setting.config.adapter
    ).encoder
    made.load_state_dict(setting.window_encoder.state_dict())
    return made


def blank(slot: SlotSpec) -> dict[str, Tensor]:
    """Tensors of an edit that changes nothing, but from which gradient steps can begin.

    Zeros, except a low-rank slot's b: with both factors 0 neither would have a gradient.
    """
    tensors = {suffix: torch.zeros(shape) for suffix, shape in slot.tensors().items()}
    if slot.kind is SlotKind.LOW_RANK:
        limit = slot.limits()["b"]
        tensors["b"].uniform_(-limit, limit)
    return tensors
