"""One edit for all devices, trained as long as the adapter: what more training alone is worth."""

import torch
from torch import Tensor, nn

from persona.baselines.base import Setting, rivals
from persona.baselines.generated_edits import EditGenerator, GeneratedEdits, blank
from persona.formats.slots import SlotSpec
from persona.method.slots import Edit


class _One(EditGenerator):
    """The same learned edit, whatever is observed."""

    def __init__(self, slots: tuple[SlotSpec, ...]) -> None:
        super().__init__()
        self.names = [f"{slot.name}.{suffix}" for slot in slots for suffix in slot.tensors()]
        self.edit = nn.ParameterList(
            nn.Parameter(value) for slot in slots for value in blank(slot).values()
        )

    def forward(self, observations: Tensor) -> Edit:
        count = len(observations)
        return {n: torch.stack([v] * count) for n, v in zip(self.names, self.edit, strict=True)}


@rivals.register("static-same-budget")
class StaticSameBudget(GeneratedEdits):
    """One unbounded edit trained on all training devices with the adapter's budget."""

    def generator(self, setting: Setting) -> EditGenerator:
        return _One(setting.slots)
