"""MotionSense: an iPhone in the pocket of 24 people doing six things, 50 samples a second.

Source: Malekzadeh et al., "Mobile Sensor Data Anonymization" (2019). Files are
A_DeviceMotion_data/ACTIVITY_TRIAL/sub_PERSON.csv, such as dws_1/sub_7.csv, with named columns.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from persona.data.base import DataError, datasets
from persona.data.left_out import UNREAD, UNUSABLE, refuse_many, unread
from persona.data.rows import NumberTable, TextForm, number_table, read_text
from persona.data.sensor_streams import Floats, SensorScenario, SensorStreams, Stretch

ACTIVITIES = ("dws", "ups", "wlk", "jog", "sit", "std")
FOLDER = "A_DeviceMotion_data"

_SENSORS = ("gravity", "userAcceleration", "rotationRate")
_COLUMNS = tuple(f"{sensor}.{axis}" for sensor in _SENSORS for axis in "xyz")
_PLACE = re.compile(rf"({'|'.join(ACTIVITIES)})_\d+/sub_(\d+)\.csv")


def motion_of(table: NumberTable) -> Floats:
    """Acceleration with gravity in g and rotation rate in rad/s, float32 [samples, 6]."""
    gravity, user, turning = np.split(table.values, 3, axis=1)
    return np.concatenate([gravity + user, turning], axis=1).astype(np.float32)


@datasets.register("motion-sense")
class MotionSense(SensorStreams):
    """MotionSense: unseen people who carry the phone in unknown placements; six activities.

    root: A_DeviceMotion_data or the folder that holds it. bad_rows: the share of unusable rows,
    and of recordings without rows, to put up with; no window goes over a row that is left out.
    Further settings are those of `SensorScenario`. Placements are simulated by rotation and gain.
    A device's window comes from other trials than its queries. Inputs are [n, 6, length]:
    acceleration with gravity in g, then rotation rate in rad/s.
    `faults` names the rows and recordings left out, and files in other places.
    """

    def __init__(self, root: Path | None, *, bad_rows: float = 0.001, **scenario: Any) -> None:
        settings = SensorScenario(**scenario)
        folder, places = _find(root)
        stretches: list[Stretch] = []
        faults: list[str] = []
        empty: list[str] = []
        total = 0
        for path, (activity, person) in places.items():
            name = path.relative_to(folder).as_posix()
            remedy = f"the file is {path}; get it again"
            table = number_table(read_text(path, TextForm(), _COLUMNS, remedy), _COLUMNS)
            faults += [f"{name}: line {line}: {said}" for line, said in table.faults]
            total += table.total
            if not table.total:
                empty.append(f"{name}: no rows")
            label = ACTIVITIES.index(activity)
            stretches.append(Stretch(f"u{person:02d}", label, motion_of(table), table.breaks))
        refuse_many(faults, total, str(folder), "rows", "bad_rows", bad_rows)
        refuse_many(empty, len(places), str(folder), "recordings", "bad_rows", bad_rows)
        others = unread(folder, places, "recordings are at ACTIVITY_TRIAL/sub_PERSON.csv")
        super().__init__(
            [stretch for stretch in stretches if len(stretch.signal)],
            ACTIVITIES,
            settings,
            {
                UNUSABLE: len(faults),
                "recordings without rows": len(empty),
                UNREAD: len(others),
            },
            (*faults, *empty, *others),
        )


def _find(root: Path | None) -> tuple[Path, dict[Path, tuple[str, int]]]:
    """The folder of the recordings, and the activity and person of each."""
    for folder in [] if root is None else [root, root / FOLDER]:
        found = {
            path: (place[1], int(place[2]))
            for path in sorted(folder.glob("*_*/sub_*.csv"))
            if (place := _PLACE.fullmatch(path.relative_to(folder).as_posix()))
        }
        if found:
            return folder, found
    raise DataError(
        f"expected {FOLDER} with files such as dws_1/sub_1.csv in {root}; unpack "
        "A_DeviceMotion_data.zip and give that folder"
    )
