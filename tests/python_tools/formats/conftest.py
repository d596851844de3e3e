"""Slots, keys and an edit that most tests of the formats start from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from persona.formats.edit import EditInfo, encode_edit
from persona.formats.slots import SlotKind, SlotSpec, tensor_names
from persona.formats.verify import Edit, Expectation, Signature, verify_edit
from persona.signing import PublicKeys, SigningKey

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Device:
    """A device that verifies, and the cloud's key that signs for it."""

    expectation: Expectation
    key: SigningKey
    now: datetime = NOON

    @property
    def slots(self) -> tuple[SlotSpec, ...]:
        return self.expectation.slots

    def info(self, **changes: Any) -> EditInfo:
        """What a good edit says of itself."""
        good = EditInfo(
            model=self.expectation.model,
            bundle=self.expectation.bundle,
            device=self.expectation.device,
            sequence=self.expectation.sequence + 1,
            prototype=None,
            issued_at=NOON - timedelta(hours=1),
            expires_at=NOON + timedelta(days=7),
        )
        return replace(good, **changes)

    def change(self, seed: int = 0, share: float = 0.9) -> dict[str, np.ndarray]:
        """Random values up to a share of each bound."""
        random = np.random.default_rng(seed)
        limits = {f"{s.name}.{x}": v for s in self.slots for x, v in s.limits().items()}
        return {
            name: (random.uniform(-1, 1, shape) * limits[name] * share).astype(np.float32)
            for name, shape in tensor_names(self.slots).items()
        }

    def edit(self, change: dict[str, np.ndarray] | None = None, **info: Any) -> bytes:
        """A good edit file, unless told otherwise."""
        probe = np.linspace(-1, 1, 5, dtype=np.float32).reshape(self.expectation.probe_shape)
        return encode_edit(self.info(**info), change or self.change(), probe)

    def verify(self, data: bytes, signature: Signature | None = None) -> Edit:
        """What the device makes of a file, signed by the cloud unless given a signature."""
        return verify_edit(
            data,
            signature or self.key.sign(data),
            PublicKeys([self.key.public]),
            self.expectation,
            self.now,
        )


@pytest.fixture(scope="session")
def device() -> Device:
    """A device with a slot of each kind."""
    slots = (
        SlotSpec("head.0", SlotKind.DENSE, 3, 4, 0, True, 0.5, 3.0),
        SlotSpec("head.2", SlotKind.LOW_RANK, 5, 3, 2, True, 0.25, 3.0),
        SlotSpec("norm", SlotKind.AFFINE, 4, 0, 0, False, 0.5, 1.0),
    )
    expectation = Expectation("net", "ab" * 32, "phone", 7, slots, 3, (1, 5), 65_536)
    return Device(expectation, SigningKey(ec.generate_private_key(ec.SECP256R1())))


@pytest.fixture(scope="session")
def code_of() -> Callable[..., str]:
    """Run something that must raise FormatError; return its code."""
    from persona.formats.errors import FormatError

    def run(action: Callable[..., Any], *arguments: Any, **named: Any) -> str:
        with pytest.raises(FormatError) as caught:
            action(*arguments, **named)
        assert len(str(caught.value)) > 20, "an error must say what to do"
        return caught.value.code.value

    return run
