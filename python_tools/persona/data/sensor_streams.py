"""Sensor windows of people, each device a person with the phone somewhere.

A stretch is one activity of one person in one recording. Windows are cut inside stretches, none
over a break, where samples are missing. A device's window and its queries come from different
stretches (where a person has only one of an activity, from its two halves), so that overlapping
windows never lie on both sides.
"""

import copy
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from persona.data.base import (
    Arrays,
    DataError,
    Dataset,
    Device,
    Sources,
    Spans,
    Split,
    split_window,
)
from persona.data.habits import BalancedPool, Habits, check_habits, class_mix, draw
from persona.data.sensor_shifts import PlacementShift, align_gravity, place
from persona.data.stable_splits import seed_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

HELD_OUT = 4096
"""Windows in the fixed set that chooses the backbone's checkpoint."""


@dataclass(frozen=True)
class Stretch:
    """One activity of one person.

    person: whose. label: index of the activity. signal: float32 [samples, channels].
    breaks: ascending places in `signal` before which samples are missing.
    """

    person: str
    label: int
    signal: Floats
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class SensorScenario:
    """How windows are cut, what a device sees and is asked, and who trains what.

    length, step: samples of a window, and from the start of one to that of the next.
    window, queries: windows that a device sees, and others that it is asked about.
    habits: concentration of the Dirichlet mix of activities; small means strong habits, 0 none:
    all activities equally frequent; of several, each device draws one. rotation, gain: see
    `PlacementShift`; a person has another placement on each of their devices. gravity_aligned:
    turns each window by `align_gravity`, as the app then has to; a static model profits too.
    folds, fold: people are cut into so many parts, and part `fold` is for testing. The next one
    holds the held-out and the validation people: they choose checkpoints and train nothing.
    backbone_share: of the people in the other parts; the rest of those train the adapter, on
    devices that the backbone never saw. Going through all folds tests on everyone.
    streams: most devices of one person in a call for validation or testing, 0 for any number.
    backbone_sees_adapter: trains the backbone on the adapter's people too: the static rival with
    all the data. An adapter trained on it learns from devices that it knows by heart.
    split_seed: another one makes other parts.
    """

    length: int = 128
    step: int = 64
    window: int = 20
    queries: int = 20
    habits: Habits = 0.0
    rotation: float = 180.0
    gain: tuple[float, float] = (0.9, 1.1)
    gravity_aligned: bool = False
    folds: int = 6
    fold: int = 0
    backbone_share: float = 0.5
    streams: int = 20
    backbone_sees_adapter: bool = False
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Raises DataError where a setting makes no sense."""
        least = {"length": 2, "step": 1, "window": 1, "queries": 1, "streams": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise DataError(f"{name} must be {value} or more, got {getattr(self, name)}")
        check_habits(self.habits)
        if self.folds < 3 or not 0 <= self.fold < self.folds:
            raise DataError(
                f"folds must be 3 or more and fold 0 to folds − 1, got folds = {self.folds} and "
                f"fold = {self.fold}"
            )
        if not 0 < self.backbone_share < 1:
            raise DataError(f"backbone_share must be between 0 and 1, got {self.backbone_share}")

    def placement(self) -> PlacementShift:
        """What placements are drawn from. Raises DataError where its settings make no sense."""
        low, high = self.gain
        return PlacementShift(self.rotation, (low, high))


def window_starts(samples: int, length: int, step: int, breaks: Sequence[int] = ()) -> Ints:
    """First samples of the windows that fit before, between and after breaks."""
    parts = pairwise((0, *breaks, samples))
    return np.concatenate([np.arange(first, end - length + 1, step) for first, end in parts])


def halves(starts: Ints, samples: int, length: int) -> tuple[Ints, Ints]:
    """Windows that end by the middle of a stretch, and those that begin there or later."""
    middle = samples // 2
    return starts[starts + length <= middle], starts[starts >= middle]


@dataclass(frozen=True)
class Windows:
    """All windows: values [n, channels, length], labels [n] and spans [n, 2].

    blocks: person -> label -> two or more sets of windows, of which none overlaps another set.
    """

    values: Floats
    labels: Ints
    spans: Spans
    blocks: dict[str, dict[int, list[Ints]]]

    def of(self, people: Sequence[str]) -> Ints:
        """Indices of all windows of these people."""
        sets = (s for p in people for blocks in self.blocks[p].values() for s in blocks)
        return np.concatenate(list(sets))


def cut(stretches: Sequence[Stretch], length: int, step: int, left_out: Counter[str]) -> Windows:
    """Cut stretches into windows; counts those left out, too short or copies, in `left_out`.

    A copy of another stretch would show a device what it is asked: MotionSense has one.
    Raises DataError where no window is left.
    """
    values: list[Floats] = []
    labels: list[int] = []
    begins: list[int] = []
    grouped: dict[tuple[str, int], list[tuple[int, Floats, Ints]]] = {}
    met: set[bytes] = set()
    ends = np.cumsum([len(stretch.signal) for stretch in stretches])
    for stretch, end in zip(stretches, ends.tolist(), strict=True):
        starts = window_starts(len(stretch.signal), length, step, stretch.breaks)
        if not len(starts):
            left_out[f"stretches shorter than {length} samples"] += 1
            continue
        content = hashlib.sha256(stretch.signal.tobytes()).digest()
        if content in met:
            left_out["stretches that are copies of another"] += 1
            continue
        met.add(content)
        first = end - len(stretch.signal)
        found = (first, stretch.signal, starts)
        grouped.setdefault((stretch.person, stretch.label), []).append(found)
    blocks: dict[str, dict[int, list[Ints]]] = {}
    for (person, label), cuts in grouped.items():
        if len(cuts) == 1:
            first, signal, starts = cuts[0]
            cuts = [(first, signal, half) for half in halves(starts, len(signal), length)]
        if any(len(starts) == 0 for _, _, starts in cuts):
            left_out["activities of a person too short for a window and queries"] += 1
            continue
        for first, signal, starts in cuts:
            places = np.arange(len(labels), len(labels) + len(starts))
            blocks.setdefault(person, {}).setdefault(label, []).append(places)
            values.extend(signal[start : start + length].T for start in starts)
            labels.extend([label] * len(starts))
            begins.extend((first + starts).tolist())
    if not values:
        raise DataError(
            f"no recording is long enough for windows of {length} samples; set a smaller length"
        )
    begin = np.array(begins, np.int64)
    spans = np.stack([begin, begin + length], axis=1)
    return Windows(np.stack(values), np.array(labels, np.int64), spans, blocks)


class SensorStreams(Dataset):
    """Base of data sets of sensor recordings; a subclass reads them and calls `__init__`.

    label_names: of the activities. stretches: all of them, with equally many channels.
    left_out, faults: what the reader left out: see `Dataset`.
    Inputs are windows [n, channels, length] in the units of the files.
    Raises DataError where too few people or windows are left.
    """

    scenario_settings = SensorScenario

    def __init__(
        self,
        stretches: Sequence[Stretch],
        label_names: tuple[str, ...],
        scenario: SensorScenario,
        left_out: Mapping[str, int],
        faults: tuple[str, ...],
    ) -> None:
        if not stretches:
            raise DataError("no recording has a row that can be used")
        self.scenario, self.label_names, self.faults = scenario, label_names, faults
        self.shift = scenario.placement()
        self.left_out: Counter[str] = Counter(left_out)
        self.channels = stretches[0].signal.shape[1]
        if (self.shift.changes or scenario.gravity_aligned) and self.channels % 3:
            raise DataError(
                "rotation, gain and gravity_aligned need channels in threes (x, y, z of a sensor), "
                f"got {self.channels}; set rotation = 0, gain = [1, 1], gravity_aligned = false"
            )
        odd = sorted({s.person for s in stretches if "@" in s.person})
        if odd:
            raise DataError(f"names of people must not hold '@', got {', '.join(odd[:3])}")
        self.windows = cut(stretches, scenario.length, scenario.step, self.left_out)
        self.people = self._parts(self._usable())
        trained = list(self.people["backbone"])
        if scenario.backbone_sees_adapter:
            trained += self.people["adapter"]
        labels = self.windows.labels
        people = {"backbone": trained, "held-out": self.people["held-out"]}
        members = {name: self.windows.of(found) for name, found in people.items()}
        self._pools = {name: BalancedPool(found, labels) for name, found in members.items()}
        self._sources = {
            part: Sources(frozenset(people[pool]), self.windows.spans[members[pool]])
            for part, pool in (("training", "backbone"), ("held-out", "held-out"))
        }
        digest = hashlib.sha256("\0".join(label_names).encode())
        for stretch in stretches:
            digest.update(f"{stretch.person}\0{stretch.label}\0{len(stretch.signal)}".encode())
            digest.update(np.ascontiguousarray(stretch.signal).tobytes())
            digest.update(np.array(stretch.breaks, np.int64).tobytes())
        self._fingerprint = digest.hexdigest()

    def _usable(self) -> list[str]:
        """People whose sides have enough windows, whichever blocks fall to them."""
        needed = max(self.scenario.window, self.scenario.queries)
        usable = [
            person
            for person, blocks in self.windows.blocks.items()
            if sum(min(map(len, sets)) for sets in blocks.values()) >= needed
        ]
        few = len(self.windows.blocks) - len(usable)
        if few:
            self.left_out["people with too few windows for a device"] += few
        return usable

    def _parts(self, people: list[str]) -> dict[str, list[str]]:
        """Split -> its people; held-out and validation are the same ones."""
        s = self.scenario
        if len(people) < max(s.folds, 4):
            raise DataError(
                f"{s.folds} folds need {max(s.folds, 4)} people, {len(people)} can be used "
                f"({self.summary() or 'none was left out'}); set fewer folds, or lower window, "
                "queries, length or step"
            )
        order = sorted(people, key=lambda person: seed_of("split", s.split_seed, person))
        parts = [list(part) for part in np.array_split(np.array(order, dtype=object), s.folds)]
        test, choosing = parts[s.fold], parts[(s.fold + 1) % s.folds]
        rest = [person for person in order if person not in {*test, *choosing}]
        many = min(max(1, round(s.backbone_share * len(rest))), len(rest) - 1)
        return {
            "backbone": rest[:many],
            "adapter": rest[many:],
            "held-out": choosing,
            "validation": choosing,
            "test": test,
        }

    def backbone_settings(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "length": self.scenario.length,
            "classes": len(self.label_names),
        }

    def fingerprint(self) -> str:
        return self._fingerprint

    def gravity_aligned(self) -> Self:
        """The same windows of the same people, each turned by `align_gravity`."""
        turned = copy.copy(self)
        turned.scenario = replace(self.scenario, gravity_aligned=True)
        return turned

    def _carried(self, picked: Ints, rng: np.random.Generator, placements: int) -> Floats:
        """Windows under one placement, or under one each."""
        values = self.windows.values[picked]
        if self.shift.changes:
            values = place(values, self.shift.draw(rng, placements, self.channels // 3))
        return align_gravity(values) if self.scenario.gravity_aligned else values

    def _pooled(self, rng: np.random.Generator, size: int, pool: str) -> tuple[Arrays, Ints]:
        """Windows of many devices, one each: activities equally frequent."""
        picked = self._pools[pool].pick(rng, size)
        return (self._carried(picked, rng, size),), self.windows.labels[picked]

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Arrays, Ints]:
        return self._pooled(rng, size, "backbone")

    def held_out(self) -> tuple[Arrays, Ints]:
        return self._pooled(np.random.default_rng(21), HELD_OUT, "held-out")

    def backbone_sources(self) -> dict[str, Sources]:
        return self._sources

    def devices(self, split: Split, count: int, seed: int) -> list[Device]:
        """Devices of a split: all people once in an order fixed by the seed, then again.

        Each device of a person has its own habits, placement and windows; its name is the
        person, "@", the split, the seed and a number.
        """
        people = self.people[split]
        order = np.random.default_rng(seed_of("order", split, seed)).permutation(len(people))
        if self.scenario.streams and split != "adapter":
            count = min(count, len(people) * self.scenario.streams)
        turns = (divmod(turn, len(people)) for turn in range(count))
        return [
            self._device(people[order[place]], f"{split}-{seed}-{number:03d}")
            for number, place in turns
        ]

    def _device(self, person: str, moment: str) -> Device:
        name = f"{person}@{moment}"
        rng = np.random.default_rng(seed_of("draw", name))
        mix = class_mix(rng, len(self.label_names), self.scenario.habits)
        w = self.scenario.window
        drawn = np.concatenate(
            [
                side[draw(rng, self.windows.labels[side], mix, count)]
                for side, count in zip(
                    self._sides(person, rng), (w, self.scenario.queries), strict=True
                )
            ]
        )
        values, labels = self._carried(drawn, rng, 1), self.windows.labels[drawn]
        return split_window(name, person, values, labels, self.windows.spans[drawn], w)

    def _sides(self, person: str, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """What the window may hold, and what the queries may: other blocks of each activity."""
        sides: tuple[list[Ints], list[Ints]] = ([], [])
        for blocks in self.windows.blocks[person].values():
            order = rng.permutation(len(blocks))
            border = rng.integers(1, len(blocks))
            sides[0].extend(blocks[b] for b in order[:border])
            sides[1].extend(blocks[b] for b in order[border:])
        return np.concatenate(sides[0]), np.concatenate(sides[1])
