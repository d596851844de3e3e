"""Your own sensor logs as CSV: a row is one sample, with its device, time, label and channels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from persona.data.base import DataError, datasets
from persona.data.left_out import UNREAD, UNUSABLE, refuse_many, unread, visible
from persona.data.rows import (
    Floats,
    Ints,
    Rows,
    TextForm,
    any_times,
    check_separator,
    coded,
    column_names,
    numbers,
    read_text,
    wrong,
)
from persona.data.sensor_streams import SensorScenario, SensorStreams, Stretch

Bools = NDArray[np.bool_]

PATTERNS = ("*.csv", "*.csv.gz")

_REMEDY = "name the right ones as device, order, label, recording, channels and separator"


@dataclass(frozen=True)
class SensorColumns:
    """Names of columns.

    order: a number or an ISO date that grows inside a recording, such as a time. recording: None
    where each device has one. channels: numbers, in the order in which the model takes them; none
    named means all other columns.
    """

    device: str = "device"
    order: str = "time"
    label: str = "label"
    recording: str | None = None
    channels: tuple[str, ...] = ()

    def roles(self) -> tuple[str, ...]:
        """Those that are no channels: device, order, label and recording, or the device again."""
        return (self.device, self.order, self.label, self.recording or self.device)

    def channels_of(self, path: Path, form: TextForm) -> tuple[str, ...]:
        """The channels of a file. Raises DataError where it has none."""
        if self.channels:
            return self.channels
        header = column_names(path, form)
        found = tuple(name for name in header if name not in self.roles())
        if not found and set(self.roles()) <= set(header):
            raise DataError(
                f"{path} has no channels beside {', '.join(dict.fromkeys(self.roles()))}"
            )
        return found


@dataclass(frozen=True)
class Samples:
    """The rows of all files, one after the other; -1 and nan where a value cannot be read.

    devices, labels: [n], indices into the names. recordings, order: [n]. values: [n, channels].
    expected: what the order should be, such as "a number".
    """

    devices: Ints
    recordings: Ints
    order: Floats
    labels: Ints
    values: Floats
    expected: str
    device_names: tuple[str, ...]
    label_names: tuple[str, ...]

    def placed(self) -> Bools:
        """Which rows [n] say where they belong."""
        return (self.devices >= 0) & (self.recordings >= 0) & np.isfinite(self.order)

    def unreadable(self) -> Bools:
        """Which values [n, columns] cannot be read: device, order, label, recording, channels."""
        ids = (self.devices < 0, np.isnan(self.order), self.labels < 0, self.recordings < 0)
        return np.concatenate([np.stack(ids, axis=1), np.isnan(self.values)], axis=1)

    def ranked(self, places: Ints) -> Ints:
        """The same places, by device, recording and order; then as in the files."""
        keys = (self.order[places], self.recordings[places], self.devices[places])
        return places[np.lexsort(keys)]

    def repeated(self, among: Bools) -> Bools:
        """Which rows [n] have the device, recording and order of one before, both `among` [n]."""
        again = np.zeros(len(self.devices), bool)
        ranked = self.ranked(np.flatnonzero(among))
        keys = np.stack([self.devices, self.recordings, self.order], axis=1)[ranked]
        again[ranked[1:]] = (keys[1:] == keys[:-1]).all(axis=1)
        return again


def parse(files: Sequence[Rows]) -> Samples:
    """Columns come as device, order, label, recording and channels."""
    device, order, label, recording, *channels = (
        pa.chunked_array([chunk for column in parts for chunk in column.chunks], pa.string())
        for parts in zip(*(rows.values for rows in files), strict=True)
    )
    devices, device_names = coded(device)
    times, expected = any_times(order)
    labels, label_names = coded(label)
    values = np.stack([numbers(column) for column in channels], axis=1)
    return Samples(
        devices, coded(recording)[0], times, labels, values, expected, device_names, label_names
    )


def find_torn(samples: Samples, usable: Bools, missing: Bools, broken_at: Sequence[int]) -> Bools:
    """Which usable samples [n] follow one that is missing: no window may hold both neighbours.

    A missing row's place is told by its device, recording and order; where these cannot be read,
    by the rows after it in the file, of its device or, where that is unknown, of each.
    missing: rows left out. broken_at: the rows before which others were, that were no rows at all.
    """
    torn = np.zeros(len(usable), bool)
    placed = samples.placed()
    ranked = samples.ranked(np.flatnonzero(placed & (usable | missing)))
    gone = missing[ranked].cumsum()[usable[ranked]]
    torn[ranked[usable[ranked]][1:]] = np.diff(gone) > 0
    lost = [(i, int(samples.devices[i])) for i in np.flatnonzero(missing & ~placed).tolist()]
    lost += [(place, -1) for place in broken_at]
    if lost:
        found = np.flatnonzero(usable)
        found = found[np.argsort(samples.devices[found], kind="stable")]
        counts = np.bincount(samples.devices[found], minlength=len(samples.device_names))
        for device, own in enumerate(np.split(found, counts.cumsum()[:-1])):
            after = np.searchsorted(own, [place for place, of in lost if of in (-1, device)])
            torn[own[after[after < len(own)]]] = True
    return torn


@dataclass(frozen=True)
class SensorLog:
    """Samples, of which some can be used; and what was wrong with the other rows.

    usable, torn: [n]; see `find_torn`. empty: what to say of each file without rows.
    """

    samples: Samples
    usable: Bools
    torn: Bools
    faults: tuple[str, ...]
    empty: tuple[str, ...]


def read_log(
    paths: Sequence[Path], columns: SensorColumns, form: TextForm, bad_rows: float
) -> SensorLog:
    """The rows of some files with equal channels.

    Raises DataError where a column is missing, channels differ, or too many rows are bad.
    """
    channels = [columns.channels_of(path, form) for path in paths]
    for path, names in zip(paths, channels, strict=True):
        if names != channels[0]:
            raise DataError(
                f"{path} has channels {', '.join(names)}, {paths[0]} {', '.join(channels[0])}; "
                "name them in channels"
            )
    wanted = (*columns.roles(), *channels[0])
    files = [read_text(path, form, wanted, _REMEDY) for path in paths]
    samples = parse(files)
    bad = samples.unreadable()
    again = samples.repeated(np.logical_not(bad.any(axis=1)))
    blank = np.zeros(len(again), bool)
    found: list[tuple[str, int, str]] = []
    broken_at: list[int] = []
    start = 0
    for path, rows in zip(paths, files, strict=True):
        end = start + len(rows.values[0])
        found += [(path.name, line, said) for line, said in rows.broken]
        broken_at += (start + rows.before).tolist()
        places = np.flatnonzero(bad[start:end].any(axis=1) | again[start:end])
        for place, line in zip(places.tolist(), rows.places(places).tolist(), strict=True):
            blank[start + place] = line == 0
            if line:
                said = _fault(samples, start + place, bad[start + place], wanted, rows, place)
                found.append((path.name, line, said))
        start = end
    empty = tuple(
        f"{path.name}: no rows"
        for path, rows in zip(paths, files, strict=True)
        if not rows.broken and not len(rows.values[0])
    )
    missing = bad.any(axis=1) & ~blank
    usable = ~(missing | blank | again)
    faults = tuple(f"{name}: line {line}: {said}" for name, line, said in sorted(found))
    total = int((~blank).sum()) + len(broken_at)
    refuse_many(faults, total, str(paths[0].parent), "rows", "bad_rows", bad_rows)
    torn = find_torn(samples, usable, missing, broken_at)
    return SensorLog(samples, usable, torn, faults, empty)


def _fault(
    samples: Samples, index: int, bad: Bools, names: Sequence[str], rows: Rows, place: int
) -> str:
    """What is wrong with the sample at `index`, which is the row at `place` of its file."""
    if not bad.any():
        return (
            f"device {samples.device_names[samples.devices[index]]} has another sample at "
            f"{rows.values[1][place].as_py()} of one recording; name the recording column, or make "
            "the order unique"
        )
    column = int(bad.argmax())
    expected = samples.expected if column == 1 else "a number"
    return wrong(names[column], rows.values[column][place].as_py(), expected)


def stretches_of(log: SensorLog, gap: float) -> tuple[list[Stretch], tuple[str, ...]]:
    """Usable rows in order, cut where the device, the recording or the label changes, or at a gap.

    Returns the labels' names, too.
    """
    samples, ranked = log.samples, log.samples.ranked(np.flatnonzero(log.usable))
    codes = np.stack([samples.devices, samples.recordings, samples.labels], axis=1)[ranked]
    steps = np.diff(samples.order[ranked])
    begins = np.flatnonzero((np.diff(codes, axis=0) != 0).any(axis=1) | (steps > gap)) + 1
    used, labels = np.unique(codes[:, 2], return_inverse=True)
    values = samples.values[ranked].astype(np.float32)
    stretches = []
    for first, end in zip([0, *begins], [*begins, len(ranked)], strict=True):
        breaks = np.flatnonzero(log.torn[ranked[first:end]])
        person = samples.device_names[codes[first, 0]]
        signal = values[first:end]
        stretches.append(Stretch(person, int(labels[first]), signal, tuple(breaks.tolist())))
    return stretches, tuple(samples.label_names[label] for label in used)


@datasets.register("sensor-csv")
class SensorCsv(SensorStreams):
    """Your own sensor logs: CSV with columns device, time, label and one for each channel.

    root: a file, or a folder of .csv and .csv.gz files with equal columns. device, order, label,
    recording, channels: see `SensorColumns`. separator: the character between fields.
    gap: a step of `order` above it begins another stretch.
    bad_rows: the share of unusable rows, and of files without rows, to put up with; no window goes
    over a row that is left out. Further settings are those of `SensorScenario`, except that
    placements are not simulated unless asked for: rotation is 0 and gain 1. Windows are cut inside
    one stretch of one label. `faults` names the rows left out, and files that were not read.
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
        separator: str = ",",
        gap: float = math.inf,
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        as_carried: dict[str, Any] = {"rotation": 0.0, "gain": (1.0, 1.0)}
        settings = SensorScenario(**as_carried | scenario)
        check_separator(separator)
        columns = SensorColumns(device, order, label, recording, tuple(channels))
        if root is None or not root.exists():
            raise DataError(f"sensor-csv needs a root: a .csv file or a folder of them, got {root}")
        paths = [root] if root.is_file() else visible(root, PATTERNS)
        log = read_log(paths, columns, TextForm(separator), bad_rows) if paths else None
        if log is None or not log.usable.any():
            raise DataError(f"expected rows of sensor samples in .csv files, found none in {root}")
        refuse_many(log.empty, len(paths), str(root), "files", "bad_rows", bad_rows)
        stretches, label_names = stretches_of(log, gap)
        if len(label_names) < 2:
            raise DataError(f"expected two labels or more in {root}, found only {label_names[0]}")
        others = () if root.is_file() else unread(root, paths, "only its own .csv files are")
        left_out = {
            UNUSABLE: len(log.faults),
            "files without rows": len(log.empty),
            UNREAD: len(others),
        }
        faults = (*log.faults, *log.empty, *others)
        super().__init__(stretches, label_names, settings, left_out, faults)
