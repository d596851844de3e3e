"""HAPT: smartphone activities and the postures between them, from the UCI repository.

Source: Reyes-Ortiz et al., "Transition-Aware Human Activity Recognition Using Smartphones"
(Neurocomputing, 2016). RawData/ holds acc_expXX_userYY.txt in g, gyro_expXX_userYY.txt in rad/s,
both three columns at 50 samples a second, and labels.txt: experiment, user, activity, first and
last sample, counted from 1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.data.base import DataError, datasets
from persona.data.left_out import UNREAD, UNUSABLE, refuse_many, unread
from persona.data.rows import read_numbers
from persona.data.sensor_streams import SensorScenario, SensorStreams, Stretch

FOLDER = "RawData"
LABELS = "labels.txt"
ACTIVITIES = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "laying")
TRANSITIONS = (
    "stand to sit",
    "sit to stand",
    "sit to lie",
    "lie to sit",
    "stand to lie",
    "lie to stand",
)

_NAME = re.compile(r"acc_exp(\d+)_user(\d+)\.txt")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recording:
    """files: of the accelerometer and the gyroscope. signal: [samples, 6], bad rows as nan."""

    files: tuple[Path, Path]
    signal: Floats


def read_recordings(
    folder: Path, bad_rows: float
) -> tuple[dict[tuple[int, int], Recording], list[str]]:
    """Experiment and user -> recording; and what is wrong with the bad rows.

    Raises DataError where they are more than the share `bad_rows`.
    """
    recordings: dict[tuple[int, int], Recording] = {}
    faults: list[str] = []
    for path in sorted(folder.glob("acc_exp*_user*.txt")):
        found = _NAME.fullmatch(path.name)
        turning_at = path.with_name(path.name.replace("acc_", "gyro_", 1))
        if found is None or not turning_at.is_file():
            continue
        files = (path, turning_at)
        tables = []
        for file in files:
            table, _, bad = read_numbers(file, 3)
            faults += [f"{file.name}: line {line}: {said}" for line, said in bad]
            tables.append(table)
        rows = max(map(len, tables))
        signal = np.full((rows, 6), np.nan)
        for place, (file, table) in enumerate(zip(files, tables, strict=True)):
            signal[: len(table), 3 * place : 3 * place + 3] = table
            missing = range(len(table) + 1, rows + 1)
            other = files[1 - place].name
            faults += [f"{file.name}: row {row}: missing, {other} goes on" for row in missing]
        recordings[int(found[1]), int(found[2])] = Recording(files, signal)
    total = sum(2 * len(recording.signal) for recording in recordings.values())
    refuse_many(faults, total, str(folder), "rows", "bad_rows", bad_rows)
    return recordings, faults


@dataclass(frozen=True)
class Label:
    """One row of labels.txt. activity, first and last count from 1; last is included."""

    experiment: int
    user: int
    activity: int
    first: int
    last: int


@dataclass(frozen=True)
class Labels:
    """spans: the rows that can be used. faults: what is wrong with each other one."""

    spans: tuple[Label, ...]
    faults: tuple[str, ...]


def read_labels(
    folder: Path, recordings: Mapping[tuple[int, int], Recording], bad_rows: float
) -> Labels:
    """What the recordings show when. Raises DataError where too many rows are bad."""
    path = folder / LABELS
    table, lines, bad = read_numbers(path, 5)
    wrong = dict(bad)
    spans = []
    for line, values in zip(lines, table, strict=True):
        if line not in wrong and (said := _wrong_label(values, recordings)):
            wrong[line] = said
        if line not in wrong:
            spans.append(Label(*values.astype(int).tolist()))
    faults = tuple(f"{LABELS}: line {line}: {said}" for line, said in sorted(wrong.items()))
    refuse_many(faults, len(lines), str(path), "rows", "bad_rows", bad_rows)
    return Labels(tuple(spans), faults)


def _wrong_label(values: Floats, recordings: Mapping[tuple[int, int], Recording]) -> str:
    """What is wrong with a row of labels; empty where nothing is."""
    if (values != np.floor(values)).any():
        return f"expected whole numbers, got {' '.join(f'{v:g}' for v in values)}"
    experiment, user, activity, first, last = values.astype(int).tolist()
    if not 1 <= activity <= len(ACTIVITIES + TRANSITIONS):
        return f"activity should be 1 to {len(ACTIVITIES + TRANSITIONS)}, is {activity}"
    if (experiment, user) not in recordings:
        name = f"exp{experiment:02d}_user{user:02d}.txt"
        return f"there is no acc_{name} with a gyro_{name} beside it"
    samples = len(recordings[experiment, user].signal)
    if not 1 <= first <= last <= samples:
        return f"samples {first} to {last} of a recording of {samples}"
    return ""


@datasets.register("hapt")
class Hapt(SensorStreams):
    """HAPT (UCI): unseen people with a phone at the waist, turned as placements say.

    root: RawData or the folder that holds it. transitions: whether the six transitions between
    postures are classes too; they last seconds, so that windows must be short.
    bad_rows: the share of unusable rows to put up with, in the recordings and in labels.txt; no
    window goes over a row that is left out. Further settings are those of `SensorScenario`.
    Inputs are [n, 6, length]: acceleration in g, then rotation rate in rad/s.
    `faults` names the rows left out, and files that were not read.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        transitions: bool = False,
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        settings = SensorScenario(**scenario)
        folders = [] if root is None else [root, root / FOLDER]
        folder = next((f for f in folders if (f / LABELS).is_file()), None)
        if folder is None:
            raise DataError(f"expected {LABELS} in {root} or its {FOLDER}")
        names = ACTIVITIES + (TRANSITIONS if transitions else ())
        recordings, faults = read_recordings(folder, bad_rows)
        labels = read_labels(folder, recordings, bad_rows)
        stretches = [
            _stretch(label, recordings) for label in labels.spans if label.activity <= len(names)
        ]
        if not stretches:
            raise DataError(f"{folder / LABELS} names no stretch of the activities asked for")
        named = {(label.experiment, label.user) for label in labels.spans}
        read = {file for key in named for file in recordings[key].files}
        others = unread(folder, {*read, folder / LABELS}, f"no recording that {LABELS} names")
        left_out = {
            UNUSABLE: len(faults),
            f"{UNUSABLE} of {LABELS}": len(labels.faults),
            "stretches of transitions": len(labels.spans) - len(stretches),
            UNREAD: len(others),
        }
        super().__init__(stretches, names, settings, left_out, (*faults, *labels.faults, *others))


def _stretch(label: Label, recordings: Mapping[tuple[int, int], Recording]) -> Stretch:
    signal = recordings[label.experiment, label.user].signal[label.first - 1 : label.last]
    whole = np.isfinite(signal).all(axis=1)
    breaks = np.unique(np.cumsum(whole)[~whole]).tolist()
    kept = signal[whole].astype(np.float32)
    return Stretch(f"u{label.user:02d}", label.activity - 1, kept, tuple(breaks))
