"""Prototypes chosen by the nearest centre of latents, the assignment that clustering implies."""

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.training.devices import Fleet


@rivals.register("nearest-centre")
class NearestCentre(Rival):
    """The group edit whose centre is nearest to the device's latent; no edit of its own."""

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        bank = setting.personaliser.bank
        with torch.inference_mode():
            codes = setting.personaliser.adapter.codes(fleet.tensors.observations).flatten(1)
            nearest = torch.cdist(codes, bank.centres).argmin(1)
            return setting.outputs(bank.chosen(nearest), fleet.tensors)
