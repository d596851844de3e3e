"""An oracle's choice among the prototypes: how much a better assignment could bring at most.

    k = argmax_k score(P_k; the device's queries and their answers)

It reads the very answers that it is scored by, which nothing that serves a device can: a bound,
never a way to choose. No assignment reaches it, luck included: of K group edits the best on a few
queries is ahead of the others by chance alone.
"""

from typing import ClassVar

import torch
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.evaluation.metrics import score
from persona.training.devices import Fleet


@rivals.register("oracle-prototype")
class OraclePrototype(Rival):
    """The group edit that scores best on the device's queries; no edit of its own."""

    uses_labels: ClassVar[bool] = True

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        tensors, bank = fleet.tensors, setting.personaliser.bank
        scores = []
        with torch.inference_mode():
            for k in range(bank.count):
                everyone = torch.full((len(tensors),), k)
                said = setting.outputs(bank.chosen(everyone), tensors)
                scores.append(score(setting.task, said, tensors.targets, tensors.absent))
            best = torch.stack(scores).argmax(0)
            return setting.outputs(bank.chosen(best), tensors)
