"""The keys that sign: which there are, which signs now, and the documents that tell devices.

Private halves lie as files in one folder; the database knows the public ones and what became of
them. Until the first key is added or revoked there is no document: devices then trust what their
bundle and their app name. Each document is signed by a bundle key that the one before names, so a
device that missed some can go from one to the next.
"""

import math
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from persona.bundles import Bundle
from persona.formats.keys import KeyDocument as Trusted
from persona.formats.keys import TrustedEditKey, decode_keys, encode_keys
from persona.formats.verify import Signature
from persona.issuing import check_named
from persona.signing import PublicKeys, SigningKey, SigningKeyError, key_id, read_public_key
from persona_cloud.problems import Problem
from persona_cloud.store import AWAY, Store
from persona_cloud.tables import IssuedEdit, KeptAnswer, KeyDocument, TrustedKey

Role = Literal["edit", "bundle"]
"""What a key signs: edits, or bundles and key documents."""

ROLES: tuple[Role, ...] = get_args(Role)

FRESH_SECONDS = 1.0
_SLOWEST_WORKER = timedelta(minutes=1)
"""Longer than a worker may go on with a key after it was retired."""


_BEFORE = timedelta(seconds=1)
"""The run's own keys are older than the first that is added: the newest one signs."""


@dataclass(frozen=True)
class SignedKeys:
    """A key document as it is sent."""

    sequence: int
    data: bytes
    signature: Signature


@dataclass(frozen=True)
class _Known:
    """What a process knows for a moment: the newest document's number, the key that signs."""

    sequence: int
    bundle_keys: tuple[bytes, ...]
    signs: SigningKey | None


class SigningKeys:
    """The signing keys of one cloud. Safe to use from several threads and processes."""

    def __init__(self, store: Store, folder: Path) -> None:
        """folder: where private keys lie, first of all those that the bundle was exported with.

        Of the key that signs bundles the public half, `bundles.pem.pub`, is enough to serve.
        """
        self._store, self._folder = store, folder
        self._lock = threading.Lock()
        self._now: _Known | None = None
        self._fresh_until = -math.inf

    def current(self) -> SigningKey:
        """The key that signs edits now. Raises Problem `server.key` where none is on this disk."""
        signs = self._known().signs
        if signs is None:
            raise Problem(
                "server.key",
                "This server has no private key that devices trust",
                headers={"Retry-After": "5"},
            )
        return signs

    def sequence(self) -> int:
        """Of the newest key document; 0 where there is none yet."""
        return self._known().sequence

    def publishers(self) -> PublicKeys:
        """The keys that devices trust to sign bundles."""
        return PublicKeys(self._known().bundle_keys)

    def publishers_ever(self) -> PublicKeys:
        """Those and revoked ones: a version that devices have is served to its end."""
        return PublicKeys(key.public_key for key in self.all_keys() if key.role == "bundle")

    def check_named_by(self, bundle: Bundle) -> None:
        """Raises KeyNotInBundleError where devices could not learn the key that signs edits."""
        known = self._known()
        if known.sequence == 0 and known.signs is not None:
            check_named(known.signs, bundle)

    def document(self, sequence: int | None = None) -> SignedKeys | None:
        """A key document, the newest unless a number is named; None where there is none."""
        query = select(KeyDocument).order_by(KeyDocument.sequence.desc()).limit(1)
        if sequence is not None:
            query = query.where(KeyDocument.sequence == sequence)
        with self._store.reading() as session:
            found = session.scalar(query)
        if found is None:
            return None
        signature = Signature(found.key_id, found.signature)
        return SignedKeys(found.sequence, found.document, signature)

    def all_keys(self) -> list[TrustedKey]:
        """All keys, the oldest first; those of the run where no other was ever added."""
        with self._store.reading() as session:
            return _keys(session) or self._first_keys(datetime.now(UTC))

    def add(self, role: Role) -> TrustedKey:
        """Make a key and tell devices. A new edit key signs from now on. Raises SigningKeyError."""
        path = self._folder / f"{role}-{secrets.token_hex(4)}.pem"
        made = SigningKey.load_or_create(path)
        now = datetime.now(UTC)
        key = TrustedKey(made.id, role, made.public, now)
        try:
            with self._store.writing() as session:
                self._remember_first(session, now - _BEFORE)
                session.add(key)
                session.flush()
                self._sign(session, now)
        except BaseException:
            for file in (path, path.with_name(f"{path.name}.pub")):
                file.unlink(missing_ok=True)
            raise
        self._look_again()
        return key

    def retire(self, key: str, lifetime: timedelta) -> datetime:
        """Sign no more edits with a key; it verifies until the last one has expired: the answer.

        lifetime: of edits. Raises SigningKeyError.
        """
        now = datetime.now(UTC)
        with self._store.writing() as session:
            self._remember_first(session, now - _BEFORE)
            found = _trusted(session, key)
            if found.role != "edit":
                raise SigningKeyError(
                    f"{key} signs bundles; add another, publish bundles with it, then revoke {key}"
                )
            if found.until is None:
                _check_not_last(session, found)
                last = session.scalar(select(func.max(IssuedEdit.expires_at))) or now
                found.until = max(now + lifetime, last) + _SLOWEST_WORKER
                session.flush()
                self._sign(session, now)
            until = found.until
        self._look_again()
        return until

    def revoke(self, key: str) -> None:
        """Devices that learn of it trust this key no more, at once. Raises SigningKeyError.

        An answer that it signed is not given again.
        """
        now = datetime.now(UTC)
        with self._store.writing() as session:
            self._remember_first(session, now - _BEFORE)
            found = _trusted(session, key)
            _check_not_last(session, found)
            found.revoked_at = now
            session.execute(delete(KeptAnswer).where(KeptAnswer.key_id == key))
            session.flush()
            self._sign(session, now)
        self._look_again()

    def _first_keys(self, now: datetime) -> list[TrustedKey]:
        """Those of the run. Raises SigningKeyError where they are not there."""
        public = {role: _public(self._folder / f"{role}s.pem") for role in ROLES}
        return [TrustedKey(key_id(key), role, key, now) for role, key in public.items()]

    def _remember_first(self, session: Session, now: datetime) -> None:
        if not _keys(session):
            session.add_all(self._first_keys(now))
            session.flush()

    def _sign(self, session: Session, now: datetime) -> None:
        """Add the document that says what is trusted from now on."""
        keys = [key for key in _keys(session) if key.revoked_at is None]
        newest = session.scalar(
            select(KeyDocument).order_by(KeyDocument.sequence.desc()).limit(1).with_for_update()
        )
        bundle_keys = {key.id: key.public_key for key in keys if key.role == "bundle"}
        if newest is None:
            before = {key_id(_public(self._folder / "bundles.pem"))}
        else:
            before = set(decode_keys(newest.document).bundle_keys)
        signer = next((k for k in self._private() if k.id in before and k.id in bundle_keys), None)
        if signer is None:
            raise SigningKeyError(
                f"{self._folder} holds no private key of {', '.join(sorted(before))}, of which "
                "devices trust one to sign key documents; put one there"
            )
        sequence = 1 if newest is None else newest.sequence + 1
        edit_keys = {
            key.id: TrustedEditKey(key.public_key, key.until)
            for key in keys
            if key.role == "edit" and (key.until is None or key.until > now)
        }
        data = encode_keys(Trusted(sequence, now, edit_keys, bundle_keys))
        signature = signer.sign(data)
        session.add(KeyDocument(sequence, data, signature.key_id, signature.der))

    def _private(self) -> list[SigningKey]:
        """The private keys in the folder."""
        return [SigningKey.load_or_create(path) for path in sorted(self._folder.glob("*.pem"))]

    def _look_again(self) -> None:
        with self._lock:
            self._now, self._fresh_until = None, -math.inf

    def _known(self) -> _Known:
        with self._lock:
            if self._now is not None and time.monotonic() < self._fresh_until:
                return self._now
            try:
                self._now = self._ask(self._now)
            except AWAY:
                if self._now is None:
                    raise
            self._fresh_until = time.monotonic() + FRESH_SECONDS
            return self._now

    def _ask(self, before: _Known | None) -> _Known:
        with self._store.reading() as session:
            sequence = session.scalar(select(func.max(KeyDocument.sequence))) or 0
            if before is not None and before.sequence == sequence and before.signs is not None:
                return before
            keys = [key for key in _keys(session) if key.revoked_at is None]
        if sequence == 0:
            keys = self._first_keys(datetime.now(UTC))
        bundle_keys = tuple(key.public_key for key in keys if key.role == "bundle")
        private = {key.id: key for key in self._private()}
        signing = [key.id for key in keys if key.role == "edit" and key.until is None]
        signs = next((private[name] for name in reversed(signing) if name in private), None)
        return _Known(sequence, bundle_keys, signs)


def _public(path: Path) -> bytes:
    if path.is_file():
        return SigningKey.load_or_create(path).public
    return read_public_key(path.with_name(f"{path.name}.pub"))


def _keys(session: Session) -> list[TrustedKey]:
    query = select(TrustedKey).order_by(TrustedKey.added_at, TrustedKey.id)
    return list(session.scalars(query))


def _trusted(session: Session, key: str) -> TrustedKey:
    found = session.get(TrustedKey, key, with_for_update=True)
    if found is None or found.revoked_at is not None:
        raise SigningKeyError(
            f"there is no trusted key {key!r}; see `persona operator signing-key list`"
        )
    return found


def _check_not_last(session: Session, key: TrustedKey) -> None:
    """Another key of this role must be there to sign with."""
    others = [
        other
        for other in _keys(session)
        if other.role == key.role
        and other.id != key.id
        and other.revoked_at is None
        and other.until is None
    ]
    if not others:
        raise SigningKeyError(
            f"{key.id} is the only {key.role} key; add another first with "
            f"`persona operator signing-key add --role {key.role}`"
        )
