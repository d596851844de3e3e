"""What a rival is: another way to serve devices, scored on the same devices in the same run."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from persona.backbones import Backbone
from persona.backbones.base import Task
from persona.data import Dataset, Device
from persona.data.base import Split
from persona.formats.observation import ItemsSpec, ObservationSpec
from persona.formats.slots import SlotSpec
from persona.method.cloud_ranker import CloudRanker
from persona.method.encoders import RankerEncoder
from persona.method.personalise import Personaliser
from persona.method.slots import Edit, edited_forward
from persona.registry import Registry
from persona.training.config import RunConfig
from persona.training.devices import Devices, DeviceTensors, Fleet, edited_part, to_tensors
from persona.training.pipeline import (
    DEVICE_SEED,
    Observed,
    WindowEncoder,
    build_encoder,
    calibrate_encoder,
)
from persona.training.ranker_lesson import teach_ranker
from persona.training.stages import Curve

_CHUNK = 128
"""Devices whose outputs are computed at once: full rankings need the memory."""


@dataclass(frozen=True)
class Setting:
    """A trained system: what a rival may use to prepare itself."""

    config: RunConfig
    data: Dataset
    backbone: Backbone
    slots: tuple[SlotSpec, ...]
    observation: ObservationSpec
    personaliser: Personaliser
    observed: Observed

    @property
    def train(self) -> DeviceTensors:
        """Devices that the adapter was trained on."""
        return self.observed.train

    @property
    def validation(self) -> Fleet:
        """Devices that every choice is made on: a rival chooses its settings here alone."""
        return self.observed.validation

    @property
    def task(self) -> Task:
        """What the backbone does, and so what its outputs are."""
        return self.backbone.task

    @property
    def seed(self) -> int:
        """Of the training; whatever a rival draws begins here."""
        return self.config.seed

    @cached_property
    def window_encoder(self) -> WindowEncoder:
        """The adapter's window encoder as it was before any edit was made with it."""
        a = self.config.adapter
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            made = build_encoder(self.backbone, self.observation, a, self.taught_ranker)
            calibrate_encoder(made, self.observed)
        return made

    @property
    def taught_ranker(self) -> CloudRanker | None:
        """The ranker that the adapter reads histories with, where it has one."""
        encoder = self.personaliser.adapter.encoder
        return encoder.ranker if isinstance(encoder, RankerEncoder) else None

    @cached_property
    def cloud_ranker(self) -> CloudRanker:
        """The cloud's own ranker for rivals that ask it: the adapter's, or one taught for them."""
        if self.taught_ranker is not None:
            return self.taught_ranker
        assert isinstance(self.observation, ItemsSpec)
        ranker, _ = teach_ranker(
            self.data,
            self.observation,
            self.devices("adapter"),
            self.validation.devices,
            max(self.config.backbone.steps, self.config.adapter.steps),
            self.seed,
            lambda _done, _all: None,
        )
        return ranker

    def devices(self, split: Split) -> list[Device]:
        """The devices themselves that `train` or `validation` were made of, drawn again."""
        a = self.config.adapter
        count = a.devices if split == "adapter" else a.validation_devices
        return self.data.devices(split, count, DEVICE_SEED + self.seed)

    def fleet(self, devices: list[Device]) -> Fleet:
        """Devices with what the adapter sees of them and the hidden states of their queries."""
        return Fleet(
            tuple(devices), to_tensors(self.backbone, self.slots, self.observation, devices)
        )

    def nothing(self, count: int) -> Edit:
        """A change of zeros for `count` devices."""
        return {
            f"{s.name}.{x}": torch.zeros(count, *shape)
            for s in self.slots
            for x, shape in s.tensors().items()
        }

    def outputs(self, change: Edit, devices: Devices) -> Tensor:
        """What the edited backbone says to each query [D, q, outputs], under changes [D, ...]."""
        module, _ = edited_part(self.backbone, self.slots)
        found = []
        with torch.inference_mode():
            for index in torch.arange(len(devices)).split(_CHUNK):
                chosen = {name: value[index] for name, value in change.items()}
                hidden = devices.subset(index).hidden
                found.append(edited_forward(module, self.slots, chosen, hidden))
        return torch.cat(found)

    def static_outputs(self, devices: Devices) -> Tensor:
        """What the frozen backbone says without an edit [D, q, outputs]."""
        return self.outputs(self.nothing(len(devices)), devices)


class Rival(ABC):
    """One way to serve devices without Persona's own edit.

    trains: whether `fit` is a training of its own, which a demo leaves out.
    uses_labels: whether it reads labels, of the window or of the queries themselves, which no
    deployed rival has: an upper bound. uses_window_labels: whether it reads those of the window,
    which not every stream has. backbone_curve: of a backbone of its own, after `fit`.
    """

    backbone_curve: Curve | None = None
    trains: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = False
    uses_window_labels: ClassVar[bool] = False

    def applies(self, setting: Setting) -> bool:
        """Whether the rival exists for this task and backbone."""
        return bool(setting.slots)

    def fit(self, setting: Setting) -> None:  # noqa: B027
        """Prepare once for a training: learn from its training devices, choose on validation."""

    @abstractmethod
    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        """What the rival answers to each query of each device, [D, q, outputs].

        Targets of the queries are never read, but by an oracle that `uses_labels`. The work for a
        device is done here, so that its cost can be measured.
        """


rivals: Registry[type[Rival]] = Registry("rival", "persona.baselines")
