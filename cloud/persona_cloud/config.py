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

    max_list: entries in one answer.
    """

    max_json_bytes: int = 65_536
    max_list: int = 200


@dataclass(frozen=True)
class CloudConfig:
    """run, bundle: folders of `persona train` and of `persona export`.

    database_url: for SQLAlchemy; a SQLite file in the run folder where there is none.
    token_lifetime: how long an enrolled device may ask. edit_lifetime: how long an edit is valid.
    """

    run: Path
    bundle: Path
    database_url: str | None = None
    token_lifetime: timedelta = timedelta(days=30)
    edit_lifetime: timedelta = timedelta(days=7)
    limits: Limits = Limits()
    attest: Attest = accept_all

    @property
    def database(self) -> str:
        """The URL of the database in use."""
        return self.database_url or f"sqlite:///{self.run / 'cloud.sqlite'}"
