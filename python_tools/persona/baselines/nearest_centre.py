"""Prototypes chosen by the nearest centre of latents, the assignment that clustering implies."""

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.method.evolution import nearest
from persona.method.prototypes import PrototypeBank
from persona.training.devices import Fleet


def by_nearest_centre(bank: PrototypeBank, setting: Setting, fleet: Fleet) -> Tensor:
    """What devices answer under the group edits of a bank whose centres are nearest."""
    with torch.inference_mode():
        latents = setting.personaliser.adapter.codes(fleet.tensors.observations).flatten(1)
        return setting.outputs(bank.chosen(nearest(bank.centres, latents)), fleet.tensors)


@rivals.register("nearest-centre")
class NearestCentre(Rival):
    """The group edit whose centre is nearest to the device's latent; no edit of its own."""

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        return by_nearest_centre(setting.personaliser.bank, setting, fleet)
