"""Interaction logs as devices: a user is a device, and the task is to rank the next item.

The scenario is a new session: the device sees only a user's last few items, while the window is
the history before that session. Queries rank the true next item among items never met.
"""

import csv
import gzip
import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from persona.data.base import Arrays, DataError, Dataset, Device, Split, datasets
from persona.data.left_out import refuse_many, summary
from persona.data.stable_splits import check_shares, seed_of, split_by_name

Ints = NDArray[np.int64]

HELD_OUT = 4096
"""Most examples in the fixed set that chooses the backbone's checkpoint."""


@dataclass(frozen=True)
class Log:
    """Events as columns, one entry an event, in any order.

    users: int64 [n], indices into `user_names`. items: int64 [n], indices into `item_names` + 1.
    times: float64 [n], in any unit.
    """

    users: Ints
    items: Ints
    times: NDArray[np.float64]
    user_names: tuple[str, ...]
    item_names: tuple[str, ...]

    def fingerprint(self) -> str:
        """sha256 over all columns, in the order of the events."""
        digest = hashlib.sha256()
        for column in (self.users, self.items, self.times):
            digest.update(column.tobytes())
        for names in (self.user_names, self.item_names):
            digest.update("\n".join(names).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Scenario:
    """What a device sees, what it is asked, and who trains what.

    length: items in the model's history input. session: how many of them are filled, at most.
    history: most items in a window. candidates: ranked at a query, the true next item included.
    queries: consecutive next items a device is asked about; the first follows its session.
    minimum: users with fewer events are left out, so a window has `minimum - session - queries`
    items or more.
    moments: devices that one adapter user makes, each at another moment of the history.
    backbone_share, adapter_share, validation_share: of the users; the rest are for testing.
    split_seed: another seed splits the users otherwise, and orders equal times otherwise.
    """

    length: int = 10
    session: int = 3
    history: int = 100
    candidates: int = 100
    queries: int = 5
    minimum: int = 16
    moments: int = 32
    backbone_share: float = 0.45
    adapter_share: float = 0.3
    validation_share: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Raises DataError where the settings contradict each other."""
        if not 1 <= self.session <= self.length:
            raise DataError(
                f"session must be 1 to length ({self.length}), got {self.session}: "
                "the device cannot see more items than its history input holds"
            )
        if self.minimum <= self.session + self.queries:
            raise DataError(
                f"minimum must exceed session + queries = {self.session + self.queries}, got "
                f"{self.minimum}: nothing would be left for the window"
            )
        check_shares(self.shares(), "users")

    def shares(self) -> dict[str, float]:
        """Split -> its share, without the test users, which are the rest."""
        return {
            "backbone": self.backbone_share,
            "adapter": self.adapter_share,
            "validation": self.validation_share,
        }


def find_log(root: Path) -> Path:
    """The CSV file that `root` is, or the only one in the folder that it is.

    Raises DataError when there is none, or more than one.
    """
    if root.is_file():
        return root
    found = sorted(p for p in root.glob("*") if p.name.endswith((".csv", ".csv.gz")))
    if len(found) != 1:
        came = ", ".join(p.name for p in found) or "none"
        raise DataError(
            f"expected one .csv or .csv.gz file in {root}, found {came}; "
            "give the file itself as the data set's root"
        )
    return found[0]


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _fault(values: list[str], names: tuple[str, str, str]) -> str | None:
    """What is wrong with a row's user, item and time; None where nothing is."""
    for value, name in zip(values, names, strict=True):
        if not value:
            return f"{name} is missing"
    try:
        finite = math.isfinite(float(values[2]))
    except ValueError:
        finite = False
    return None if finite else f"{names[2]} should be a number, is {values[2]!r}"


def read_log(
    path: Path, user: str, item: str, time: str, bad_rows: float
) -> tuple[Log, tuple[str, ...]]:
    """Read three named columns of a CSV file with a header; other columns are ignored.

    user, item: columns of ids, any text. time: column of numbers, ascending in time.
    bad_rows: the share of rows that may be unusable; those are left out.
    Returns the log, and what was wrong with each row left out, with its line number.
    Raises DataError where columns are missing, too many rows are bad or no row is left.
    """
    names = (user, item, time)
    rows: list[list[str]] = []
    faults: list[str] = []
    with _open(path) as lines:
        reader = csv.reader(lines)
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in names if name not in header]
        if missing:
            raise DataError(
                f"{path.name} has no column {', '.join(missing)}; its columns are "
                f"{', '.join(header) or 'none'}; name the right ones as user, item and time"
            )
        places = [header.index(name) for name in names]
        for row in reader:
            if not row:
                continue
            values = [row[p].strip() if p < len(row) else "" for p in places]
            fault = _fault(values, names)
            if fault is None:
                rows.append(values)
            else:
                faults.append(f"line {reader.line_num}: {fault}")
    total = len(rows) + len(faults)
    refuse_many(faults, total, path.name, "rows", "bad_rows", bad_rows)
    if not rows:
        raise DataError(f"{path.name} has a header and no rows; expected one row an event")
    columns = list(zip(*rows, strict=True))
    user_names, users = np.unique(np.array(columns[0]), return_inverse=True)
    item_names, items = np.unique(np.array(columns[1]), return_inverse=True)
    log = Log(
        users.astype(np.int64),
        items.astype(np.int64) + 1,
        np.array(columns[2], np.float64),
        tuple(user_names.tolist()),
        tuple(item_names.tolist()),
    )
    return log, tuple(faults)


class NextItem(Dataset):
    """A log in memory, split by user into backbone, adapter, validation and test devices.

    A repeated meeting of an item is dropped: negatives are never met, so a model could win by
    recognising items. Equal times are ordered by `split_seed`, not by the file, which often
    orders them by item.
    `left_out` counts what was dropped, by reason.
    Raises DataError where a split has no users left, or the catalogue is too small.
    """

    def __init__(self, log: Log, scenario: Scenario) -> None:
        self.scenario = scenario
        self.item_names = log.item_names
        self.left_out: Counter[str] = Counter()
        self._fingerprint = log.fingerprint()
        self._names = log.user_names
        self._count = len(log.item_names)
        users = self._arrange(log)
        self._met = np.zeros((len(self._names), self._count // 8 + 1), np.uint8)
        np.bitwise_or.at(
            self._met,
            (self._user, self._items >> 3),
            np.left_shift(1, self._items & 7).astype(np.uint8),
        )
        usable = self._usable(users)
        self._members: dict[str, Ints] = self._split(usable)
        self._pools = {
            name: self._positions(self._members[name]) for name in ("backbone", "validation")
        }

    def _arrange(self, log: Log) -> Ints:
        """Sort events by user and time, each item once; returns the users that have any."""
        order = np.lexsort((log.items, log.times, log.users))
        ties = np.random.default_rng(seed_of("ties", self.scenario.split_seed)).random(len(order))
        order = order[np.lexsort((ties, log.times[order], log.users[order]))]
        users, items = log.users[order], log.items[order]
        first = np.unique(users * (self._count + 1) + items, return_index=True)[1]
        self.left_out["repeated events"] = len(items) - len(first)
        first.sort()
        self._user, self._items = users[first], items[first]
        # Events of user u are at self._start[u] : self._start[u + 1].
        self._start = np.searchsorted(self._user, np.arange(len(self._names) + 1))
        return np.unique(self._user)

    def _usable(self, users: Ints) -> Ints:
        events = np.diff(self._start)[users]
        short = events < self.scenario.minimum
        full = ~short & (self._count - events < self.scenario.candidates - 1)
        self.left_out["users with too few events"] = int(short.sum())
        self.left_out["users with too few unmet items"] = int(full.sum())
        return users[~short & ~full]

    def _split(self, users: Ints) -> dict[str, Ints]:
        """Split by a hash of the name, so that more data move no user to another split."""
        shares = self.scenario.shares()
        split = split_by_name(
            [self._names[u] for u in users],
            list(shares.values()),
            self.scenario.split_seed,
        )
        members = {name: users[split == i] for i, name in enumerate((*shares, "test"))}
        empty = [name for name, found in members.items() if not len(found)]
        if empty:
            raise DataError(
                f"no users for {', '.join(empty)}: {len(users)} of {len(self._names)} can be used "
                f"({self.summary()}); give more users, lower minimum or candidates, or "
                "change the shares"
            )
        return members

    def _positions(self, users: Ints) -> Ints:
        """The places of all events that have one before them."""
        return np.concatenate(
            [np.arange(self._start[u] + 1, self._start[u + 1], dtype=np.int64) for u in users]
        )

    def summary(self) -> str:
        """What was left out, in one line, for reports."""
        return summary(self.left_out)

    def split_names(self) -> dict[str, tuple[str, ...]]:
        """Split, or "backbone" -> the names of its users."""
        return {
            split: tuple(self._names[u] for u in users) for split, users in self._members.items()
        }

    def backbone_settings(self) -> dict[str, Any]:
        return {"items": self._count, "length": self.scenario.length}

    def fingerprint(self) -> str:
        return self._fingerprint

    def _histories(self, positions: Ints) -> Ints:
        """The last `session` items before each event, padded on the left: [n, length]."""
        histories = np.zeros((len(positions), self.scenario.length), np.int64)
        start = self._start[self._user[positions]]
        for back in range(1, self.scenario.session + 1):
            there = positions - back >= start
            histories[there, -back] = self._items[positions[there] - back]
        return histories

    def _unmet(self, users: Ints, rng: np.random.Generator) -> Ints:
        """For each user, distinct random items that the user never met: [n, candidates - 1].

        Draws with replacement and keeps the first of each item; rows that end up short draw
        again, twice as many.
        """
        wanted = self.scenario.candidates - 1
        found = np.zeros((len(users), wanted), np.int64)
        rows, draws = np.arange(len(users)), 2 * wanted
        while len(rows):
            items = rng.integers(1, self._count + 1, (len(rows), draws))
            order = np.argsort(items, axis=1, kind="stable")
            ascending = np.take_along_axis(items, order, axis=1)
            fresh = np.ones(items.shape, bool)
            np.put_along_axis(fresh, order[:, 1:], np.diff(ascending, axis=1) != 0, axis=1)
            fresh &= self._met[users[rows, None], items >> 3] >> (items & 7) & 1 == 0
            rank = fresh.cumsum(axis=1)
            enough = rank[:, -1] >= wanted
            taken = fresh & (rank <= wanted)
            found[rows[enough]] = items[enough][taken[enough]].reshape(-1, wanted)
            rows, draws = rows[~enough], 2 * draws
        return found

    def _examples(self, positions: Ints, rng: np.random.Generator) -> tuple[Arrays, Ints]:
        """Rank the item at each place among unmet ones: (history, candidates), targets [n]."""
        negatives = self._unmet(self._user[positions], rng)
        targets = rng.integers(self.scenario.candidates, size=len(positions))
        candidates = np.insert(negatives, 0, self._items[positions], axis=1)
        everyone = np.arange(len(positions))
        candidates[:, 0] = candidates[everyone, targets]
        candidates[everyone, targets] = self._items[positions]
        return (self._histories(positions), candidates), targets

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Arrays, Ints]:
        """Examples at random positions of the backbone users, all positions equally likely.

        Returns ((history [size, length], candidates [size, candidates]), targets [size]).
        """
        return self._examples(rng.choice(self._pools["backbone"], size), rng)

    def held_out(self) -> tuple[Arrays, Ints]:
        """Positions of the validation users, at most `HELD_OUT`; shapes as in `batch`."""
        rng = np.random.default_rng(seed_of("held out", self.scenario.split_seed))
        pool = self._pools["validation"]
        return self._examples(rng.choice(pool, min(HELD_OUT, len(pool)), replace=False), rng)

    def _cuts(self, user: int, split: Split, seed: int) -> Ints:
        """Lengths of the history before a session, one a device of this user.

        Validation and test users are asked about their last items; an adapter user, in order to
        teach more, at up to `moments` random moments.
        """
        s = self.scenario
        first = s.minimum - s.session - s.queries
        last = int(self._start[user + 1] - self._start[user]) - s.session - s.queries
        if split != "adapter":
            return np.array([last])
        rng = np.random.default_rng(seed_of("moments", seed, self._names[user]))
        return rng.permutation(np.arange(first, last + 1))[: s.moments]

    def _device(self, user: int, cut: int, name: str, seed: int) -> Device:
        s = self.scenario
        begin = int(self._start[user])
        window = self._items[begin + max(0, cut - s.history) : begin + cut]
        positions = begin + cut + s.session + np.arange(s.queries)
        rng = np.random.default_rng(seed_of("negatives", seed, name))
        queries, targets = self._examples(positions, rng)
        return Device(name, (window.copy(),), queries, targets)

    def devices(self, split: Split, count: int, seed: int) -> list[Device]:
        """Users of a split as devices, in an order fixed by the seed, as are all negatives.

        window: (items int64 [w],), oldest first, 1 <= w <= `history`.
        queries: (history [queries, length], candidates [queries, candidates]).
        Targets follow each other in time; each history holds the `session` items before its
        target, and the window ends before the first of them. Adapter users come again, at other
        moments, once all have come; then names carry the moment, as in "17@42".
        """
        users = np.random.default_rng(seed_of("order", split, seed)).permutation(
            self._members[split]
        )
        cuts = [self._cuts(int(user), split, seed) for user in users]
        chosen = [
            (int(user), int(cut[turn]))
            for turn in range(max(map(len, cuts)))
            for user, cut in zip(users, cuts, strict=True)
            if turn < len(cut)
        ]
        return [
            self._device(
                user,
                cut,
                f"{self._names[user]}@{cut}" if split == "adapter" else self._names[user],
                seed,
            )
            for user, cut in chosen[:count]
        ]


@datasets.register("interactions")
class Interactions(NextItem):
    """A log of who met which item when, in a CSV file: next-item ranking in a new session.

    root: a .csv or .csv.gz file, or a folder holding one.
    user, item, time: names of the columns. bad_rows: the share of unusable rows to put up with.
    Further settings are those of `Scenario`. `faults` names the rows left out.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        user: str = "user_id",
        item: str = "item_id",
        time: str = "timestamp",
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        if root is None or not root.exists():
            raise DataError(f"interactions need a root: a .csv or .csv.gz file, got {root}")
        settings = Scenario(**scenario)
        log, self.faults = read_log(find_log(root), user, item, time, bad_rows)
        super().__init__(log, settings)
        self.left_out["unusable rows"] = len(self.faults)
