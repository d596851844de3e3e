"""Logs of who met which item when: from the rows of files to events, and which are left out."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from persona.data.base import DataError
from persona.data.left_out import UNREAD, UNUSABLE, refuse_many, unread, visible
from persona.data.rows import Clock, Floats, Ints, Rows, coded, numbers, plain_times, wrong

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Log:
    """Events as columns, one entry an event, in any order.

    users: int64 [n], indices into `user_names`. items: int64 [n], indices into `item_names` + 1.
    times: float64 [n], in any unit.
    """

    users: Ints
    items: Ints
    times: Floats
    user_names: tuple[str, ...]
    item_names: tuple[str, ...]

    def fingerprint(self) -> str:
        """sha256 over all columns, in the order of the events."""
        digest = hashlib.sha256()
        for column in (self.users, self.items, self.times):
            digest.update(np.ascontiguousarray(column).data)
        for names in (self.user_names, self.item_names):
            digest.update("\n".join(names).encode())
        return digest.hexdigest()

    def only(self, kept: Bools) -> "Log":
        """The events where `kept` [n] is true, and the users and items that they name."""
        users, user_names = _renumbered(self.users[kept], self.user_names)
        items, item_names = _renumbered(self.items[kept] - 1, self.item_names)
        return Log(users, items + 1, self.times[kept], user_names, item_names)


def _renumbered(codes: Ints, names: tuple[str, ...]) -> tuple[Ints, tuple[str, ...]]:
    used = np.zeros(len(names), bool)
    used[codes] = True
    return (used.cumsum() - 1)[codes], tuple(names[i] for i in np.flatnonzero(used))


@dataclass(frozen=True)
class Columns:
    """The names of an event's columns; `rating` where it is read."""

    user: str
    item: str
    time: str
    rating: str | None = None

    def names(self) -> tuple[str, ...]:
        """All of them, in this order."""
        named = (self.user, self.item, self.time, self.rating)
        return tuple(name for name in named if name is not None)


@dataclass(frozen=True)
class ReadLog:
    """A log, what was wrong with each row that is not in it, and what was left out, by reason."""

    log: Log
    faults: tuple[str, ...]
    left_out: Counter[str]


def make_log(
    rows: Rows,
    columns: Columns,
    origin: str,
    bad_rows: float,
    clock: Clock = plain_times,
    minimum_rating: float | None = None,
) -> ReadLog:
    """Check rows, and leave out those without a user, an item, or a time (or rating) to read.

    origin: the file's name. bad_rows: the share of rows that may be unusable.
    clock: reads the column of times.
    minimum_rating: events rated lower are left out, too, and counted; needs a column of ratings.
    Raises DataError where too many rows are bad, or no row is left.
    """
    users, user_names = coded(rows.values[0], '"')
    items, item_names = coded(rows.values[1], '"')
    times, expected = clock(rows.values[2])
    read = [times, *(numbers(column) for column in rows.values[3:])]
    bad = (users < 0) | (items < 0) | np.any([np.isnan(values) for values in read], axis=0)
    indices = np.flatnonzero(bad)
    places = rows.places(indices)
    named = [
        (int(place), _fault(rows, columns, int(index), users, items, read, expected))
        for index, place in zip(indices, places, strict=True)
        if place
    ]
    faults = tuple(
        f"{rows.thing} {place}: {said}" for place, said in sorted([*rows.broken, *named])
    )
    total = len(users) - int((places == 0).sum()) + len(rows.broken)
    refuse_many(faults, total, origin, "rows", "bad_rows", bad_rows)
    good = ~bad
    if not good.any():
        raise DataError(f"{origin} has no rows; expected one row an event")
    left_out = Counter({UNUSABLE: len(faults)})
    if minimum_rating is not None:
        low = good & (read[1] < minimum_rating)
        left_out[f"events rated below {minimum_rating:g}"] = int(low.sum())
        good &= ~low
        if not good.any():
            raise DataError(
                f"{origin} has no event rated {minimum_rating:g} or more; lower minimum_rating"
            )
    log = Log(users, items + 1, read[0], user_names, item_names)
    return ReadLog(log if good.all() else log.only(good), faults, left_out)


def _fault(
    rows: Rows,
    columns: Columns,
    index: int,
    users: Ints,
    items: Ints,
    read: list[Floats],
    expected: str,
) -> str:
    """What is wrong with the row at `index`: the first thing that is."""
    if users[index] < 0:
        return f"{columns.user} is missing"
    if items[index] < 0:
        return f"{columns.item} is missing"
    checks = zip(columns.names()[2:], rows.values[2:], read, (expected, "a number"), strict=False)
    for name, column, values, kind in checks:
        if np.isnan(values[index]):
            return wrong(name, column[index].as_py(), kind)
    raise AssertionError("no fault in a row that has one")


def k_core(read: ReadLog, core: int) -> ReadLog:
    """The largest part of a log where each user met, and each item was met by, `core` others.

    Users and items with fewer are left out in turns, until none is left that has fewer. A user who
    meets an item again counts once. Raises DataError where nothing is left.
    """
    log, left_out = read.log, Counter(read.left_out)
    pairs = log.users * (len(log.item_names) + 1) + log.items
    counted = np.zeros(len(pairs), bool)
    counted[np.unique(pairs, return_index=True)[1]] = True
    kept = np.ones(len(pairs), bool)
    while True:
        seen = kept & counted
        users = np.bincount(log.users[seen], minlength=len(log.user_names))
        items = np.bincount(log.items[seen] - 1, minlength=len(log.item_names))
        fewer = kept & ((users[log.users] < core) | (items[log.items - 1] < core))
        if not fewer.any():
            break
        kept &= ~fewer
    if not kept.any():
        raise DataError(f"nothing is left with core = {core}; lower it, or give more events")
    left = log.only(kept) if not kept.all() else log
    for things, before, after in (
        ("events", len(log.users), len(left.users)),
        ("users", len(log.user_names), len(left.user_names)),
        ("items", len(log.item_names), len(left.item_names)),
    ):
        left_out[f"{things} outside the {core}-core"] = before - after
    return replace(read, log=left, left_out=left_out)


def with_unread(read: ReadLog, root: Path | None, path: Path, patterns: Sequence[str]) -> ReadLog:
    """The same, with a fault for each other file below `root` that fits a pattern, and a count."""
    if root is None or path == root:
        return read
    others = unread(root, {path}, f"{path.name} was", patterns)
    if not others:
        return read
    left_out = Counter({**read.left_out, UNREAD: len(others)})
    return replace(read, faults=(*read.faults, *others), left_out=left_out)


def find_file(root: Path | None, patterns: Sequence[str], what: str) -> Path:
    """The file that `root` is, or the only one in the folder that it is with such a name.

    patterns: as for `Path.glob`, in the order of preference: the first with a file decides.
    what: the data set's name, for messages.
    Raises DataError when there is none, or more than one.
    """
    expected = ", ".join(patterns)
    if root is None or not root.exists():
        raise DataError(f"{what} need a root: a file or folder with {expected}, got {root}")
    if root.is_file():
        return root
    for pattern in patterns:
        found = visible(root, [pattern])
        if len(found) == 1:
            return found[0]
        if found:
            came = ", ".join(path.name for path in found)
            raise DataError(
                f"expected one {pattern} in {root}, found {came}; give the file itself as the "
                "data set's root"
            )
    there = sorted(path.name for path in root.iterdir())
    came = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
    raise DataError(f"expected {expected} in {root}, found {came or 'none'}")
