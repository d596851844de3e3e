"""MotionSense, HAPT and sensor CSV: files whole and broken, and no window on two sides."""

import gzip
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from packs import MOTION_COLUMNS

from persona.data import DataError, Device, datasets
from persona.data.hapt import ACTIVITIES as POSTURES
from persona.data.hapt import Hapt
from persona.data.motion_sense import ACTIVITIES, MotionSense
from persona.data.sensor_csv import SensorCsv
from persona.data.sensor_streams import SensorStreams, halves, window_starts

SPLITS = ("adapter", "validation", "test")
PEOPLE = 9
TRIALS = (
    "dws_1",
    "dws_2",
    "ups_3",
    "ups_4",
    "wlk_7",
    "wlk_8",
    "sit_5",
    "sit_13",
    "std_6",
    "std_14",
)
AS_CARRIED: dict[str, object] = {"rotation": 0.0, "gain": (1.0, 1.0)}
SMALL: dict[str, object] = {"length": 10, "step": 5, "window": 6, "queries": 5, "folds": 3}


def samples(person: int, recording: int, count: int) -> np.ndarray:
    """Signals [count, 6] that say whose they are, from which recording, and their place in it."""
    values = np.random.default_rng([person, recording]).normal(size=(count, 6)).round(4)
    values[:, 0] = person
    values[:, 1] = recording
    values[:, 2] = np.arange(count)
    return values


Span = tuple[int, int, int, int]


def spans(windows: np.ndarray) -> list[Span]:
    """Person, recording, first and last sample of windows [n, 6, length]."""
    assert (np.ptp(windows[:, :2], axis=2) == 0).all()
    assert (np.diff(windows[:, 2], axis=1) == 1).all()
    starts = np.rint(windows[:, :3, 0]).astype(int)
    return [(p, r, s, s + windows.shape[2] - 1) for p, r, s in starts.tolist()]


def overlap(one: Span, other: Span) -> bool:
    return one[:2] == other[:2] and one[2] <= other[3] and other[2] <= one[3]


def person_of(device: Device) -> int:
    return int(device.name.partition("@")[0].removeprefix("u"))


# Small files in the official formats


def motion_lines(values: np.ndarray) -> list[str]:
    """Half of the acceleration is gravity, half the user's."""
    lines = [",".join(["", *MOTION_COLUMNS])]
    for i, row in enumerate(values):
        half, turning = (row[:3] / 2).tolist(), row[3:].tolist()
        lines.append(",".join(map(str, [i, 0.1, 0.2, 0.3, *half, *turning, *half])))
    return lines


def write_motion_sense(root: Path) -> Path:
    for person in range(1, PEOPLE + 1):
        for recording, trial in enumerate(TRIALS):
            path = root / "A_DeviceMotion_data" / trial / f"sub_{person}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = motion_lines(samples(person, recording, 60 + 7 * recording))
            path.write_text("\n".join(lines) + "\n")
    return root


def write_hapt(root: Path) -> Path:
    """Two experiments of each user; each holds every posture once, with a transition between."""
    folder = root / "RawData"
    folder.mkdir(parents=True)
    rows = []
    for user in range(1, PEOPLE + 1):
        for half in (0, 1):
            experiment = 2 * user - 1 + half
            values = samples(user, experiment, 420)
            for sensor, part in (("acc", values[:, :3]), ("gyro", values[:, 3:])):
                name = f"{sensor}_exp{experiment:02d}_user{user:02d}.txt"
                np.savetxt(folder / name, part, fmt="%.6f")
            for activity in range(6):
                first = 70 * activity + 1
                rows.append((experiment, user, activity + 1, first, first + 49))
                rows.append((experiment, user, activity + 7, first + 50, first + 69))
    (folder / "labels.txt").write_text("\n".join(" ".join(map(str, r)) for r in rows) + "\n")
    return root


def write_sensor_csv(root: Path) -> Path:
    """One recording of each device: idle, then busy, then idle. Rows are shuffled."""
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for person in range(1, PEOPLE + 1):
        for place, row in enumerate(samples(person, 0, 240)):
            label = "busy" if 80 <= place < 160 else "idle"
            lines.append(f"u{person:02d},{place / 50},{label}," + ",".join(map(str, row.tolist())))
    order = np.random.default_rng(0).permutation(len(lines))
    header = "device,time,label,a,b,c,d,e,f"
    (root / "log.csv").write_text("\n".join([header, *(lines[i] for i in order)]) + "\n")
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sensors")
    write_motion_sense(root / "motion-sense")
    write_hapt(root / "hapt")
    write_sensor_csv(root / "sensor-csv")
    return root


KINDS = {"motion-sense": MotionSense, "hapt": Hapt, "sensor-csv": SensorCsv}


def opened(files: Path, name: str, **settings: object) -> SensorStreams:
    return KINDS[name](files / name, **SMALL | settings)


@pytest.fixture(scope="module", params=KINDS)
def data(request: pytest.FixtureRequest, files: Path) -> SensorStreams:
    """Windows as they are in the files, so that each can be told by its values."""
    return opened(files, request.param, **AS_CARRIED)


# What holds for all


def test_they_are_registered_under_their_names():
    assert {name: datasets[name] for name in KINDS} == KINDS


def test_no_window_of_a_device_overlaps_a_query(data):
    for split in SPLITS:
        for device in data.devices(split, 60, 0):
            seen, asked = spans(device.window[0]), spans(device.queries[0])
            assert not any(overlap(w, q) for w in seen for q in asked)
            assert len({*seen, *asked}) == 11


def test_a_device_holds_windows_of_the_person_in_its_name(data):
    for split in SPLITS:
        for device in data.devices(split, 20, 0):
            people = {p for p, *_ in spans(np.concatenate([*device.window, *device.queries]))}
            assert people == {person_of(device)}


def test_no_person_trains_chooses_and_tests(data):
    """Held-out and validation people are the same; all others are in one split."""
    people = {split: {person_of(d) for d in data.devices(split, 200, 0)} for split in SPLITS}
    (trained,), _ = data.batch(np.random.default_rng(0), 1000)
    (held,), _ = data.held_out()
    people["backbone"] = {p for p, *_ in spans(trained)}
    assert {p for p, *_ in spans(held)} == people["validation"]
    assert all(not people[a] & people[b] for a, b in combinations(people, 2))
    assert set.union(*people.values()) == set(range(1, PEOPLE + 1))


def test_all_folds_together_test_everyone_once(files):
    tested = [
        {person_of(d) for d in opened(files, "hapt", fold=fold).devices("test", 99, 0)}
        for fold in range(3)
    ]
    assert sorted(p for people in tested for p in people) == list(range(1, PEOPLE + 1))


def test_a_static_rival_may_be_trained_on_the_adapters_people_too(files):
    data = opened(files, "hapt", backbone_sees_adapter=True, **AS_CARRIED)
    (trained,), _ = data.batch(np.random.default_rng(0), 2000)
    adapters = {person_of(d) for d in data.devices("adapter", 50, 0)}
    assert adapters < {p for p, *_ in spans(trained)}
    assert len({p for p, *_ in spans(trained)}) == 3


def test_shapes_and_types_are_what_the_backbone_is_told(data):
    told = data.backbone_settings()
    assert told == {"channels": 6, "length": 10, "classes": len(data.label_names)}
    (windows,), targets = data.batch(np.random.default_rng(0), 7)
    assert windows.shape == (7, 6, 10)
    for device in data.devices("validation", 4, 0):
        assert device.window[0].shape == (6, 6, 10)
        assert device.queries[0].shape == (5, 6, 10)
        assert device.window[0].dtype == device.queries[0].dtype == windows.dtype == np.float32
        assert device.targets.dtype == device.window_targets.dtype == targets.dtype == np.int64
        assert (device.targets.shape, device.window_targets.shape) == ((5,), (6,))


def test_the_seed_fixes_the_devices_and_people_come_again_otherwise(data):
    few, many, others = (data.devices("adapter", n, s) for n, s in ((3, 5), (9, 5), (9, 6)))
    for one, other in zip(few, many, strict=False):
        assert one.name == other.name
        np.testing.assert_array_equal(one.window[0], other.window[0])
        np.testing.assert_array_equal(one.queries[0], other.queries[0])
    names = [d.name for d in (*many, *others)]
    assert len(set(names)) == 18
    first, *again = (d for d in many if person_of(d) == person_of(many[0]))
    assert all(spans(first.window[0]) != spans(d.window[0]) for d in again)


def test_testing_has_so_many_devices_of_a_person_and_adapters_as_many_as_asked(files):
    data = opened(files, "hapt", streams=4)
    tested = [person_of(d) for d in data.devices("test", 1000, 0)]
    assert np.unique(tested, return_counts=True)[1].tolist() == [4, 4, 4]
    assert len(data.devices("adapter", 100, 0)) == 100


def test_activities_are_equally_frequent_in_batches_and_without_habits_on_devices(files):
    data = opened(files, "sensor-csv")  # Twice as much idle as busy.
    _, targets = data.batch(np.random.default_rng(0), 4000)
    drawn = np.concatenate([d.window_targets for d in data.devices("adapter", 400, 0)])
    for labels in (targets, drawn):
        np.testing.assert_allclose(np.bincount(labels) / len(labels), 0.5, atol=0.05)


def test_window_and_queries_share_habits(files):
    data = opened(files, "motion-sense", habits=0.2)
    mixes = [
        [np.bincount(x, minlength=6) / len(x) for x in (d.window_targets, d.targets)]
        for d in data.devices("adapter", 150, 0)
    ]
    own = np.mean([np.abs(w - q).sum() for w, q in mixes])
    anothers = np.mean([np.abs(mixes[i][0] - mixes[i - 1][1]).sum() for i in range(150)])
    assert own < 0.6 * anothers


def test_a_device_keeps_one_placement_and_another_has_another(files):
    """Distances between its windows are those of the windows as they are; coordinates are not."""
    plain, placed = (
        opened(files, "hapt", **settings) for settings in (AS_CARRIED, {"gain": (1.0, 1.0)})
    )
    turns = []
    for one, other in zip(*(d.devices("test", 4, 0) for d in (plain, placed)), strict=True):
        assert one.name == other.name
        found = [np.concatenate([*d.window, *d.queries]) for d in (one, other)]
        acceleration = [x[:, :3].transpose(1, 0, 2).reshape(3, -1) for x in found]
        turning = [x[:, 3:].transpose(1, 0, 2).reshape(3, -1) for x in found]
        turn = np.linalg.lstsq(turning[0].T, turning[1].T, rcond=None)[0].T
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-3)
        np.testing.assert_allclose(turn @ acceleration[0], acceleration[1], rtol=1e-3, atol=0.05)
        turns.append(turn)
    assert all(np.abs(a - b).max() > 0.1 for a, b in combinations(turns, 2))


def test_gravity_aligned_windows_point_down_in_batches_and_on_devices(files):
    data = opened(files, "hapt", gravity_aligned=True)
    (batch,), _ = data.batch(np.random.default_rng(0), 50)
    for windows in (batch, *data.devices("test", 1, 0)[0].queries):
        down = windows[:, :3].mean(axis=2)
        np.testing.assert_allclose(down[:, :2] / -down[:, 2:], 0, atol=1e-3)


def test_the_fingerprint_tells_the_data_and_not_the_settings(files, tmp_path):
    assert opened(files, "hapt", window=3).fingerprint() == opened(files, "hapt").fingerprint()
    changed = write_hapt(tmp_path) / "RawData/acc_exp03_user02.txt"
    lines = changed.read_text().splitlines()
    changed.write_text("\n".join(["2.5 3 0", *lines[1:]]))
    assert Hapt(tmp_path, **SMALL).fingerprint() != opened(files, "hapt").fingerprint()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"length": 1}, "length must be 2 or more, got 1"),
        ({"folds": 2}, "folds must be 3 or more .* folds = 2"),
        ({"fold": 3}, "fold = 3"),
        ({"folds": 20}, "20 folds need 20 people, 9 can be used"),
        ({"backbone_share": 1.0}, "backbone_share must be between 0 and 1"),
        ({"rotation": 190.0}, "rotation must be 0 to 180"),
        ({"length": 5000}, "no recording is long enough for windows of 5000"),
        ({"queries": 500}, "9 people with too few windows for a device"),
    ],
)
@pytest.mark.parametrize("name", KINDS)
def test_settings_that_make_no_sense_are_refused(files, name, settings, said):
    with pytest.raises(DataError, match=said):
        opened(files, name, **settings)


# Cutting


def test_windows_fill_a_stretch_and_its_halves_share_no_sample():
    starts = window_starts(100, 10, 5)
    assert starts.tolist() == list(range(0, 91, 5))
    before, after = halves(starts, 100, 10)
    assert before.max() + 10 <= after.min()
    assert len(before) == len(after) == 9


def test_windows_of_other_trials_than_the_queries_are_seen(files):
    data = opened(files, "motion-sense", **AS_CARRIED)
    for device in data.devices("test", 40, 0):
        seen, asked = ({r for _, r, *_ in spans(x[0])} for x in (device.window, device.queries))
        assert not seen & asked


def test_an_activity_recorded_once_is_cut_in_two(files):
    data = opened(files, "sensor-csv", **AS_CARRIED)
    sides = set()
    for device in data.devices("test", 60, 0):
        for windows, labels, side in (
            (device.window[0], device.window_targets, "window"),
            (device.queries[0], device.targets, "queries"),
        ):
            busy = [s for s, label in zip(spans(windows), labels, strict=True) if label == 0]
            assert all(first >= 80 and last < 160 for _, _, first, last in busy)
            halves_seen = {last < 120 for *_, last in busy}
            assert len(halves_seen) <= 1
            sides |= {(side, half) for half in halves_seen}
    assert len(sides) == 4


def test_a_copy_of_a_recording_is_left_out_and_counted(files, tmp_path):
    """Else the window would hold what is asked."""
    folder = write_motion_sense(tmp_path) / "A_DeviceMotion_data"
    (folder / "sit_13/sub_2.csv").write_bytes((folder / "sit_5/sub_2.csv").read_bytes())
    data = MotionSense(folder, **SMALL | AS_CARRIED)
    assert data.summary() == "1 stretches that are copies of another"
    assert len(data.windows.labels) < len(opened(files, "motion-sense").windows.labels)
    sitting = data.windows.blocks["u02"][ACTIVITIES.index("sit")]
    first, last = (spans(data.windows.values[block]) for block in sitting)
    assert first[-1][1] == last[0][1]
    assert first[-1][3] < last[0][2]


# MotionSense


def test_acceleration_is_gravity_and_the_users_together(files):
    data = opened(files, "motion-sense", **AS_CARRIED)
    (windows,), labels = data.batch(np.random.default_rng(0), 50)
    for window, label, (person, recording, first, last) in zip(
        windows, labels, spans(windows), strict=True
    ):
        whole = samples(person, recording, 60 + 7 * recording)[first : last + 1].T
        np.testing.assert_allclose(window, whole, atol=1e-4)
        assert ACTIVITIES[label] == TRIALS[recording][:3]


MOTION_BREAKS = [
    (4, "3" + ",nan" * 12, "line 5: gravity.x should be a number, is 'nan'"),
    (30, "29,1,1,1,1,,1,1,1,1,1,1,1", "line 31: gravity.y is missing"),
    (30, "x" + ",x" * 12, "line 31: gravity.x should be a number, is 'x'"),
    (30, "29,1,1", "line 31: gravity.x is missing"),
    (30, "29" + ",1" * 13, "line 31: 14 fields instead of 13"),
]


@pytest.mark.parametrize(("line", "bad", "said"), MOTION_BREAKS)
def test_a_bad_row_of_a_recording_is_named_and_no_window_goes_over_it(tmp_path, line, bad, said):
    path = write_motion_sense(tmp_path) / "A_DeviceMotion_data/wlk_7/sub_4.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:line], bad, "", *lines[line + 1 :]]) + "\n")
    with pytest.raises(DataError, match=f"1 of 8235 rows .* first wlk_7/sub_4.csv: {said}.* raise"):
        MotionSense(tmp_path, bad_rows=0, **SMALL)
    data = MotionSense(tmp_path, **SMALL | AS_CARRIED | {"step": 1})
    assert data.faults == (f"wlk_7/sub_4.csv: {said}",)
    assert data.summary() == "1 unusable rows"
    cut = [
        span[2:] for span in spans(data.windows.values) if span[:2] == (4, TRIALS.index("wlk_7"))
    ]
    samples_left = [range(line - 1), range(line, 60 + 7 * 4)]
    fitting = [(s, s + 9) for part in samples_left for s in part if s + 9 in part]
    assert sorted(cut) == fitting


def test_a_recording_without_rows_is_named_or_refused_and_not_called_short(tmp_path, recwarn):
    folder = write_motion_sense(tmp_path) / "A_DeviceMotion_data"
    path = folder / "ups_3/sub_2.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"1 of 90 recordings .*first ups_3/sub_2.csv: no rows"):
        MotionSense(tmp_path, **SMALL)
    data = MotionSense(tmp_path, bad_rows=0.02, **SMALL)
    assert data.faults == ("ups_3/sub_2.csv: no rows",)
    assert data.summary() == "1 recordings without rows"
    assert not recwarn.list


def test_a_motion_file_that_is_no_such_table_is_refused_by_name(tmp_path):
    path = write_motion_sense(tmp_path) / "A_DeviceMotion_data/wlk_7/sub_4.csv"
    whole = path.read_text()
    path.write_text(whole.replace("gravity.y", "gravity.q"))
    with pytest.raises(DataError, match=r"no column gravity\.y; .*wlk_7/sub_4\.csv; get it again"):
        MotionSense(tmp_path, bad_rows=1, **SMALL)
    path.write_bytes(whole.encode() + b"\xff\n")
    with pytest.raises(DataError, match=r"sub_4\.csv should be UTF-8, but byte 0xff in line 90 "):
        MotionSense(tmp_path, bad_rows=1, **SMALL)


def test_files_in_other_places_are_counted_and_named(files, tmp_path):
    folder = write_motion_sense(tmp_path) / "A_DeviceMotion_data"
    good = (folder / "dws_1/sub_1.csv").read_text()
    strays = ("dws_1/sub_99 copy.csv", "run_1/sub_1.csv", "dws_1/more/sub_1.csv", "notes.txt")
    for name in (*strays, "dws_1/._sub_1.csv", ".DS_Store"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(good)
    data = MotionSense(tmp_path, **SMALL)
    assert data.summary() == "4 files that were not read"
    where = "not read; recordings are at ACTIVITY_TRIAL/sub_PERSON.csv"
    assert data.faults == tuple(f"{name}: {where}" for name in sorted(strays))
    assert data.fingerprint() == opened(files, "motion-sense").fingerprint()


def test_motion_sense_takes_the_folder_or_the_one_around_it(files, tmp_path):
    inner = MotionSense(files / "motion-sense/A_DeviceMotion_data", **SMALL)
    assert inner.fingerprint() == opened(files, "motion-sense").fingerprint()
    for root in (None, tmp_path):
        with pytest.raises(DataError, match=r"expected A_DeviceMotion_data with files such as"):
            MotionSense(root)


# HAPT


def test_hapts_labels_count_from_1_and_include_the_last_sample(files):
    data = opened(files, "hapt", **AS_CARRIED | {"step": 1})
    found = {}
    for values, label in zip(data.windows.values, data.windows.labels, strict=True):
        _, _, first, last = spans(values[None])[0]
        low, high = found.get(label, (10_000, -1))
        found[label] = (min(low, first), max(high, last))
    assert found == {label: (70 * label, 70 * label + 49) for label in range(6)}
    assert data.label_names == POSTURES


def test_transitions_are_classes_where_asked_for(files):
    data = opened(files, "hapt", transitions=True)
    assert data.backbone_settings()["classes"] == 12
    assert set(data.windows.labels.tolist()) == set(range(12))


LABEL_BREAKS = [
    ("1 1 13 1 50", "activity should be 1 to 12, is 13"),
    ("1 1 2 400 421", "samples 400 to 421 of a recording of 420"),
    ("1 1 2 0 20", "samples 0 to 20 of a recording of 420"),
    ("1 1 2 20 19", "samples 20 to 19 of a recording of 420"),
    ("99 1 2 1 50", "there is no acc_exp99_user01.txt with a gyro_exp99_user01.txt beside it"),
    ("1 1 2", "3 fields instead of 5"),
    ("1 1 2 1 x", "field 5 should be a number, is 'x'"),
    ("1 1 2 1 20.5", "expected whole numbers, got 1 1 2 1 20.5"),
]


@pytest.mark.parametrize(("bad", "said"), LABEL_BREAKS)
def test_a_bad_row_of_hapts_labels_is_named_and_left_out(files, tmp_path, bad, said):
    path = write_hapt(tmp_path) / "RawData/labels.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "", bad, *lines[1:]]) + "\n")
    with pytest.raises(DataError, match=f"1 of 217 rows .* first labels.txt: line 3: {said}"):
        Hapt(tmp_path, **SMALL)
    data = Hapt(tmp_path, bad_rows=0.01, **SMALL)
    assert data.faults == (f"labels.txt: line 3: {said}",)
    assert data.left_out["unusable rows of labels.txt"] == 1
    assert data.fingerprint() == opened(files, "hapt").fingerprint()


RECORDING_BREAKS = [
    ("acc_exp03_user02.txt", lambda lines: [*lines[:99], "1 nan 2", *lines[100:]],
     "line 100: field 2 should be a number, is 'nan'"),
    ("gyro_exp03_user02.txt", lambda lines: [*lines[:99], "1 2", *lines[100:]],
     "line 100: 2 fields instead of 3"),
    ("gyro_exp03_user02.txt", lambda lines: [*lines[:99], "# 2 3", *lines[100:]],
     "line 100: field 1 should be a number, is '#'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "said"), RECORDING_BREAKS)
def test_a_bad_row_of_hapt_keeps_the_others_at_their_places(tmp_path, name, change, said):
    path = write_hapt(tmp_path) / "RawData" / name
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=f"1 of 15120 rows .*first {name}: {said}.* raise bad_rows"):
        Hapt(tmp_path, bad_rows=0, **SMALL)
    data = Hapt(tmp_path, **SMALL | AS_CARRIED | {"step": 1})
    assert data.faults == (f"{name}: {said}",)
    assert data.left_out["unusable rows"] == 1
    of_second = [s[2:] for s in spans(data.windows.values) if s[:2] == (2, 3)]
    # Upstairs is from sample 70 to 119, of which the one at 99 is gone.
    seen = sorted(span for span in of_second if 70 <= span[0] < 120)
    assert seen == [(s, s + 9) for s in (*range(70, 90), *range(100, 111))]


def test_a_recording_whose_sensors_differ_in_length_lacks_the_rows_of_one(tmp_path):
    folder = write_hapt(tmp_path) / "RawData"
    path = folder / "gyro_exp03_user02.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:418]) + "\n")
    data = Hapt(tmp_path, transitions=True, **SMALL | AS_CARRIED | {"step": 1})
    missing = "missing, acc_exp03_user02.txt goes on"
    assert data.faults == tuple(f"{path.name}: row {row}: {missing}" for row in (419, 420))
    ends = [s[3] for s in spans(data.windows.values) if s[:2] == (2, 3)]
    assert max(ends) == 417
    path.write_text("\n".join(path.read_text().splitlines()[:200]) + "\n")
    with pytest.raises(DataError, match=r"220 of 15120 rows cannot be used"):
        Hapt(tmp_path, **SMALL)


def test_missing_hapt_files_are_named_and_stray_ones_counted(tmp_path):
    folder = write_hapt(tmp_path) / "RawData"
    (folder / "gyro_exp05_user03.txt").unlink()
    with pytest.raises(DataError, match=r"12 of 216 rows .*there is no .*gyro_exp05_user03.txt"):
        Hapt(tmp_path, **SMALL)
    (folder / "acc_exp03_user02 copy.txt").write_text("1 2 3\n")
    data = Hapt(tmp_path, bad_rows=0.1, **SMALL)
    assert data.left_out["files that were not read"] == 2
    said = "not read; no recording that labels.txt names"
    assert data.faults[-2:] == (
        f"acc_exp03_user02 copy.txt: {said}",
        f"acc_exp05_user03.txt: {said}",
    )
    (folder / "labels.txt").unlink()
    with pytest.raises(DataError, match=r"expected labels.txt"):
        Hapt(tmp_path)


def test_what_is_not_asked_for_is_counted(files):
    assert opened(files, "hapt").left_out["stretches of transitions"] == 108
    assert opened(files, "hapt", transitions=True).left_out["stretches of transitions"] == 0


# Sensor CSV


def test_rows_are_put_in_order_and_labels_cut_recordings(files):
    data = opened(files, "sensor-csv", step=1)
    assert data.label_names == ("busy", "idle")
    for values, label in zip(data.windows.values, data.windows.labels, strict=True):
        _, _, first, last = spans(values[None])[0]
        assert (first >= 80 and last < 160) == (label == 0)
        assert last < 80 or first >= 160 or label == 0


def test_a_gap_breaks_a_recording(tmp_path):
    path = write_sensor_csv(tmp_path) / "log.csv"
    header, *lines = path.read_text().splitlines()
    kept = [line for line in lines if not 2.0 <= float(line.split(",")[1]) < 2.5]
    path.write_text("\n".join([header, *kept]) + "\n")

    def broken_windows(gap: float) -> int:
        data = SensorCsv(path, **SMALL | {"step": 1, "gap": gap})
        return int((np.diff(data.windows.values[:, 2], axis=1) > 1).any(axis=1).sum())

    assert broken_windows(0.1) == 0
    assert broken_windows(10.0) > 0


def test_recordings_of_a_device_are_kept_apart(tmp_path):
    lines = [
        f"{p},{r},{t},{'abc'[t // 30]},{p},{r},{t}"
        for p in range(6)
        for r in ("one", "two")
        for t in range(90)
    ]
    numbered = [line.replace(",one", ",1").replace(",two", ",2") for line in lines]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["phone,trip,t,doing,x,y,z", *numbered]))
    columns = {"device": "phone", "order": "t", "label": "doing"}
    data = SensorCsv(path, **SMALL | columns, recording="trip")
    assert data.channels == 3
    assert (np.ptp(data.windows.values[:, 1], axis=1) == 0).all()
    said = r"540 of 1080 rows .*log.csv: line 92: device 0 has another sample at 0 of one recording"
    with pytest.raises(DataError, match=said):
        SensorCsv(path, **SMALL | columns, channels=["x", "y"])


BAD_ROWS = [
    ("{u},{t},idle,1,2,nan,4,5,6", "line {n}: c should be a number, is 'nan'"),
    ("{u},{t},idle,1,2,inf,4,5,6", "line {n}: c should be a number, is 'inf'"),
    ("{u},noon,idle,1,2,3,4,5,6", "line {n}: time should be a number, is 'noon'"),
    ("{u},{t},idle,1,2", "line {n}: c is missing"),
    ("{u},{t},idle,1,2,3,4,5,6,7", "line {n}: 10 fields instead of 9"),
    (",{t},idle,1,2,3,4,5,6", "line {n}: device is missing"),
    ("{u},{t},,1,2,3,4,5,6", "line {n}: label is missing"),
]


def with_bad_row(root: Path, bad: str, in_order: bool) -> tuple[Path, int]:
    """A log where the row of u03 at .6 seconds, its sample 30, is bad; and that row's line."""
    path = write_sensor_csv(root) / "log.csv"
    header, *lines = path.read_text().splitlines()
    if in_order:
        lines.sort(key=lambda line: (line.split(",")[0], float(line.split(",")[1])))
    place = next(i for i, line in enumerate(lines) if line.startswith("u03,0.6,"))
    lines[place] = bad.format(u="u03", t="0.6")
    path.write_text("\n".join([header, *lines]) + "\n")
    return path, place + 2


PLACED = [(*case, False) for case in (BAD_ROWS[0], BAD_ROWS[1], BAD_ROWS[-1])]


@pytest.mark.parametrize(
    ("bad", "said", "in_order"), [*((*case, True) for case in BAD_ROWS), *PLACED]
)
def test_a_bad_row_is_named_and_no_window_goes_over_it(files, tmp_path, bad, said, in_order):
    """In a file that is in order, whatever is wrong; in a shuffled one, where its place is told."""
    path, line = with_bad_row(tmp_path, bad, in_order)
    said = said.format(n=line)
    with pytest.raises(
        DataError, match=f"1 of 2160 rows .* first log.csv: {said}.* raise bad_rows"
    ):
        SensorCsv(path, bad_rows=0, **SMALL)
    data = SensorCsv(path, **SMALL | {"step": 1})
    assert data.faults == (f"log.csv: {said}",)
    assert data.summary() == "1 unusable rows"
    cut = sorted(s[2:] for s in spans(data.windows.values) if s[0] == 3 and s[3] < 80)
    assert cut == [(s, s + 9) for s in (*range(21), *range(31, 71))]
    whole = opened(files, "sensor-csv", step=1)
    assert len(data.windows.labels) == len(whole.windows.labels) - 10


def test_a_row_without_a_place_in_a_shuffled_log_costs_few_windows(files, tmp_path):
    path, line = with_bad_row(tmp_path, "{u},noon,idle,1,2,3,4,5,6", False)
    data = SensorCsv(path, **SMALL | {"step": 1})
    assert data.faults == (f"log.csv: line {line}: time should be a number, is 'noon'",)
    whole = opened(files, "sensor-csv", step=1)
    assert len(whole.windows.labels) - 20 <= len(data.windows.labels) < len(whole.windows.labels)


CSV_BREAKS = [
    (lambda lines: [lines[0].replace("label", "class"), *lines[1:]],
     "no column label; its columns are device, time, class, .*; name the right ones as device"),
    (lambda lines: [line.replace(",", ";") for line in lines],
     "fields seem to have semicolons between them, where commas were expected"),
    (lambda lines: [line.replace("u01", "u@1") for line in lines], "must not hold '@', got u@1"),
    (lambda lines: [line.replace("busy", "idle") for line in lines], "two labels or more"),
    (lambda lines: lines[:1], "expected rows of sensor samples"),
    (lambda lines: ["device,time,label"] + ["u1,0,idle"] * (len(lines) > 1), "no channels beside"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CSV_BREAKS)
def test_logs_that_cannot_be_read_say_why(tmp_path, change, said):
    path = write_sensor_csv(tmp_path) / "log.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=said):
        SensorCsv(path, **SMALL)


def test_separators_and_dates_and_gzip_are_read_alike(files, tmp_path):
    header, *lines = (files / "sensor-csv/log.csv").read_text().splitlines()
    dated = []
    for line in lines:
        device, time, rest = line.split(",", 2)
        moment = np.datetime64("2024-03-01T23:59:50") + np.timedelta64(
            int(float(time) * 1000), "ms"
        )
        dated.append(f"{device},{moment},{rest}".replace(",", "\t"))
    text = "\n".join([header.replace(",", "\t"), *dated])
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(text.encode()))
    data = SensorCsv(tmp_path, separator="\t", **SMALL)
    assert data.faults == ()
    assert data.fingerprint() == opened(files, "sensor-csv").fingerprint()
    with pytest.raises(DataError, match="separator must be one character"):
        SensorCsv(tmp_path, separator="::", **SMALL)


def test_empty_and_other_files_beside_logs_are_counted_and_named(tmp_path):
    path = write_sensor_csv(tmp_path) / "log.csv"
    header = path.read_text().splitlines()[0]
    (tmp_path / "empty.csv").write_text(header + "\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper/more.csv").write_text(header + "\n")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "._log.csv").write_text("")
    with pytest.raises(DataError, match=r"1 of 2 files cannot be used, .*first empty.csv: no rows"):
        SensorCsv(tmp_path, **SMALL)
    data = SensorCsv(tmp_path, bad_rows=0.5, **SMALL)
    said = "not read; only its own .csv files are"
    assert data.faults == (
        "empty.csv: no rows", f"deeper/more.csv: {said}", f"notes.txt: {said}"
    )  # fmt: skip
    assert data.summary() == "1 files without rows, 2 files that were not read"


def test_placements_need_channels_in_threes(files):
    with pytest.raises(DataError, match=r"channels in threes .* got 2"):
        opened(files, "sensor-csv", channels=("a", "b"), rotation=90.0)
    assert opened(files, "sensor-csv", channels=("d", "a")).channels == 2


def test_several_files_are_one_log_if_their_channels_agree(files, tmp_path):
    header, *lines = (files / "sensor-csv/log.csv").read_text().splitlines()
    for name, part in (("a.csv", lines[::2]), ("b.csv", lines[1::2])):
        (tmp_path / name).write_text("\n".join([header, *part]) + "\n")
    assert SensorCsv(tmp_path, **SMALL).fingerprint() == opened(files, "sensor-csv").fingerprint()
    (tmp_path / "b.csv").write_text("\n".join([header.replace(",f", ",g"), *lines[1::2]]) + "\n")
    with pytest.raises(DataError, match=r"b.csv has channels a, b, c, d, e, g, .*a.csv"):
        SensorCsv(tmp_path, **SMALL)
