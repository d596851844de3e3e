"""Late fusion: the device's scores plus a share of the cloud's, which are older.

    score(c) = score_device(c) + w · score_cloud(c)

Both are trained as softmax scores, so that they add as log odds. w is chosen on validation devices
and may be 0. The toughest rival in ranking; it needs the cloud's scores for every candidate.
"""

from typing import ClassVar

from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.baselines.validation_choice import best, held_back
from persona.data.next_item import NextItem
from persona.training.devices import Fleet
from persona.training.ranker_lesson import candidates_of

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""w, among which validation devices choose."""


@rivals.register("cloud-only")
class CloudOnly(Rival):
    """A GRU over the whole window in the cloud, without what the device sees now."""

    trains: ClassVar[bool] = True

    def applies(self, setting: Setting) -> bool:
        return isinstance(setting.data, NextItem)

    def fit(self, setting: Setting) -> None:
        self.ranker = setting.cloud_ranker

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:  # noqa: ARG002
        return self.ranker.answers(fleet.tensors.observations, candidates_of(fleet.devices))


@rivals.register("late-fusion")
class LateFusion(CloudOnly):
    """The device's scores plus w times those of a cloud GRU over the whole window."""

    def fit(self, setting: Setting) -> None:
        super().fit(setting)
        held = held_back(setting)
        self.weight = best(setting, ((w, self._fused(setting, held, w)) for w in WEIGHTS))

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        return self._fused(setting, fleet, self.weight)

    def _fused(self, setting: Setting, fleet: Fleet, weight: float) -> Tensor:
        return setting.static_outputs(fleet.tensors) + weight * super().outputs(setting, fleet)
