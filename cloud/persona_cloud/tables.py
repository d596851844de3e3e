"""The tables of the cloud's database; `migrations/` makes and changes them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
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

    type_annotation_map = {datetime: UtcTime, dict[str, Any]: JSON, list[str]: JSON}  # noqa: RUF012


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
