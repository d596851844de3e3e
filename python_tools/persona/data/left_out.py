"""What is left out of a user's files: counted always, named where it is a fault, never in silence.

A few faults are put up with; more than an allowed share means that the files are not what the
user thinks they are.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from persona.data.base import DataError

UNREAD = "files that were not read"
"""The reason by which `unread` files are counted."""

_NAMED = 5


def visible(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files in a folder that fit a pattern, sorted, less those whose name begins with a dot."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def unread(
    folder: Path, read: Collection[Path], expected: str, patterns: Sequence[str] = ("*",)
) -> tuple[str, ...]:
    """A fault for each file in or below a folder that fits a pattern and is not among `read`.

    Hidden files and folders, whose names begin with a dot, are passed over.
    expected: where files should be, or what was read instead.
    """
    names = sorted(
        {
            path.relative_to(folder).as_posix()
            for pattern in patterns
            for path in folder.rglob(pattern)
            if path not in read and path.is_file()
        }
    )
    return tuple(
        f"{name}: not read; {expected}"
        for name in names
        if not any(part.startswith(".") for part in name.split("/"))
    )


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
