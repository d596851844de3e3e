"""What the cloud remembers: devices, their sequences, edits issued, answers kept, measurements.

Raw observations are never stored; of each edit its latent is, for refining prototypes. An answer
is kept until its edit expires, so that a repeated request gets the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    ForeignKey,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, sessionmaker

from persona.formats.verify import Signature
from persona.issuing import Issued

BUSY_SECONDS = 30
"""How long a writer waits for another one on SQLite."""


class StoreError(ValueError):
    """A database that cannot be opened; the message says which and what to do."""


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

    type_annotation_map = {datetime: UtcTime, dict[str, Any]: JSON}  # noqa: RUF012


class Device(Table):
    """An enrolled device. sequence: of the newest edit handed out, 0 before the first."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(unique=True)
    platform: Mapped[str]
    enrolled_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    sequence: Mapped[int] = mapped_column(default=0)


class IssuedEdit(Table):
    """That an edit was issued, and its latent: float32, little-endian."""

    __tablename__ = "issued_edits"
    __table_args__ = (UniqueConstraint("device", "sequence"),)

    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    sequence: Mapped[int]
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

    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    received_at: Mapped[datetime]
    model: Mapped[str] = mapped_column(index=True)
    bundle: Mapped[str]
    target: Mapped[str]
    precision: Mapped[str]
    document: Mapped[dict[str, Any]]


@dataclass(frozen=True)
class SignedEdit:
    """The bytes of an edit and their signature: all that an answer is made of."""

    data: bytes
    signature: Signature


@dataclass(frozen=True)
class Idempotency:
    """A device's name for a request, and the fingerprint of what it asked."""

    key: str
    fingerprint: str


class OtherRequestError(ValueError):
    """An idempotency key that the device has used for another request."""


class Store:
    """One database. Safe to use from several threads and processes; each method is atomic."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            sqlite = parsed.get_backend_name() == "sqlite"
            waits = {"timeout": BUSY_SECONDS} if sqlite else {}
            self._engine = create_engine(parsed, connect_args=waits)
            if sqlite:
                event.listen(self._engine, "connect", _prepare_sqlite)
            Table.metadata.create_all(self._engine)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError(
                f"{error}; expected a URL such as sqlite:///cloud.sqlite, with its driver installed"
            ) from None
        except DBAPIError as error:
            raise StoreError(
                f"cannot open the database {parsed.render_as_string()}: {error.orig}; "
                "check that it is there, and that it may be written to"
            ) from None
        self._transaction = sessionmaker(self._engine, expire_on_commit=False).begin

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent. To be called in every new process."""
        self._engine.dispose(close=False)

    def check(self) -> None:
        """Whether the database answers. Raises sqlalchemy's OperationalError."""
        with self._transaction() as session:
            session.execute(text("SELECT 1"))

    def enrol(self, device: Device) -> None:
        """Remember a new device."""
        with self._transaction() as session:
            session.add(device)

    def device_with(self, token_sha256: str) -> Device | None:
        """The device that this token was given to."""
        with self._transaction() as session:
            return session.scalar(select(Device).where(Device.token_sha256 == token_sha256))

    def next_sequence(self, device: str) -> int:
        """A number larger than any that this device was ever given, and given to no one else."""
        with self._transaction() as session:
            return session.execute(
                update(Device)
                .where(Device.id == device)
                .values(sequence=Device.sequence + 1)
                .returning(Device.sequence)
            ).scalar_one()

    def kept_answer(
        self, device: str, asked: Idempotency | None, now: datetime
    ) -> SignedEdit | None:
        """The answer that this request got before, if it has a key. Raises OtherRequestError."""
        if asked is None:
            return None
        with self._transaction() as session:
            kept = session.get(KeptAnswer, (device, asked.key))
        if kept is None or kept.expires_at <= now:
            return None
        if kept.fingerprint != asked.fingerprint:
            raise OtherRequestError(asked.key)
        return SignedEdit(kept.edit, Signature(kept.key_id, kept.signature))

    def record(self, issued: Issued, asked: Idempotency | None) -> SignedEdit:
        """Remember an edit and, where asked, its answer; returns the edit to answer with.

        That is another one where the same request, sent twice at once, was answered first.
        Raises OtherRequestError.
        """
        info = issued.info
        edit = IssuedEdit(
            device=info.device,
            sequence=info.sequence,
            model=info.model,
            bundle=info.bundle,
            prototype=info.prototype,
            issued_at=info.issued_at,
            expires_at=info.expires_at,
            latent=issued.latent.astype("<f4").tobytes(),
        )
        try:
            with self._transaction() as session:
                session.execute(delete(KeptAnswer).where(KeptAnswer.expires_at <= info.issued_at))
                session.add(edit)
                if asked is not None:
                    session.add(
                        KeptAnswer(
                            device=info.device,
                            key=asked.key,
                            fingerprint=asked.fingerprint,
                            edit=issued.data,
                            key_id=issued.signature.key_id,
                            signature=issued.signature.der,
                            expires_at=info.expires_at,
                        )
                    )
        except IntegrityError:
            first = self.kept_answer(info.device, asked, info.issued_at)
            if first is None:
                raise
            return first
        return SignedEdit(issued.data, issued.signature)

    def add_measurement(self, measurement: StoredMeasurement) -> None:
        """Remember a measurement; gives it its id."""
        with self._transaction() as session:
            session.add(measurement)

    def measurements(
        self, filters: Mapping[str, str], before: int | None, limit: int
    ) -> list[StoredMeasurement]:
        """Measurements whose columns equal `filters`, the newest first, with ids below `before`."""
        query = select(StoredMeasurement).filter_by(**filters)
        if before is not None:
            query = query.where(StoredMeasurement.id < before)
        with self._transaction() as session:
            return list(session.scalars(query.order_by(StoredMeasurement.id.desc()).limit(limit)))


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Readers beside one writer; a commit is on the disk before a number is used."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
