"""Edits computed alone, to compare with those that were made among many others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from persona.bundles import Bundle
from persona.formats import container
from persona.formats.observation import Observation
from persona.issuing import Issuer, Request
from persona.runs import Run
from persona.training.devices import observe
from persona.training.pipeline import open_dataset

REQUESTS_EACH = 2
"""How often a device asks before the next device's turn comes: both are under way together."""

_RELATIVE, _ABSOLUTE = 2e-3, 1e-6


@dataclass(frozen=True)
class EditsAlone:
    """Observations, no two the same, and what each one's edit is when nothing else is computed.

    More of them than requests are ever under way, and so whatever was mixed up shows.
    """

    devices: int
    observations: Sequence[Observation]
    prototypes: Sequence[int | None]
    values: np.ndarray

    def device(self, request: int) -> int:
        """Whose request that is, of a long row of requests."""
        return request // REQUESTS_EACH % self.devices

    def observation(self, request: int) -> Observation:
        """What is sent with it."""
        return self.observations[request % len(self.observations)]

    def check(self, request: int, prototype: int | None, data: bytes) -> None:
        """Whether an edit is the one that belongs to this request."""
        alone = request % len(self.observations)
        assert prototype == self.prototypes[alone]
        np.testing.assert_allclose(_values(data), self.values[alone], _RELATIVE, _ABSOLUTE)

    def nearest(self) -> float:
        """How far apart the two edits most alike are, in tolerances of `check`."""
        found = np.inf
        for one in self.values:
            apart = np.abs(self.values - one) / (_ABSOLUTE + _RELATIVE * np.abs(one))
            found = min(found, np.partition(apart.max(axis=1), 1)[1])
        return float(found)


def edits_alone(run: Run, bundle: Bundle, devices: int) -> EditsAlone:
    """Edits for so many devices' observations, and a few more, each from a forward of its own."""
    data, issuer = open_dataset(run.record.config, None), Issuer(run, bundle)
    observations = observe(
        run.backbone, run.record.observation, data.devices("test", devices + 3, 0)
    )
    issued = [issuer.issue([Request("alone", 1, observation)])[0] for observation in observations]
    values = np.stack([_values(one.data) for one in issued])
    return EditsAlone(devices, observations, [one.info.prototype for one in issued], values)


def _values(data: bytes) -> np.ndarray:
    """Every number that an edit holds, its probe included."""
    tensors, _ = container.decode(data)
    return np.concatenate(
        [tensors[name].array().astype(np.float64).ravel() for name in sorted(tensors)]
    )
