"""The tables of the cloud's database; `migrations/` makes and changes them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

Number = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere; SQLite numbers rows by itself only where the type is INTEGER."""


class UtcTime(TypeDecorator[datetime]):
    """Moments in UTC, also where the database forgets the zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value and value.replace(tzinfo=UTC)


class Table(MappedAsDataclass, DeclarativeBase):
    """Base of the tables."""

    type_annotation_map = {datetime: UtcTime, dict[str, Any]: JSON, list[str]: JSON, float: Double}  # noqa: RUF012


class Device(Table):
    """An enrolled device. sequence: of the newest edit handed out, 0 before the first."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(primary_key=True)
    platform: Mapped[str]
    enrolled_at: Mapped[datetime]
    sequence: Mapped[int] = mapped_column(Number, default=0)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)


class DeviceToken(Table):
    """A token of a device, as its digest. used: whether the device has shown it since."""

    __tablename__ = "device_tokens"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used: Mapped[bool] = mapped_column(default=False)


class OperatorKey(Table):
    """A key of an operator, as its digest. scopes: what it may do."""

    __tablename__ = "operator_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)


class IssuedEdit(Table):
    """That an edit was issued, and its latent: float32, little-endian."""

    __tablename__ = "issued_edits"
    __table_args__ = (UniqueConstraint("device", "sequence"),)

    id: Mapped[int] = mapped_column(Number, init=False, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    sequence: Mapped[int] = mapped_column(Number)
    model: Mapped[str]
    bundle: Mapped[str]
    prototype: Mapped[int | None]
    issued_at: Mapped[datetime] = mapped_column(index=True)
    expires_at: Mapped[datetime]
    latent: Mapped[bytes]


class KeptAnswer(Table):
    """The answer to a request with an `Idempotency-Key`. fingerprint: of that request."""

    __tablename__ = "kept_answers"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    edit: Mapped[bytes]
    key_id: Mapped[str]
    signature: Mapped[bytes]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class StoredMeasurement(Table):
    """A latency report. model, bundle, target, precision: copied out, to be filtered by."""

    __tablename__ = "measurements"

    id: Mapped[int] = mapped_column(Number, init=False, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    received_at: Mapped[datetime]
    model: Mapped[str] = mapped_column(index=True)
    bundle: Mapped[str]
    target: Mapped[str]
    precision: Mapped[str]
    document: Mapped[dict[str, Any]]


class Version(Table):
    """A bundle that edits can be made for, with the run that it was exported from.

    line: what versions replace each other under, the name in the run's configuration.
    run, path: folders of the run and of the bundle on the servers' disks.
    published_by: id of the operator's key; None where a server was started with it.
    retired_at: when another one took its place. withdrawn: rolled back or stopped.
    """

    __tablename__ = "versions"

    bundle: Mapped[str] = mapped_column(primary_key=True)
    line: Mapped[str] = mapped_column(index=True)
    model: Mapped[str]
    run: Mapped[str]
    path: Mapped[str]
    published_at: Mapped[datetime]
    published_by: Mapped[str | None]
    retired_at: Mapped[datetime | None] = mapped_column(default=None)
    withdrawn: Mapped[bool] = mapped_column(default=False)


class Rollout(Table):
    """Which version the devices of a line shall have.

    stable: of all devices but the `percent` that shall have the candidate. previous: the stable
    one before. revision: grows with each change. stopped_because: why the last candidate was
    stopped, until another begins.
    """

    __tablename__ = "rollouts"

    line: Mapped[str] = mapped_column(primary_key=True)
    stable: Mapped[str] = mapped_column(ForeignKey("versions.bundle"))
    changed_at: Mapped[datetime]
    previous: Mapped[str | None] = mapped_column(ForeignKey("versions.bundle"), default=None)
    candidate: Mapped[str | None] = mapped_column(ForeignKey("versions.bundle"), default=None)
    percent: Mapped[float] = mapped_column(default=0.0)
    max_failure_rate: Mapped[float] = mapped_column(default=0.0)
    min_reports: Mapped[int] = mapped_column(default=0)
    revision: Mapped[int] = mapped_column(default=1)
    stopped_because: Mapped[str | None] = mapped_column(default=None)


class RolloutEvent(Table):
    """A change of a rollout, for people. by: id of the operator's key; None: the cloud itself."""

    __tablename__ = "rollout_events"

    id: Mapped[int] = mapped_column(Number, init=False, primary_key=True)
    line: Mapped[str] = mapped_column(index=True)
    at: Mapped[datetime]
    by: Mapped[str | None]
    what: Mapped[str]
    bundle: Mapped[str]
    percent: Mapped[float]


class Outcome(Table):
    """What a device found when it tried a version: nothing wrong, or the code of a failure.

    A failure stays, whatever the device reports afterwards.
    """

    __tablename__ = "outcomes"
    __table_args__ = (Index("ix_outcomes_bundle_code", "bundle", "code"),)

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    bundle: Mapped[str] = mapped_column(ForeignKey("versions.bundle"), primary_key=True)
    code: Mapped[str | None]
    received_at: Mapped[datetime]


class Readiness(Table):
    """One row that is written to find out whether the database can be."""

    __tablename__ = "readiness"

    id: Mapped[int] = mapped_column(primary_key=True)
    written_at: Mapped[datetime]


class TrustedKey(Table):
    """A public key that devices are told to trust; its private half lies in a file.

    role: `edit` signs edits, `bundle` signs bundles and key documents. until: when an edit key
    stops verifying. revoked_at: no longer in key documents.
    """

    __tablename__ = "trusted_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    public_key: Mapped[bytes]
    added_at: Mapped[datetime]
    until: Mapped[datetime | None] = mapped_column(default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)


class KeyDocument(Table):
    """A signed `persona.keys/1`, byte for byte."""

    __tablename__ = "key_documents"

    sequence: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    document: Mapped[bytes]
    key_id: Mapped[str]
    signature: Mapped[bytes]


class DashboardSession(Table):
    """A browser that an operator signed in with, as the digest of its cookie."""

    __tablename__ = "dashboard_sessions"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    operator_key: Mapped[str] = mapped_column(ForeignKey("operator_keys.id"))
    expires_at: Mapped[datetime] = mapped_column(index=True)
