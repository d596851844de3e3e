"""Prototypes chosen by the nearest centre of latents, the assignment that clustering implies."""

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals


@rivals.register("nearest-centre")
class NearestCentre(Rival):
    """The group edit whose centre is nearest to the device's latent; no edit of its own."""

    def scores(self, setting: Setting) -> Tensor:
        bank = setting.personaliser.bank
        with torch.inference_mode():
            codes = setting.personaliser.adapter.codes(setting.test.observations).flatten(1)
            nearest = torch.cdist(codes, bank.centres).argmin(1)
            return setting.score(bank.chosen(nearest))
