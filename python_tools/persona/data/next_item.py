"""Next-item ranking on interaction logs: a user is a device, and what comes next is the query.

A window is a stretch of a user's history; queries rank the true next items, one after the other,
among items that the user never met. Item ids count from 1; 0 is no item, in histories and among
candidates.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.data.base import Arrays, DataError, Dataset, Device, Sources, Split
from persona.data.interaction_log import Log
from persona.data.rows import unix_seconds
from persona.data.stable_splits import check_shares, seed_of, split_by_name

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HELD_OUT = 4096
"""Most examples in the fixed set that chooses the backbone's checkpoint."""

_ROWS = 512
"""Users whose items are looked up at a time: a byte each user and item."""


@dataclass(frozen=True)
class Scenario:
    """What a device sees, what it is asked, and who trains what.

    Three scenarios:

    - *New session* (neither `staleness` nor `split_time`): the device sees only the last few items,
      a session, and the window is the history before it. At each query it sees the `session` items
      before the target.
    - *Full window* (`staleness`): as before, but the window ends `staleness` items before the first
      query, whatever the session; at 0 it holds all that came before. With queries = 1 every query
      is that stale; with more, each is one staler than the one before.
    - *Time split* (`split_time`): the backbone trains on events before that time alone, among items
      that somebody met before it; the windows of validation and test users are their histories
      before it, less the last `staleness` items where that is set, and their queries are the first
      `queries` events at or after it. Adapter users teach with earlier moments alone. Backbone and
      adapter users with fewer than `minimum` events before it are left out, as are validation and
      test users with fewer than `minimum - queries` before it or fewer than `queries` after it.

    length: items in the model's history input. session: how many of them are filled, at most.
    history: most items in a window. candidates: ranked at a query, the true next item included.
    queries: consecutive next items a device is asked about.
    minimum: users with fewer events are left out, so a window has `minimum - queries` items or
    more, less `staleness`, or `session` in a new session; that is 1 or more.
    moments: devices that one adapter user makes, each at another moment of the history.
    staleness: items between the window's end and the first query. None: a new session, or none in a
    time split.
    split_time: a time in the log's unit (unix seconds in public logs), or an ISO date, in UTC.
    full_ranking: validation and test queries rank all items that the user never met, and the
    target, at a random place. Rows have equal length, and end with zeros where they are shorter.
    Training and the choice of the backbone's checkpoint keep to `candidates`.
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
    staleness: int | None = None
    split_time: float | str | None = None
    full_ranking: bool = False

    def __post_init__(self) -> None:
        """Raises DataError where the settings contradict each other."""
        if not 1 <= self.session <= self.length:
            raise DataError(
                f"session must be 1 to length ({self.length}), got {self.session}: "
                "the device cannot see more items than its history input holds"
            )
        for name, least in (("history", 1), ("candidates", 2), ("queries", 1), ("moments", 1)):
            if getattr(self, name) < least:
                raise DataError(f"{name} must be {least} or more, got {getattr(self, name)}")
        if self.staleness is not None and self.staleness < 0:
            raise DataError(
                f"staleness must be 0 or more, got {self.staleness}: a window ends before the query"
            )
        self.split_moment()
        if self.minimum <= self.gap() + self.queries:
            name = "session" if self._is_new_session() else "staleness"
            raise DataError(
                f"minimum must exceed {name} + queries = {self.gap() + self.queries}, got "
                f"{self.minimum}: nothing would be left for the window"
            )
        check_shares(self.shares(), "users")

    def _is_new_session(self) -> bool:
        return self.staleness is None and self.split_time is None

    def gap(self) -> int:
        """Items between the end of the window and the first query."""
        return self.session if self._is_new_session() else self.staleness or 0

    def split_moment(self) -> float:
        """`split_time` in the log's unit; infinity where there is none.

        Raises DataError where it is neither a number nor an ISO date.
        """
        if self.split_time is None:
            return math.inf
        try:
            moment = float(self.split_time)
        except ValueError:
            try:
                moment = unix_seconds(str(self.split_time))
            except ValueError:
                moment = math.nan
        if not math.isfinite(moment):
            raise DataError(
                "split_time must be unix seconds or an ISO date such as 2014-01-31, got "
                f"{self.split_time!r}"
            )
        return moment

    def shares(self) -> dict[str, float]:
        """Split -> its share, without the test users, which are the rest."""
        return {
            "backbone": self.backbone_share,
            "adapter": self.adapter_share,
            "validation": self.validation_share,
        }


class NextItem(Dataset):
    """A log in memory, split by user into backbone, adapter, validation and test devices.

    A repeated meeting of an item is dropped: negatives are never met, so a model could win by
    recognising items. Equal times are ordered by `split_seed`, not by the file, which often
    orders them by item.
    `left_out` counts what was dropped, by reason; begins with what the reader left out.
    Raises DataError where a split has no users left, or the catalogue is too small.
    """

    scenario_settings = Scenario

    def __init__(
        self, log: Log, scenario: Scenario, left_out: Mapping[str, int] | None = None
    ) -> None:
        self.scenario = scenario
        self.item_names = log.item_names
        self.left_out: Counter[str] = Counter(left_out)
        self._fingerprint = log.fingerprint()
        self._names = log.user_names
        self._count = len(log.item_names)
        self._all_items = np.arange(1, self._count + 1)
        before = self._arrange(log)
        # Items that training may rank: those that somebody met before the time of the split.
        self._known_items = np.unique(self._items[before])
        self._members: dict[str, Ints] = self._usable(self._split())
        self._pools = {
            name: self._positions(self._members[name]) for name in ("backbone", "validation")
        }
        asked = np.concatenate([self._members["validation"], self._members["test"]])
        # Candidates in a full ranking: enough for the user who met fewest.
        self._full_width = self._count + 1 - int(np.diff(self._start)[asked].min())

    def _arrange(self, log: Log) -> Bools:
        """Sort events by user and time, each item once. Returns which are before `split_time`."""
        order = np.lexsort((log.items, log.times, log.users))
        ties = np.random.default_rng(seed_of("ties", self.scenario.split_seed)).random(len(order))
        users, times = log.users[order], log.times[order]
        tied = (np.diff(users) == 0) & (np.diff(times) == 0)
        # The group of events with one user and one time that each belongs to.
        group = np.concatenate([[0], np.cumsum(~tied)])
        order = order[np.lexsort((ties, group))]
        users, items, times = log.users[order], log.items[order], log.times[order]
        pairs = users * (self._count + 1) + items
        by_pair = np.argsort(pairs, kind="stable")
        again = np.zeros(len(pairs), bool)
        again[by_pair[1:]] = np.diff(pairs[by_pair]) == 0
        self.left_out["repeated events"] = int(again.sum())
        self._user, self._items = users[~again], items[~again]
        # Events of user u are at self._start[u] : self._start[u + 1].
        self._start = np.searchsorted(self._user, np.arange(len(self._names) + 1))
        before = times[~again] < self.scenario.split_moment()
        # Of them, those before self._end[u] are before the time of the split.
        self._end = self._start[:-1] + np.bincount(self._user[before], minlength=len(self._names))
        return before

    def _split(self) -> dict[str, Ints]:
        """Split by a hash of the name, so that more data move no user to another split."""
        users = np.flatnonzero(np.diff(self._start))
        shares = self.scenario.shares()
        split = split_by_name(
            [self._names[u] for u in users],
            list(shares.values()),
            self.scenario.split_seed,
        )
        return {name: users[split == i] for i, name in enumerate((*shares, "test"))}

    def _usable(self, members: dict[str, Ints]) -> dict[str, Ints]:
        """The users of each split with enough events, and enough items that they never met."""
        s = self.scenario
        known = np.zeros(self._count + 1, bool)
        known[self._known_items] = True
        met = np.bincount(self._user[known[self._items]], minlength=len(self._names))
        full = len(self._known_items) - met < s.candidates - 1
        events = np.diff(self._start)
        before = self._end - self._start[:-1]
        usable: dict[str, Ints] = {}
        for split, users in members.items():
            if s.split_time is None:
                reasons = {"users with too few events": events < s.minimum}
            elif split in ("backbone", "adapter"):
                reasons = {"users with too few events before split_time": before < s.minimum}
            else:
                reasons = {
                    "users with too few events before split_time": before < s.minimum - s.queries,
                    "users with too few events after split_time": events - before < s.queries,
                }
            left = users
            for reason, short in {**reasons, "users with too few unmet items": full}.items():
                self.left_out[reason] += int(short[left].sum())
                left = left[~short[left]]
            usable[split] = left
        empty = [split for split, users in usable.items() if not len(users)]
        if empty:
            raise DataError(
                f"no users for {', '.join(empty)}: {sum(map(len, usable.values()))} of "
                f"{len(self._names)} can be used ({self.summary()}); give more users, lower "
                "minimum or candidates, or change the shares"
                + ("" if s.split_time is None else " or split_time")
            )
        return usable

    def _positions(self, users: Ints) -> Ints:
        """The places of all events that have one before them, and lie before `split_time`."""
        return np.concatenate(
            [np.arange(self._start[u] + 1, self._end[u], dtype=np.int64) for u in users]
        )

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

    def _met_items(self, users: Ints) -> Bools:
        """Which items each user ever met: [n, items + 1]."""
        met = np.zeros((len(users), self._count + 1), bool)
        events = self._start[users + 1] - self._start[users]
        row = np.repeat(np.arange(len(users)), events)
        first = self._start[users] - np.concatenate([[0], events.cumsum()[:-1]])
        met[row, self._items[first[row] + np.arange(len(row))]] = True
        return met

    def _were_met(self, users: Ints, items: Ints) -> Bools:
        """Whether each user ever met each of its items: [n, k] for users [n] and items [n, k]."""
        found = np.empty(items.shape, bool)
        for begin in range(0, len(users), _ROWS):
            rows = slice(begin, begin + _ROWS)
            some, row = np.unique(users[rows], return_inverse=True)
            found[rows] = self._met_items(some)[row[:, None], items[rows]]
        return found

    def _unmet(self, users: Ints, pool: Ints, rng: np.random.Generator) -> Ints:
        """For each user, distinct random items of `pool` that the user never met:
        [n, candidates - 1].

        Draws with replacement and keeps the first of each item; rows that end up short draw
        again, twice as many.
        """
        wanted = self.scenario.candidates - 1
        found = np.zeros((len(users), wanted), np.int64)
        rows, draws = np.arange(len(users)), 2 * wanted
        while len(rows):
            items = pool[rng.integers(len(pool), size=(len(rows), draws))]
            # Equal items are neighbours when sorted, in the order in which they were drawn.
            bits = draws.bit_length()
            drawn = np.sort((items << bits) + np.arange(draws), axis=1)
            row, place = np.nonzero(np.diff(drawn >> bits, axis=1) == 0)
            fresh = ~self._were_met(users[rows], items)
            fresh[row, drawn[row, place + 1] & ((1 << bits) - 1)] = False
            rank = fresh.cumsum(axis=1)
            enough = rank[:, -1] >= wanted
            taken = fresh & (rank <= wanted)
            found[rows[enough]] = items[enough][taken[enough]].reshape(-1, wanted)
            rows, draws = rows[~enough], 2 * draws
        return found

    def _examples(
        self, positions: Ints, pool: Ints, rng: np.random.Generator
    ) -> tuple[Arrays, Ints]:
        """Rank the item at each place among unmet ones: (history, candidates), targets [n]."""
        negatives = self._unmet(self._user[positions], pool, rng)
        targets = rng.integers(self.scenario.candidates, size=len(positions))
        candidates = np.insert(negatives, 0, self._items[positions], axis=1)
        everyone = np.arange(len(positions))
        candidates[:, 0] = candidates[everyone, targets]
        candidates[everyone, targets] = self._items[positions]
        return (self._histories(positions), candidates), targets

    def _full_examples(
        self, user: int, positions: Ints, rng: np.random.Generator
    ) -> tuple[Arrays, Ints]:
        """Rank the items at some places of one user among all that the user never met."""
        unmet = np.flatnonzero(~self._met_items(np.array([user]))[0, 1:]) + 1
        targets = rng.integers(len(unmet) + 1, size=len(positions))
        candidates = np.zeros((len(positions), self._full_width), np.int64)
        for row, place, position in zip(candidates, targets, positions, strict=True):
            row[: len(unmet) + 1] = np.insert(unmet, place, self._items[position])
        return (self._histories(positions), candidates), targets

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Arrays, Ints]:
        """Examples at random positions of the backbone users, all positions equally likely.

        Returns ((history [size, length], candidates [size, candidates]), targets [size]).
        """
        return self._examples(rng.choice(self._pools["backbone"], size), self._known_items, rng)

    def held_out(self) -> tuple[Arrays, Ints]:
        """Positions of the validation users, at most `HELD_OUT`; shapes as in `batch`."""
        rng = np.random.default_rng(seed_of("held out", self.scenario.split_seed))
        pool = self._pools["validation"]
        chosen = rng.choice(pool, min(HELD_OUT, len(pool)), replace=False)
        return self._examples(chosen, self._known_items, rng)

    def backbone_sources(self) -> dict[str, Sources]:
        names = self.split_names()
        return {
            part: Sources(frozenset(names[split]))
            for part, split in (("training", "backbone"), ("held-out", "validation"))
        }

    def _cuts(self, user: int, split: Split, seed: int) -> Ints:
        """Lengths of the history up to a window's end, one a device of this user.

        Validation and test users are asked about their last items, or the first ones from
        `split_time` on; an adapter user, in order to teach more, at up to `moments` random
        moments, before `split_time`.
        """
        s = self.scenario
        before = int(self._end[user] - self._start[user])
        last = before - s.gap() - s.queries
        if split != "adapter":
            return np.array([last if s.split_time is None else before - s.gap()])
        first = s.minimum - s.gap() - s.queries
        rng = np.random.default_rng(seed_of("moments", seed, self._names[user]))
        return rng.permutation(np.arange(first, last + 1))[: s.moments]

    def _device(self, split: Split, user: int, cut: int, seed: int) -> Device:
        s = self.scenario
        name = f"{self._names[user]}@{cut}" if split == "adapter" else self._names[user]
        begin = int(self._start[user])
        window = self._items[begin + max(0, cut - s.history) : begin + cut]
        positions = begin + cut + s.gap() + np.arange(s.queries)
        rng = np.random.default_rng(seed_of("negatives", seed, name))
        if split == "adapter":
            queries, targets = self._examples(positions, self._known_items, rng)
        elif s.full_ranking:
            queries, targets = self._full_examples(user, positions, rng)
        else:
            queries, targets = self._examples(positions, self._all_items, rng)
        return Device(name, (window.copy(),), queries, targets, owner=self._names[user])

    def devices(self, split: Split, count: int, seed: int) -> list[Device]:
        """Users of a split as devices, in an order fixed by the seed, as are all negatives.

        window: (items int64 [w],), oldest first, 1 <= w <= `history`.
        queries: (history [queries, length], candidates [queries, candidates]); in a full ranking
        the candidates of validation and test devices are [queries, c] with one c for all devices,
        and end with zeros where the user has fewer.
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
        return [self._device(split, user, cut, seed) for user, cut in chosen[:count]]
