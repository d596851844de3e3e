"""What a rival is: another way to serve devices, scored on the same devices in the same run."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from persona.backbones.base import Task
from persona.evaluation.metrics import score
from persona.formats.observation import ObservationSpec
from persona.formats.slots import SlotSpec
from persona.method.personalise import Personaliser
from persona.method.slots import Edit, edited_forward
from persona.registry import Registry
from persona.training.devices import DeviceTensors


@dataclass(frozen=True)
class Setting:
    """The trained system and the devices that a rival is scored on.

    module: the part of the frozen backbone that edits run through. train: devices that the
    adapter was trained on; a rival may use them, never the test devices' targets.
    """

    task: Task
    module: nn.Module
    slots: tuple[SlotSpec, ...]
    observation: ObservationSpec
    personaliser: Personaliser
    train: DeviceTensors
    test: DeviceTensors

    def nothing(self) -> Edit:
        """A change of zeros for every test device."""
        return {
            f"{s.name}.{x}": torch.zeros(len(self.test), *shape)
            for s in self.slots
            for x, shape in s.tensors().items()
        }

    def score(self, change: Edit) -> Tensor:
        """Each test device's score [D] under its change, tensors [D, ...]."""
        with torch.inference_mode():
            outputs = edited_forward(self.module, self.slots, change, self.test.hidden)
            return score(self.task, outputs, self.test.targets)


class Rival(ABC):
    """One way to serve devices without Persona's own edit."""

    def applies(self, setting: Setting) -> bool:
        """Whether the rival exists for this task."""
        return bool(setting.slots)

    @abstractmethod
    def scores(self, setting: Setting) -> Tensor:
        """Each test device's score [D]."""


rivals: Registry[type[Rival]] = Registry("rival", "persona.baselines")
