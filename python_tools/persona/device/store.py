"""What a device keeps between starts: who it is, its newest sequence, and its active edit.

The edit's bytes are written first, the small state file that names them last, each atomically:
killed at any moment, the next start finds the old edit or the new one, whole.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from persona.durable import write_atomic
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
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state = self._load(bundle)

    def _load(self, bundle: str) -> DeviceState:
        """The stored state. With a new bundle the old edit no longer applies; who we are does."""
        try:
            stored = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
            state = schema.decode(DeviceState, stored, _STATE)
        except (FileNotFoundError, ValueError):
            return DeviceState(bundle)
        return state if state.bundle == bundle else replace(state, bundle=bundle, edit=None)

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
        before = self.state.edit
        edit, signed = self._files(sequence)
        write_atomic(signed, encode_signature(signature))
        write_atomic(edit, data)
        self._save(replace(self.state, sequence=sequence, edit=sequence))
        if before is not None:
            self._remove(before)

    def refused(self, sequence: int) -> None:
        """An edit failed its probe: what ran before runs on, and that edit may not come back."""
        self._save(replace(self.state, sequence=sequence))

    def deactivate(self) -> None:
        """Forget the active edit, keep its sequence: it may not come back."""
        before = self.state.edit
        self._save(replace(self.state, edit=None))
        if before is not None:
            self._remove(before)

    def active(self) -> tuple[bytes, Signature] | None:
        """The active edit's bytes and signature, if there is one that can be read."""
        if self.state.edit is None:
            return None
        edit, signed = self._files(self.state.edit)
        try:
            return edit.read_bytes(), decode_signature(signed.read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _files(self, sequence: int) -> tuple[Path, Path]:
        name = f"edit-{sequence}.safetensors"
        return self.folder / name, self.folder / f"{name}.sig"

    def _remove(self, sequence: int) -> None:
        for path in self._files(sequence):
            path.unlink(missing_ok=True)
