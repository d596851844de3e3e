"""What the cloud remembers: devices, their sequences, edits issued, answers kept, measurements.

Raw observations are never stored; of each edit its latent is, for refining prototypes. An answer
is kept until its edit expires, so that a repeated request gets the same bytes.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, text, tuple_, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import sessionmaker

from persona.formats import container
from persona.formats.edit import EditInfo, parse_info
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

AWAY = (OperationalError, InterfaceError, PoolTimeoutError)
"""What is raised where the database does not answer, or not in time."""

CLOCK_SECONDS = 60.0
"""How far a server's clock and its database's may differ. Phones refuse edits from 300 s ahead."""


class NoDeviceError(LookupError):
    """A device that never enrolled, or was shut out."""


class ClockError(RuntimeError):
    """This machine's clock and that of the database differ: one of them is wrong."""


class OtherRequestError(ValueError):
    """An idempotency key that the device has used for another request."""


@dataclass(frozen=True)
class ShownToken:
    """A token, and whether the device that it was given to was shut out."""

    sha256: str
    device: str
    issued_at: datetime
    expires_at: datetime
    used: bool
    revoked: bool


@dataclass(frozen=True)
class SignedEdit:
    """The bytes of an edit with their signature, and what they say of themselves."""

    data: bytes
    signature: Signature
    info: EditInfo


@dataclass(frozen=True)
class Idempotency:
    """A device's name for a request, and the fingerprint of what it asked."""

    key: str
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Wish:
    """An edit that lacks its sequence number.

    sign: makes it with the number that it is given, in the transaction that gives it: it must ask
    no database and wait for no lock, whose holder might wait for that transaction.
    """

    device: str
    sign: Callable[[int], Issued]
    asked: Idempotency | None = None

    @property
    def name(self) -> "_Name":
        """The same for wishes that shall have the same answer."""
        return self.device, self.asked.key if self.asked else self


_Name = tuple[str, str | Wish]

_TOKEN = (
    select(
        DeviceToken.sha256,
        DeviceToken.device,
        DeviceToken.issued_at,
        DeviceToken.expires_at,
        DeviceToken.used,
        Device.revoked_at.is_not(None),
    )
    .join(Device, Device.id == DeviceToken.device)
    .where(DeviceToken.sha256 == bindparam("sha256"))
)
_HOLD = (
    select(Device.id)
    .where(Device.id.in_(bindparam("devices", expanding=True)), Device.revoked_at.is_(None))
    .order_by(Device.id)
    .with_for_update(key_share=True)
)
_FORGET = delete(KeptAnswer).where(KeptAnswer.expires_at <= bindparam("now"))
_NUMBER = (
    update(Device)
    .where(Device.id.in_(bindparam("devices", expanding=True)))
    .values(sequence=Device.sequence + bindparam("count"))
    .returning(Device.id, Device.sequence)
)
"""What each request, or each batch of them, needs: made once, and run without the ORM."""


@dataclass(frozen=True)
class _Answer:
    """An edit, and the request that it was made for."""

    asked: Idempotency | None
    edit: SignedEdit

    def to(self, asked: Idempotency | None) -> SignedEdit | OtherRequestError:
        """The answer to a request of the same device and key."""
        return self.edit if asked == self.asked else OtherRequestError(asked and asked.key)


class Store:
    """One database. Safe to use from several threads and processes; each method is atomic.

    reading, writing: begin a transaction that ends with the block. In one that reads, all queries
    see the same moment, on PostgreSQL too.
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
        frozen = {"isolation_level": "REPEATABLE READ"} if server else {}
        self.reading = sessionmaker(
            self._engine.execution_options(**frozen), expire_on_commit=False
        ).begin
        self._writing = writing(self._engine)
        self.writing = sessionmaker(self._writing, expire_on_commit=False).begin

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

    def token(self, sha256: str) -> ShownToken | None:
        """The token with this digest."""
        with self._engine.connect() as connection:
            row = connection.execute(_TOKEN, {"sha256": sha256}).first()
        return None if row is None else ShownToken(*row)

    def confirm(self, token: ShownToken) -> None:
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
        answer = _kept_answer(kept).to(asked)
        if isinstance(answer, OtherRequestError):
            raise answer
        return answer

    def issue(self, wishes: Sequence[Wish]) -> list[SignedEdit | NoDeviceError | OtherRequestError]:
        """Number, sign and remember edits in one transaction; the answers in the same order.

        A number is larger than any that its device was ever given, and given to no one else. A
        request that was answered before, also in this call, gets the same answer. What is wrong
        with a wish comes in its place, and holds up no other.
        """
        with self._writing.begin() as connection:
            held = connection.scalars(_HOLD, {"devices": list({wish.device for wish in wishes})})
            devices = set(held)
            connection.execute(_FORGET, {"now": datetime.now(UTC)})
            answers = _kept_answers(connection, [wish for wish in wishes if wish.asked])
            new: dict[_Name, Wish] = {}
            for wish in wishes:
                if wish.device in devices and wish.name not in answers:
                    new.setdefault(wish.name, wish)
            numbers = _next_sequences(connection, Counter(wish.device for wish in new.values()))
            made = {name: wish.sign(next(numbers[wish.device])) for name, wish in new.items()}
            _remember(connection, [(new[name].asked, issued) for name, issued in made.items()])
        for name, issued in made.items():
            edit = SignedEdit(issued.data, issued.signature, issued.info)
            answers[name] = _Answer(new[name].asked, edit)
        return [
            answers[wish.name].to(wish.asked)
            if wish.name in answers
            else NoDeviceError(wish.device)
            for wish in wishes
        ]

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


def _next_sequences(connection: Connection, wanted: Mapping[str, int]) -> dict[str, Iterator[int]]:
    """So many numbers for each device."""
    numbers: dict[str, Iterator[int]] = {}
    for count in set(wanted.values()):
        devices = [device for device, many in wanted.items() if many == count]
        for device, last in connection.execute(_NUMBER, {"devices": devices, "count": count}):
            numbers[device] = iter(range(last - count + 1, last + 1))
    return numbers


def _kept_answers(connection: Connection, wishes: Sequence[Wish]) -> dict[_Name, _Answer]:
    """What these requests got before."""
    if not wishes:
        return {}
    asked = tuple_(KeptAnswer.device, KeptAnswer.key).in_([wish.name for wish in wishes])
    found = connection.execute(select(KeptAnswer.__table__).where(asked))
    return {(kept.device, kept.key): _kept_answer(kept) for kept in found}


def _kept_answer(kept: KeptAnswer | Row[Any]) -> _Answer:
    info = parse_info(container.decode(kept.edit)[1])
    edit = SignedEdit(kept.edit, Signature(kept.key_id, kept.signature), info)
    return _Answer(Idempotency(kept.key, kept.fingerprint), edit)


def _remember(connection: Connection, made: Sequence[tuple[Idempotency | None, Issued]]) -> None:
    """Write that edits were issued and, where asked, the answers."""
    edits = [
        {
            "device": issued.info.device,
            "sequence": issued.info.sequence,
            "model": issued.info.model,
            "bundle": issued.info.bundle,
            "prototype": issued.info.prototype,
            "issued_at": issued.info.issued_at,
            "expires_at": issued.info.expires_at,
            "latent": issued.latent.astype("<f4").tobytes(),
        }
        for _, issued in made
    ]
    answers = [
        {
            "device": issued.info.device,
            "key": asked.key,
            "fingerprint": asked.fingerprint,
            "edit": issued.data,
            "key_id": issued.signature.key_id,
            "signature": issued.signature.der,
            "expires_at": issued.info.expires_at,
        }
        for asked, issued in made
        if asked is not None
    ]
    for table, rows in ((IssuedEdit, edits), (KeptAnswer, answers)):
        if rows:
            connection.execute(insert(table), rows)
