"""MotionSense: an iPhone in the pocket of 24 people doing six things, 50 samples a second.

Source: Malekzadeh et al., "Mobile Sensor Data Anonymization" (2019). Files are
A_DeviceMotion_data/ACTIVITY_TRIAL/sub_PERSON.csv, such as dws_1/sub_7.csv, with named columns.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from persona.data.base import DataError, datasets
from persona.data.sensor_streams import Floats, SensorScenario, SensorStreams, Stretch

ACTIVITIES = ("dws", "ups", "wlk", "jog", "sit", "std")
FOLDER = "A_DeviceMotion_data"

_SENSORS = ("gravity", "userAcceleration", "rotationRate")
_COLUMNS = tuple(f"{sensor}.{axis}" for sensor in _SENSORS for axis in "xyz")
_PLACE = re.compile(rf"({'|'.join(ACTIVITIES)})_\d+/sub_(\d+)\.csv")


def read_motion(path: Path) -> Floats:
    """Acceleration with gravity in g and rotation rate in rad/s, float32 [samples, 6].

    Raises DataError where a column is missing or a value is not a number.
    """
    with path.open(encoding="utf-8") as lines:
        header = lines.readline().strip().split(",")
        missing = [name for name in _COLUMNS if name not in header]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)}; it has {header}")
        try:
            table = np.loadtxt(
                lines, delimiter=",", usecols=[header.index(n) for n in _COLUMNS], ndmin=2
            )
        except ValueError as error:
            raise DataError(f"{path}, after the header: {error}") from None
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: line {bad[0] + 2} holds a value that is not a number")
    gravity, user, turning = np.split(table, 3, axis=1)
    return np.concatenate([gravity + user, turning], axis=1).astype(np.float32)


@datasets.register("motion-sense")
class MotionSense(SensorStreams):
    """MotionSense: unseen people who carry the phone in unknown placements; six activities.

    root: A_DeviceMotion_data or the folder that holds it. Settings are those of
    `SensorScenario`. Placements are simulated by rotation and gain. A device's window comes from
    other trials than its queries. Inputs are [n, 6, length]: acceleration with gravity in g,
    then rotation rate in rad/s.
    """

    def __init__(self, root: Path | None, **scenario: Any) -> None:
        settings = SensorScenario(**scenario)
        folders = [] if root is None else [root, root / FOLDER]
        found = [
            (path, place)
            for folder in folders
            for path in sorted(folder.glob("*_*/sub_*.csv"))
            if (place := _PLACE.fullmatch(path.relative_to(folder).as_posix()))
        ]
        if not found:
            raise DataError(
                f"expected {FOLDER} with files such as dws_1/sub_1.csv in {root}; unpack "
                "A_DeviceMotion_data.zip and give that folder"
            )
        stretches = [
            Stretch(f"u{int(place[2]):02d}", ACTIVITIES.index(place[1]), read_motion(path))
            for path, place in found
        ]
        super().__init__(stretches, ACTIVITIES, settings)
