"""HAPT: smartphone activities and the postures between them, from the UCI repository.

Source: Reyes-Ortiz et al., "Transition-Aware Human Activity Recognition Using Smartphones"
(Neurocomputing, 2016). RawData/ holds acc_expXX_userYY.txt in g, gyro_expXX_userYY.txt in rad/s,
both three columns at 50 samples a second, and labels.txt: experiment, user, activity, first and
last sample, counted from 1.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.data.base import DataError, datasets
from persona.data.sensor_streams import Floats, SensorScenario, SensorStreams, Stretch

FOLDER = "RawData"
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


def read_numbers(path: Path, columns: int) -> NDArray[np.float64]:
    """A table of finite numbers between spaces. Raises DataError for anything else."""
    if not path.is_file():
        raise DataError(f"there is no {path}")
    try:
        table = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    if table.shape[1] != columns:
        raise DataError(f"{path} has {table.shape[1]} columns, expected {columns}")
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: row {bad[0] + 1} holds a value that is not a number")
    return table


def read_recordings(folder: Path) -> dict[tuple[int, int], Floats]:
    """Experiment and user -> acceleration and rotation rate, float32 [samples, 6]."""
    recordings = {}
    for path in sorted(folder.glob("acc_exp*_user*.txt")):
        found = _NAME.fullmatch(path.name)
        if found is None:
            continue
        turning_at = path.with_name(path.name.replace("acc_", "gyro_", 1))
        pair = [read_numbers(file, 3) for file in (path, turning_at)]
        if len(pair[0]) != len(pair[1]):
            raise DataError(f"{path} has {len(pair[0])} rows, {turning_at.name} {len(pair[1])}")
        key = (int(found[1]), int(found[2]))
        recordings[key] = np.concatenate(pair, axis=1).astype(np.float32)
    return recordings


@datasets.register("hapt")
class Hapt(SensorStreams):
    """HAPT (UCI): unseen people with a phone at the waist, turned as placements say.

    root: RawData or the folder that holds it. transitions: whether the six transitions between
    postures are classes too; they last seconds, so that windows must be short.
    Settings are those of `SensorScenario`. Inputs are [n, 6, length]: acceleration in g, then
    rotation rate in rad/s.
    """

    def __init__(self, root: Path | None, *, transitions: bool = False, **scenario: Any) -> None:
        settings = SensorScenario(**scenario)
        folders = [] if root is None else [root, root / FOLDER]
        folder = next((f for f in folders if (f / "labels.txt").is_file()), None)
        if folder is None:
            raise DataError(f"expected labels.txt in {root} or its {FOLDER}")
        names = ACTIVITIES + (TRANSITIONS if transitions else ())
        recordings = read_recordings(folder)
        stretches = []
        rows = read_numbers(folder / "labels.txt", 5).astype(np.int64)
        for row, (experiment, user, activity, first, last) in enumerate(rows.tolist(), 1):
            place = f"{folder / 'labels.txt'}: row {row}"
            if not 1 <= activity <= len(ACTIVITIES + TRANSITIONS):
                raise DataError(f"{place} has activity {activity}, expected 1 to 12")
            if (experiment, user) not in recordings:
                raise DataError(
                    f"{place}: there is no acc_exp{experiment:02d}_user{user:02d}.txt beside it"
                )
            signal = recordings[experiment, user]
            if not 1 <= first <= last <= len(signal):
                raise DataError(
                    f"{place} is for samples {first} to {last} of a recording of {len(signal)}"
                )
            if activity <= len(names):
                stretches.append(Stretch(f"u{user:02d}", activity - 1, signal[first - 1 : last]))
        if not stretches:
            raise DataError(f"{folder / 'labels.txt'} names no stretch of the activities asked for")
        super().__init__(stretches, names, settings)
