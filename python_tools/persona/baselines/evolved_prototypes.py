"""Prototypes after a drift: centres that followed it, and group edits that were fitted to it.

    c_k → c'_k, P_k → P'_k        from the latents of devices as they are since the drift
    k = argmin_k ‖z − c'_k‖       the nearest centre; no edit of the device's own

`nearest-centre` is the same with the bank as it was. The drift is `evaluation.drift`, a stream: the
adapter's devices go through it, and leave their latents, or their labels too. What either bank has
come to is also seen on devices without that drift, in the same table.
"""

from typing import ClassVar

import numpy as np
from torch import Tensor

from persona.baselines.base import Rival, Setting, rivals
from persona.baselines.nearest_centre import by_nearest_centre
from persona.data.base import Split
from persona.data.stable_splits import seed_of
from persona.data.streams import streams
from persona.training.devices import Devices, Fleet, edited_part
from persona.training.refinement import followed, refitted


@rivals.register("followed-prototypes")
class FollowedPrototypes(Rival):
    """The bank moved with the latents of drifted devices: no labels are needed."""

    trains: ClassVar[bool] = True

    def applies(self, setting: Setting) -> bool:
        return super().applies(setting) and setting.config.evaluation.drift is not None

    def fit(self, setting: Setting) -> None:
        adapter, bank = setting.personaliser.adapter, setting.personaliser.bank
        self.drifted = _drifted(setting, "adapter")
        latents = adapter.codes(self.drifted.observations).flatten(1)
        weight = len(self.drifted) / bank.count
        self.bank = followed(bank, adapter, latents, weight, setting.seed)

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        return by_nearest_centre(self.bank, setting, fleet)


@rivals.register("refitted-prototypes")
class RefittedPrototypes(FollowedPrototypes):
    """The same, then fitted to drifted devices with labels, and chosen on drifted validation."""

    def fit(self, setting: Setting) -> None:
        super().fit(setting)
        module, _ = edited_part(setting.backbone, setting.slots)
        self.bank, _ = refitted(
            self.bank,
            setting.personaliser.adapter,
            module,
            self.drifted,
            _drifted(setting, "validation"),
            setting.config.prototypes,
            setting.seed,
            lambda _done, _all: None,
        )
        self.bank.round_to_half()


def _drifted(setting: Setting, split: Split) -> Devices:
    """The devices of a split as they are since the drift."""
    assert setting.config.evaluation.drift is not None
    stream = streams[setting.config.evaluation.drift]()
    rng = np.random.default_rng(seed_of("drift", split, setting.seed))
    return setting.fleet(stream.spoil(setting.devices(split), rng)).tensors
