"""Which version a device shall have: rules without a database, for one line of versions.

A line has a stable version and, at times, a candidate for a percentage of devices. Devices are
chosen by a hash of their id and the candidate's digest: the same ones as the percentage grows,
others for the next candidate.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

_STEPS = 1_000_000


class RolloutError(ValueError):
    """A change that cannot be made now. code: of the problem document."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class KnownVersion:
    """A version as the database knows it; see `persona_cloud.tables.Version`."""

    bundle: str
    model: str
    run: str
    path: str
    published_at: datetime
    retired_at: datetime | None
    withdrawn: bool


@dataclass(frozen=True)
class Line:
    """A line of versions and its rollout at one moment; see `persona_cloud.tables.Rollout`.

    versions: by their bundles' digests, the oldest first.
    """

    name: str
    versions: Mapping[str, KnownVersion]
    stable: str
    candidate: str | None
    percent: float
    max_failure_rate: float
    min_reports: int
    revision: int
    stopped_because: str | None
    changed_at: datetime

    def chosen(self, device: str) -> str:
        """The version that the percentage gives a device."""
        if self.candidate is not None and place(device, self.candidate) < self.percent / 100:
            return self.candidate
        return self.stable

    def serves(self, bundle: str, now: datetime, retention: timedelta) -> bool:
        """Whether edits are still made for devices that have this version.

        For the stable one and the candidate always; for a former stable one for as long as
        `retention`; for one that was withdrawn or never rolled out not.
        """
        if bundle in (self.stable, self.candidate):
            return True
        known = self.versions.get(bundle)
        if known is None or known.retired_at is None:
            return False
        return now < known.retired_at + retention


def place(device: str, candidate: str) -> float:
    """Where a device stands among all for this candidate: from 0 to below 1, always the same."""
    hashed = hashlib.sha256(f"{candidate}\0{device}".encode()).digest()
    return int.from_bytes(hashed[:8]) % _STEPS / _STEPS


def fails_too_often(failed: int, reported: int, max_rate: float, min_reports: int) -> bool:
    """Whether so many devices that failed, of those that reported, stop a candidate."""
    return reported >= min_reports and failed > max_rate * reported
