"""Prior correction: the class mix of the window, estimated by EM, corrects the logits.

logits + log(π_EM / π_train)      (Saerens, Latinne and Decaestecker 2002)
"""

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.formats.observation import PooledSpec
from persona.training.devices import Fleet


@rivals.register("prior-correction")
class PriorCorrection(Rival):
    """Logits corrected by the window's class mix, as estimated by expectation maximisation."""

    def applies(self, setting: Setting) -> bool:
        return isinstance(setting.observation, PooledSpec)

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        spec = setting.observation
        assert isinstance(spec, PooledSpec)
        prior = fleet.tensors.vectors[:, spec.prior_columns].clamp_min(1e-4)
        shift = prior.log() - torch.tensor(spec.training_mass).log()
        return setting.static_outputs(fleet.tensors) + shift[:, None]
