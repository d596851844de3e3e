"""Your own sensor logs as CSV: a row is one sample, with its device, time, label and channels."""

import csv
import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from persona.data.base import DataError, datasets
from persona.data.sensor_streams import SensorScenario, SensorStreams, Stretch


@dataclass(frozen=True)
class SensorColumns:
    """Names of columns.

    order: a number that grows inside a recording, such as a time. recording: None where each
    device has one. channels: numbers, in the order in which the model takes them; none named
    means all other columns. gap: a step of `order` above it begins another stretch.
    """

    device: str = "device"
    order: str = "time"
    label: str = "label"
    recording: str | None = None
    channels: tuple[str, ...] = ()
    gap: float = math.inf


@dataclass(frozen=True)
class Sample:
    """One row of a log."""

    device: str
    recording: str
    order: float
    label: str
    values: list[float]


def _number(text: str, column: str, origin: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{origin}: column {column} should be a finite number, got {text!r}")
    return value


def read_log(path: Path, columns: SensorColumns) -> tuple[list[Sample], tuple[str, ...]]:
    """The rows of a file, and the names of its channels.

    Raises DataError where a column is missing or a value is not a number, with the line.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = list(reader.fieldnames or [])
        roles = [columns.device, columns.order, columns.label]
        roles += [columns.recording] if columns.recording else []
        channels = columns.channels or tuple(name for name in header if name not in roles)
        missing = [name for name in (*roles, *channels) if name not in header]
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(header) or 'none'}. "
                "Name the columns with device, order, label, recording and channels"
            )
        if not channels:
            raise DataError(f"{path} has no channels beside {', '.join(roles)}")
        samples = []
        for row in reader:
            origin = f"{path}: line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{origin} does not have {len(header)} fields")
            for role in (columns.device, columns.label):
                if not row[role]:
                    raise DataError(f"{origin}: column {role} is empty")
            samples.append(
                Sample(
                    row[columns.device],
                    row[columns.recording] if columns.recording else "",
                    _number(row[columns.order], columns.order, origin),
                    row[columns.label],
                    [_number(row[name], name, origin) for name in channels],
                )
            )
    return samples, channels


def stretches_of(samples: list[Sample], gap: float, labels: tuple[str, ...]) -> list[Stretch]:
    """Rows in order, broken where the device, the recording or the label changes, or at a gap.

    Raises DataError where two rows of a recording have the same place in its order.
    """
    ordered = sorted(samples, key=lambda s: (s.device, s.recording, s.order))
    stretch_of, before = 0, None
    numbered = []
    for sample in ordered:
        if before is not None:
            together = (sample.device, sample.recording) == (before.device, before.recording)
            if together and sample.order == before.order:
                raise DataError(
                    f"device {sample.device} has two samples at {sample.order:g} of one "
                    "recording; name the recording column, or make the order unique"
                )
            step = sample.order - before.order
            stretch_of += not together or sample.label != before.label or step > gap
        numbered.append((stretch_of, sample))
        before = sample
    stretches = []
    for _, group in groupby(numbered, key=lambda pair: pair[0]):
        members = [sample for _, sample in group]
        signal = np.array([sample.values for sample in members], np.float32)
        stretches.append(Stretch(members[0].device, labels.index(members[0].label), signal))
    return stretches


@datasets.register("sensor-csv")
class SensorCsv(SensorStreams):
    """Your own sensor logs: CSV with columns device, time, label and one for each channel.

    root: a file, or a folder of them with equal columns. device, order, label, recording,
    channels, gap: see `SensorColumns`. Further settings are those of `SensorScenario`, except
    that placements are not simulated unless asked for: rotation is 0 and gain 1.
    Windows are cut inside one stretch of one label. A bad row is an error: leaving it out would
    tear its neighbours together.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        device: str = SensorColumns.device,
        order: str = SensorColumns.order,
        label: str = SensorColumns.label,
        recording: str | None = None,
        channels: tuple[str, ...] = (),
        gap: float = math.inf,
        **scenario: Any,
    ) -> None:
        as_carried: dict[str, Any] = {"rotation": 0.0, "gain": (1.0, 1.0)}
        settings = SensorScenario(**as_carried | scenario)
        columns = SensorColumns(device, order, label, recording, tuple(channels), gap)
        if root is None or not root.exists():
            raise DataError(f"sensor-csv needs a root: a .csv file or a folder of them, got {root}")
        files = [root] if root.is_file() else sorted(root.glob("*.csv"))
        logs = [(path, *read_log(path, columns)) for path in files]
        samples = [sample for _, rows, _ in logs for sample in rows]
        if not samples:
            raise DataError(f"expected rows of sensor samples in .csv files, found none in {root}")
        for path, _, names in logs:
            if names != logs[0][2]:
                raise DataError(
                    f"{path} has channels {', '.join(names)}, {logs[0][0]} "
                    f"{', '.join(logs[0][2])}; name them in channels"
                )
        labels = tuple(sorted({sample.label for sample in samples}))
        if len(labels) < 2:
            raise DataError(f"expected two labels or more in {root}, found only {labels[0]}")
        super().__init__(stretches_of(samples, gap, labels), labels, settings)
