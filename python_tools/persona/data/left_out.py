"""What is left out of a user's files: counted always, named where it is a fault, never in silence.

A few faults are put up with; more than an allowed share means that the files are not what the
user thinks they are.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from persona.data.base import DataError

UNREAD = "files that were not read"
"""The reason by which `unread` files are counted."""

UNUSABLE = "unusable rows"
"""The reason by which rows with a fault are counted."""

_NAMED = 5


def visible(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files in a folder that fit a pattern, sorted; those that are hidden are passed over.

    Hidden is what has a name that begins with a dot, and what lies in such a folder below `folder`.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def unread(
    folder: Path, read: Collection[Path], expected: str, patterns: Sequence[str] = ("*",)
) -> tuple[str, ...]:
    """A fault for each visible file in or below a folder that fits a pattern and is not in `read`.

    expected: where files should be, or what was read instead.
    """
    found = visible(folder, [f"**/{pattern}" for pattern in patterns])
    names = (path.relative_to(folder).as_posix() for path in found if path not in read)
    return not_read(sorted(names), expected)


def not_read(names: Iterable[str], expected: str) -> tuple[str, ...]:
    """The fault of each file that lies where none is read from. expected: see `unread`."""
    return tuple(f"{name}: not read; {expected}" for name in names)


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
