"""What the cloud remembers: devices, their sequences, edits issued, answers kept, measurements.

Raw observations are never stored; of each edit its latent is, for refining prototypes. An answer
is kept until its edit expires, so that a repeated request gets the same bytes.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import sessionmaker

from persona.formats.verify import Signature
from persona.issuing import Issued
from persona_cloud.database import open_database, writing
from persona_cloud.tables import (
    Device,
    DeviceToken,
    IssuedEdit,
    KeptAnswer,
    OperatorKey,
    Readiness,
    StoredMeasurement,
)

_WRITE_AGAIN_SECONDS = 1.0

CLOCK_SECONDS = 60.0
"""How far a server's clock and its database's may differ. Phones refuse edits from 300 s ahead."""


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


class ClockError(RuntimeError):
    """This machine's clock and that of the database differ: one of them is wrong."""


class OtherRequestError(ValueError):
    """An idempotency key that the device has used for another request."""


class Store:
    """One database. Safe to use from several threads and processes; each method is atomic.

    reading, writing: begin a transaction that ends with the block.
    """

    def __init__(self, url: str) -> None:
        """Raises StoreError."""
        self._engine = open_database(url)
        self._written = -math.inf
        server = self._engine.dialect.name == "postgresql"
        self._clock = (
            "SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)"
            if server
            else "SELECT NULL"
        )
        self.reading = sessionmaker(self._engine, expire_on_commit=False).begin
        self.writing = sessionmaker(writing(self._engine), expire_on_commit=False).begin

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent. To be called in every new process."""
        self._engine.dispose(close=False)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    def check(self) -> None:
        """Whether the database answers, and can be written to: it is tried once a second.

        Raises sqlalchemy's OperationalError, or ClockError where its clock is not ours.
        """
        now = time.monotonic()
        with self.reading() as session:
            theirs = session.scalar(text(self._clock))
        if theirs is not None and abs(theirs - time.time()) > CLOCK_SECONDS:
            raise ClockError(f"the database's clock differs by {theirs - time.time():.0f} s")
        if now < self._written + _WRITE_AGAIN_SECONDS:
            return
        with self.writing() as session:
            session.execute(update(Readiness).values(written_at=datetime.now(UTC)))
        self._written = now

    def enrol(self, device: Device, token: DeviceToken) -> None:
        """Remember a new device and its token."""
        with self.writing() as session:
            session.add(device)
            session.flush()
            session.add(token)

    def token(self, sha256: str) -> tuple[Device, DeviceToken] | None:
        """The token with this digest, and the device that it was given to."""
        query = select(Device, DeviceToken).join(DeviceToken, DeviceToken.device == Device.id)
        with self.reading() as session:
            row = session.execute(query.where(DeviceToken.sha256 == sha256)).first()
            return row and row.tuple()

    def confirm(self, token: DeviceToken) -> None:
        """A device has shown a token: the ones that it had before are no longer needed."""
        older = DeviceToken.issued_at < token.issued_at
        with self.writing() as session:
            session.execute(delete(DeviceToken).where(DeviceToken.device == token.device, older))
            session.execute(
                update(DeviceToken).where(DeviceToken.sha256 == token.sha256).values(used=True)
            )

    def renew(self, shown: str, token: DeviceToken) -> None:
        """Give a device another token; the one that it has shown stays until the new one is used.

        Any others go, so that a device has two at most.
        """
        others = DeviceToken.sha256 != shown
        with self.writing() as session:
            session.execute(delete(DeviceToken).where(DeviceToken.device == token.device, others))
            session.add(token)

    def revoke_device(self, device: str, now: datetime) -> bool:
        """Refuse this device from now on; whether there is such a device."""
        with self.writing() as session:
            found = session.get(Device, device)
            if found is not None and found.revoked_at is None:
                found.revoked_at = now
            return found is not None

    def add_operator_key(self, key: OperatorKey) -> None:
        """Remember a new key."""
        with self.writing() as session:
            session.add(key)

    def operator_key(self, sha256: str) -> OperatorKey | None:
        """The key with this digest, revoked or not."""
        with self.reading() as session:
            return session.scalar(select(OperatorKey).where(OperatorKey.sha256 == sha256))

    def operator_keys(self) -> list[OperatorKey]:
        """All keys, the oldest first."""
        with self.reading() as session:
            return list(session.scalars(select(OperatorKey).order_by(OperatorKey.created_at)))

    def revoke_operator_key(self, key: str, now: datetime) -> bool:
        """Refuse this key from now on; whether there is such a key."""
        with self.writing() as session:
            found = session.get(OperatorKey, key)
            if found is not None and found.revoked_at is None:
                found.revoked_at = now
            return found is not None

    def next_sequence(self, device: str) -> int:
        """A number larger than any that this device was ever given, and given to no one else."""
        with self.writing() as session:
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
        with self.reading() as session:
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
            with self.writing() as session:
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
        with self.writing() as session:
            session.add(measurement)

    def measurements(
        self, filters: Mapping[str, str], before: int | None, limit: int
    ) -> list[StoredMeasurement]:
        """Measurements whose columns equal `filters`, the newest first, with ids below `before`."""
        query = select(StoredMeasurement).filter_by(**filters)
        if before is not None:
            query = query.where(StoredMeasurement.id < before)
        with self.reading() as session:
            return list(session.scalars(query.order_by(StoredMeasurement.id.desc()).limit(limit)))
