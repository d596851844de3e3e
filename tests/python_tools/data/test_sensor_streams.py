"""MotionSense, HAPT and sensor CSV: files whole and broken, and no window on two sides."""

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
    (lambda lines: [lines[0].replace("gravity.y", "gravity.q"), *lines[1:]], "no column gravity.y"),
    (lambda lines: [*lines[:4], "3" + ",nan" * 12, *lines[5:]], "line 5 holds a value"),
    (lambda lines: [*lines[:6], lines[6][:9]], "sub_4.csv, after the header"),
    (lambda lines: [*lines[:6], "x" + ",x" * 12], "sub_4.csv, after the header"),
]


@pytest.mark.parametrize(("change", "said"), MOTION_BREAKS)
def test_broken_motion_files_are_named(tmp_path, change, said):
    path = write_motion_sense(tmp_path) / "A_DeviceMotion_data/wlk_7/sub_4.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=said) as caught:
        MotionSense(tmp_path, **SMALL)
    assert "wlk_7/sub_4.csv" in str(caught.value)


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


HAPT_BREAKS = [
    ("labels.txt", lambda text: "1 1 13 1 50\n" + text, "row 1 has activity 13, expected 1 to 12"),
    ("labels.txt", lambda text: text + "1 1 2 400 421\n", "for samples 400 to 421 of .* 420"),
    ("labels.txt", lambda text: "99 1 2 1 50\n" + text, "no acc_exp99_user01.txt"),
    ("labels.txt", lambda _: "1 1 2\n", "has 3 columns, expected 5"),
    ("acc_exp03_user02.txt", lambda text: text + "1 2 3\n", "has 421 rows, gyro.* 420"),
    ("acc_exp03_user02.txt", lambda text: "1 nan 2\n" + text, "row 1 holds a value"),
    ("gyro_exp03_user02.txt", lambda text: "1 2\n" + text, "gyro_exp03_user02.txt"),
    ("gyro_exp03_user02.txt", lambda text: "1 x 2\n" + text, "gyro_exp03_user02.txt"),
]


@pytest.mark.parametrize(("name", "change", "said"), HAPT_BREAKS)
def test_broken_hapt_files_are_named(tmp_path, name, change, said):
    path = write_hapt(tmp_path) / "RawData" / name
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=said):
        Hapt(tmp_path, **SMALL)


def test_missing_hapt_files_are_named(tmp_path):
    write_hapt(tmp_path)
    (tmp_path / "RawData/gyro_exp05_user03.txt").unlink()
    with pytest.raises(DataError, match=r"there is no .*gyro_exp05_user03.txt"):
        Hapt(tmp_path, **SMALL)
    (tmp_path / "RawData/labels.txt").unlink()
    with pytest.raises(DataError, match=r"expected labels.txt"):
        Hapt(tmp_path)


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
    with pytest.raises(DataError, match=r"device 0 has two samples at 0 of one recording"):
        SensorCsv(path, **SMALL | columns, channels=["x", "y"])


CSV_BREAKS = [
    (
        lambda lines: [lines[0].replace("label", "class"), *lines[1:]],
        "no column label; it has device",
    ),
    (lambda lines: [*lines[:3], "u01,9.9,idle,1,2,nan,4,5,6"], r"line 4: column c .* got 'nan'"),
    (lambda lines: [*lines[:3], "u01,9.9,idle,1,2,inf,4,5,6"], r"line 4: column c .* got 'inf'"),
    (lambda lines: [*lines[:3], "u01,noon,idle,1,2,3,4,5,6"], r"line 4: column time .* got 'noon'"),
    (lambda lines: [*lines[:3], "u01,9.9,idle,1,2"], "line 4 does not have 9 fields"),
    (lambda lines: [*lines[:3], "u01,9.9,idle,1,2,3,4,5,6,7"], "line 4 does not have 9 fields"),
    (lambda lines: [*lines[:3], ",9.9,idle,1,2,3,4,5,6"], "line 4: column device is empty"),
    (lambda lines: [*lines[:3], "u01,9.9,,1,2,3,4,5,6"], "line 4: column label is empty"),
    (lambda lines: [line.replace("u01", "u@1") for line in lines], "must not hold '@', got u@1"),
    (lambda lines: [line.replace("busy", "idle") for line in lines], "two labels or more"),
    (lambda lines: lines[:1], "expected rows of sensor samples"),
    (lambda lines: ["device,time,label"] + ["u1,0,idle"] * (len(lines) > 1), "no channels beside"),
]


@pytest.mark.parametrize(("change", "said"), CSV_BREAKS)
def test_broken_logs_are_refused_with_the_line(tmp_path, change, said):
    path = write_sensor_csv(tmp_path) / "log.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=said):
        SensorCsv(path, **SMALL)


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
