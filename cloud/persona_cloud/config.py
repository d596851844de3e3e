"""What a host decides about its cloud."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Enrolment:
    """What a new device says of itself.

    attestation: the platform's proof that this is a genuine app on a genuine device.
    """

    platform: Literal["android", "ios", "other"] = "other"
    attestation: str | None = None


Attest = Callable[[Enrolment], bool]
"""Whether a device may enrol: where a host plugs in Play Integrity or App Attest."""


def accept_all(_: Enrolment) -> bool:
    """Every device may enrol."""
    return True


@dataclass(frozen=True)
class Limits:
    """max_json_bytes: of every body but observations, whose limit is the bundle's.

    max_list: entries in one answer. max_waiting: edits that a process makes or has waiting; more
    are refused with 503. max_batch: observations in one forward.
    """

    max_json_bytes: int = 65_536
    max_list: int = 200
    max_waiting: int = 48
    max_batch: int = 32


@dataclass(frozen=True)
class Quotas:
    """How often is too often, as `120/minute`; None for no quota.

    storage: where counts are kept, `memory://` of each process or `redis://host:6379`.
    """

    requests_per_address: str | None = "6000/minute"
    enrolments_per_address: str | None = "1000/hour"
    edits_per_device: str | None = "120/minute"
    storage: str = "memory://"


@dataclass(frozen=True)
class CloudConfig:
    """run, bundle: folders of `persona train` and of `persona export`.

    database_url: for SQLAlchemy; a SQLite file in the run folder where there is none.
    token_lifetime: how long a device may ask before it renews its token. renewal_grace: for how
    long after that it still may renew. edit_lifetime: how long an edit is valid. proxies: how many
    in front of us add `X-Forwarded-For`; one that is not there would let a client choose its
    address. retention: for how long after another version took its place devices that still have
    a version get edits for it. versions: below which folder versions lie that operators publish;
    `versions` in the run where none is named.
    """

    run: Path
    bundle: Path
    database_url: str | None = None
    token_lifetime: timedelta = timedelta(days=1)
    renewal_grace: timedelta = timedelta(days=90)
    edit_lifetime: timedelta = timedelta(days=7)
    limits: Limits = Limits()
    quotas: Quotas = Quotas()
    proxies: int = 0
    attest: Attest = accept_all
    retention: timedelta = timedelta(days=30)
    versions: Path | None = None

    @property
    def database(self) -> str:
        """The URL of the database in use."""
        return self.database_url or default_database(self.run)

    @property
    def publishable(self) -> Path:
        """The folder below which versions lie that may be published."""
        return self.versions or self.run / "versions"


def default_database(run: Path) -> str:
    """The URL of the SQLite file in a run folder."""
    return f"sqlite:///{run / 'cloud.sqlite'}"
