"""What a device keeps between starts: who it is, its newest sequence, and its active edit.

The edit's bytes are written first, the small state file that names them last, each atomically:
killed at any moment, the next start finds the old edit or the new one, whole.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from persona.durable import PlaceError, write_atomic
from persona.formats import schema
from persona.formats.verify import Signature
from persona.signing import decode_signature, encode_signature

_STATE = "state.json"


@dataclass(frozen=True)
class DeviceState:
    """device, token: from enrolment; token is the secret for the cloud.

    bundle: digest that the active edit was made for. sequence: of the newest verified edit.
    edit: sequence of the active edit, or None.
    """

    bundle: str
    device: str = ""
    token: str = ""
    sequence: int = 0
    edit: int | None = None


class DeviceStore:
    """A folder on the device."""

    def __init__(self, folder: Path, bundle: str) -> None:
        """Open the folder, or make it. Raises PlaceError where that cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlaceError(
                f"cannot keep a device in {folder}: {error.strerror}; choose another folder"
            ) from None
        self.folder = folder
        self.state = self._load(bundle)
        self._sweep()

    def _load(self, bundle: str) -> DeviceState:
        """The stored state. With a new bundle the old edit no longer applies; who we are does."""
        try:
            stored = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
            state = schema.decode(DeviceState, stored, _STATE)
        except (OSError, ValueError, RecursionError):
            return DeviceState(bundle)
        return state if state.bundle == bundle else replace(state, bundle=bundle, edit=None)

    def _sweep(self) -> None:
        """Remove edits that are not active, and unfinished files as being killed leaves them."""
        kept = () if self.state.edit is None else self._files(self.state.edit)
        unfinished = ".edit-*.safetensors*", f".{_STATE}.*", ".told.safetensors.*", ".keys.json.*"
        for pattern in ("edit-*.safetensors*", *unfinished):
            for path in self.folder.glob(pattern):
                if path.is_file() and path not in kept:
                    path.unlink()

    def _save(self, state: DeviceState) -> None:
        text = json.dumps(schema.encode(state)) + "\n"
        write_atomic(self.folder / _STATE, text.encode(), mode=0o600)
        self.state = state

    def enrolled(self, device: str, token: str) -> None:
        """Remember who the cloud says that we are. Another device's edit no longer applies."""
        changed = device != self.state.device
        state = replace(self.state, device=device, token=token)
        self._save(replace(state, sequence=0, edit=None) if changed else state)

    def forget_token(self) -> None:
        """The cloud no longer takes our token."""
        self._save(replace(self.state, token=""))

    def activate(self, data: bytes, signature: Signature, sequence: int) -> None:
        """Make a verified and probed edit the one that the next start finds."""
        edit, signed = self._files(sequence)
        write_atomic(signed, encode_signature(signature))
        write_atomic(edit, data)
        self._save(replace(self.state, sequence=sequence, edit=sequence))
        self._sweep()

    def refused(self, sequence: int) -> None:
        """An edit failed its probe: what ran before runs on, and that edit may not come back."""
        self._save(replace(self.state, sequence=sequence))

    def deactivate(self) -> None:
        """Forget the active edit, keep its sequence: it may not come back."""
        self._save(replace(self.state, edit=None))
        self._sweep()

    def active(self) -> tuple[bytes, Signature] | None:
        """The active edit's bytes and signature, if there is one that can be read."""
        if self.state.edit is None:
            return None
        edit, signed = self._files(self.state.edit)
        try:
            return edit.read_bytes(), decode_signature(signed.read_bytes())
        except (OSError, ValueError):
            return None

    def _files(self, sequence: int) -> tuple[Path, Path]:
        name = f"edit-{sequence}.safetensors"
        return self.folder / name, self.folder / f"{name}.sig"
