"""What is left out of a user's files: counted always, named where it is a fault, never in silence.

A few faults are put up with; more than an allowed share means that the files are not what the
user thinks they are.
"""

from collections import Counter
from collections.abc import Sequence

from persona.data.base import DataError

_NAMED = 5


def summary(left_out: Counter[str]) -> str:
    """Counts by reason, in one line, for reports."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def refuse_many(
    faults: Sequence[str], total: int, origin: str, things: str, setting: str, allowed: float
) -> None:
    """Raises DataError where more than the share `allowed` of `total` things have a fault.

    faults: one text each, beginning with the place. origin: the file or folder.
    things: what they are, such as "rows". setting: the name by which the user sets `allowed`.
    """
    if len(faults) > allowed * total:
        raise DataError(
            f"{origin}: {len(faults)} of {total} {things} cannot be used, more than the share "
            f"{setting} = {allowed:g} allows; first {'; '.join(faults[:_NAMED])}. "
            f"Correct the {things}, or raise {setting}"
        )
