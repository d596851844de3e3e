"""Wishes for edits whose bytes say nothing: for tests of what the database makes of them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np

from persona.formats.edit import EditInfo
from persona.formats.verify import Signature
from persona.issuing import Issued
from persona_cloud.store import Wish


def wish(device: str) -> Wish:
    return Wish(device, _signs_for(device))


def _signs_for(device: str) -> Callable[[int], Issued]:
    def sign(sequence: int) -> Issued:
        now = datetime.now(UTC)
        info = EditInfo("model", "bundle", device, sequence, 0, now, now + timedelta(days=7))
        return Issued(b"edit", Signature("key", b"signature"), info, np.zeros(2, np.float32))

    return sign
