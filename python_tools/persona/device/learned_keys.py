"""Which keys a device trusts: those that app and bundle name, until the cloud's key documents say.

What was learned lies in one file of the device's folder. An app that pins other keys than those it
was learned with starts again from its own.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from persona.bundles import Bundle
from persona.device.client import CloudClient
from persona.durable import write_atomic
from persona.formats import schema
from persona.formats.errors import Code, FormatError
from persona.formats.keys import KeyDocument, decode_keys, key_id, verify_keys
from persona.formats.manifest import SIGNATURE
from persona.formats.verify import Signature
from persona.signing import PublicKeys, decode_stored

_FILE = "keys.json"


@dataclass(frozen=True)
class _Learned:
    """pinned: ids of the keys that this was learned with. document: the text that was signed."""

    pinned: tuple[str, ...]
    document: str


class LearnedKeys:
    """The keys of one device, in its folder."""

    def __init__(self, folder: Path, bundle: Bundle, pinned: Sequence[bytes] | None) -> None:
        """pinned: public bundle keys that the app names. Without any, the one beside the bundle's
        signature: enough to follow that publisher, not to know who it is.
        """
        self._file = folder / _FILE
        self._pinned = _enclosed(bundle) if pinned is None else list(pinned)
        self._of_bundle = bundle.edit_keys()
        self._document = self._load()

    @property
    def sequence(self) -> int:
        """Of the newest key document; 0 where none was learned."""
        return 0 if self._document is None else self._document.sequence

    def edit_keys(self, now: datetime) -> PublicKeys:
        """The keys that verify edits."""
        if self._document is None:
            return self._of_bundle
        return PublicKeys(self._document.edit_keys_at(now))

    def bundle_keys(self) -> PublicKeys:
        """The keys that verify bundles and key documents."""
        if self._document is None:
            return PublicKeys(self._pinned)
        return PublicKeys(self._document.bundle_keys.values())

    def learn(self, data: bytes, signature: Signature, now: datetime) -> None:
        """Trust what a key document says. Raises FormatError or PlaceError and changes nothing."""
        document = verify_keys(data, signature, self.bundle_keys(), self.sequence, now)
        stored = _Learned(self._pinned_ids(), data.decode())
        write_atomic(self._file, json.dumps(schema.encode(stored)).encode())
        self._document = document

    def catch_up(self, cloud: CloudClient, now: datetime) -> None:
        """Learn the newest key document, through those before it where its signer is not known.

        Raises FormatError, PlaceError, OfflineError or CloudError.
        """
        newest = cloud.keys()
        if newest is None:
            return
        try:
            self.learn(newest.data, newest.signature, now)
        except FormatError as error:
            if error.code != Code.KEYS_UNKNOWN_KEY:
                raise
            while (following := cloud.keys(self.sequence + 1)) is not None:
                self.learn(following.data, following.signature, now)

    def _load(self) -> KeyDocument | None:
        try:
            stored = schema.decode(_Learned, json.loads(self._file.read_text("utf-8")))
            document = decode_keys(stored.document.encode())
        except (OSError, ValueError, RecursionError):
            return None
        return document if stored.pinned == self._pinned_ids() else None

    def _pinned_ids(self) -> tuple[str, ...]:
        return tuple(sorted(key_id(key) for key in self._pinned))


def _enclosed(bundle: Bundle) -> list[bytes]:
    stored = decode_stored((bundle.path / SIGNATURE).read_bytes())
    return [] if stored.public_key is None else [stored.public_key]
