"""One edit for all: what the adapter would be worth if it ignored the window."""

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.training.devices import Fleet


@rivals.register("constant-edit")
class ConstantEdit(Rival):
    """The mean edit of the training devices, given to every device."""

    def fit(self, setting: Setting) -> None:
        with torch.inference_mode():
            edit, _ = setting.personaliser.adapter(setting.train.observations)
        self.edit = {name: value.mean(0) for name, value in edit.items()}

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        count = len(fleet.tensors)
        change = {name: value.expand(count, *value.shape) for name, value in self.edit.items()}
        return setting.outputs(change, fleet.tensors)
