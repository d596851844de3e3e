"""One edit for all: what the adapter would be worth if it ignored the window."""

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals


@rivals.register("constant-edit")
class ConstantEdit(Rival):
    """The mean edit of the training devices, given to every device."""

    def scores(self, setting: Setting) -> Tensor:
        with torch.inference_mode():
            edit, _ = setting.personaliser.adapter(setting.train.observations)
        count = len(setting.test)
        return setting.score({n: v.mean(0).expand(count, *v.shape[1:]) for n, v in edit.items()})
