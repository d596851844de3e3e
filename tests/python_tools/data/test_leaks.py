"""Each planted leak is caught and named; clean devices pass."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from persona.data import DataError, Dataset, Device
from persona.data.base import Sources
from persona.data.digits import Digits
from persona.data.drifting_interests import DriftingInterests
from persona.data.image_streams import ImageStreams, Owner, StreamScenario
from persona.data.leaks import Known, check_window, owner
from persona.data.sensor_streams import SensorScenario, SensorStreams, Stretch
from persona.data.streams import streams

Parts = tuple[list[Device], list[Device], list[Device]]


def devices_of(data: Dataset, train: int = 40) -> Parts:
    return (
        data.devices("adapter", train, 0),
        data.devices("validation", 9, 0),
        data.devices("test", 9, 0),
    )


def check(
    train: Sequence[Device],
    validation: Sequence[Device],
    test: Sequence[Device],
    **backbone: Sources,
) -> None:
    Known.of({"training": train, "validation": validation}, backbone).check_unseen(test)


@pytest.fixture(scope="module")
def users() -> Parts:
    return devices_of(DriftingInterests(users=150, items=300, events=60), 200)


@pytest.fixture(scope="module")
def writers() -> Parts:
    return devices_of(Digits())


class People(SensorStreams):
    """Twelve people at two things, in windows that overlap by half; every device has a placement
    of its own, so that no two devices hold a sample with the same bits.
    """

    def __init__(self, **scenario: object) -> None:
        rng = np.random.default_rng(3)
        stretches = [
            Stretch(f"p{person}", label, rng.standard_normal((200, 3)).astype(np.float32))
            for person in range(12)
            for label in (0, 1)
            for _ in range(2)
        ]
        settings = SensorScenario(length=16, step=8, window=8, queries=8, **scenario)
        super().__init__(stretches, ("still", "moving"), settings, {}, ())


class Corrupted(ImageStreams):
    """Images by four owners a split, each device through another camera."""

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        splits = ("backbone", "held-out", "adapter", "validation", "test")
        owners = {
            split: [Owner(f"{split}-{i}", np.arange(60) + 60 * (4 * place + i)) for i in range(4)]
            for place, split in enumerate(splits)
        }
        settings = StreamScenario(window=8, queries=8, corruptions=("gaussian-noise",))
        pixels = rng.integers(0, 256, (1200, 1, 8, 8)).astype(np.uint8)
        super().__init__(pixels, rng.integers(0, 3, 1200), 3, owners, settings)


def changed(devices: list[Device], place: int, **fields: object) -> list[Device]:
    return [replace(d, **fields) if i == place else d for i, d in enumerate(devices)]


@pytest.mark.parametrize("kind", [Digits, People, Corrupted, DriftingInterests])
def test_clean_devices_pass_and_so_do_their_streams(kind):
    data = kind()
    train, validation, test = devices_of(data)
    known = Known.of({"training": train, "validation": validation}, data.backbone_sources())
    known.check_unseen(test)
    known.check_unseen(streams["mixed"]().spoil(test, np.random.default_rng(0)))
    known.check_unseen(streams["short"]().spoil(test, np.random.default_rng(0)))


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_right_item_in_the_window_is_caught_in_every_split(users, where):
    device = users[where][3]
    right = device.queries[1][2, device.targets[2]]
    window = np.insert(device.window[0], 1, right)
    planted = [*users]
    planted[where] = changed(users[where], 3, window=(window,))
    with pytest.raises(DataError, match=f"device {device.name}, query 2: its right item {right}, "):
        check(*planted)


def test_a_wrong_candidate_in_the_window_is_no_leak(users):
    train, validation, test = users
    device = test[0]
    wrong = device.queries[1][0, (device.targets[0] + 1) % 100]
    assert wrong not in device.queries[1][np.arange(5), device.targets]
    window = np.append(device.window[0], wrong)
    check(train, validation, changed(test, 0, window=(window,)))


def test_a_query_sample_in_the_window_is_caught_bit_for_bit(writers):
    device = writers[2][4]
    window = device.window[0].copy()
    window[6] = device.queries[0][1]
    with pytest.raises(DataError, match=f"device {device.name}, query 1: its sample"):
        check_window(replace(device, window=(window,)))
    window[6].flat[0] = np.nextafter(window[6].flat[0], np.float32(9), dtype=window.dtype)
    check_window(replace(device, window=(window,)))


@pytest.mark.parametrize("kind", [People, Corrupted, Digits])
def test_the_sample_of_a_query_is_caught_in_the_window_whatever_became_of_it(kind):
    """Only where it came from tells: its bits are others."""
    (device, *_) = kind().devices("test", 1, 0)
    window, spans = device.window[0].copy(), device.window_spans.copy()
    window[6], spans[6] = device.queries[0][1] * 0.7 + 0.1, device.query_spans[1]
    planted = replace(device, window=(window,), window_spans=spans)
    with pytest.raises(DataError, match=r"query 1: its sample, .* at place 6"):
        check_window(planted)


def test_a_window_that_overlaps_a_query_by_half_is_caught(monkeypatch):
    """Windows and queries drawn from the same blocks, as if those overlapped nowhere."""

    def mingled(self: SensorStreams, person: str, _rng: np.random.Generator) -> tuple:
        blocks = [block for sets in self.windows.blocks[person].values() for block in sets]
        return tuple(np.concatenate([b[i::2] for b in blocks]) for i in (0, 1))

    monkeypatch.setattr(SensorStreams, "_sides", mingled)
    (device, *_) = People().devices("test", 1, 0)
    bits = [{sample.tobytes() for sample in a} for a in (device.window[0], device.queries[0])]
    assert not bits[0] & bits[1]
    with pytest.raises(DataError, match="its sample, or a part of it"):
        check_window(device)


@pytest.mark.parametrize("kind", ["training", "validation"])
def test_a_test_user_among_those_that_trained_is_caught_whatever_its_moment(users, kind):
    train, validation, test = users
    known = train[7] if kind == "training" else validation[1]
    planted = changed(test, 2, owner=known.owner)
    with pytest.raises(DataError, match=f"test device 2, .* is of {known.owner}, .* {kind} device"):
        check(train, validation, planted)


@pytest.mark.parametrize("kind", [People, Corrupted])
@pytest.mark.parametrize("known", ["adapter", "validation", "backbone", "held-out"])
def test_test_people_that_anything_was_learnt_from_are_caught(kind, known):
    """Under other placements and corruptions, and with names that differ."""
    data = kind()
    train, validation, _ = devices_of(data)
    learnt = Known.of({"training": train, "validation": validation}, data.backbone_sources())
    split = data.people if isinstance(data, SensorStreams) else data.owners
    split["test"] = split[known]
    test = data.devices("test", 9, 5)
    assert not {d.name for d in test} & {d.name for d in (*train, *validation)}
    with pytest.raises(DataError, match=f"test device 0, .* is of {test[0].owner}, who"):
        learnt.check_unseen(test)


@pytest.mark.parametrize("known", ["adapter", "backbone", "held-out"])
def test_readings_that_anything_was_learnt_from_are_caught_without_an_owner(known):
    data = Corrupted()
    train, validation, _ = devices_of(data, 400)
    learnt = Known.of({"training": train, "validation": validation}, data.backbone_sources())
    data.owners["test"] = [replace(owner, name="") for owner in data.owners[known]]
    with pytest.raises(DataError, match="sample, or a part of it, is also in the"):
        learnt.check_unseen(data.devices("test", 9, 5))


def test_users_of_the_backbone_are_no_test_users():
    data = DriftingInterests(users=150, items=300, events=60)
    learnt = Known.of({}, data.backbone_sources())
    learnt.check_unseen(data.devices("test", 9, 0))
    for split in ("backbone", "validation"):
        data._members["test"] = data._members[split]
        with pytest.raises(DataError, match=r"who is also behind the (training|held-out) data"):
            learnt.check_unseen(data.devices("test", 9, 0))


def test_a_backbone_that_sees_the_adapters_people_knows_them():
    less, more = (
        People(backbone_sees_adapter=seen).backbone_sources()["training"] for seen in (False, True)
    )
    people = People().people
    assert less.owners == frozenset(people["backbone"])
    assert more.owners == frozenset(people["backbone"] + people["adapter"])
    assert len(more.spans) > len(less.spans)


def test_a_device_of_nobody_is_its_own():
    device = Device("17@42", (), (), np.zeros(0, np.int64))
    assert owner(device) == "17@42"
    assert owner(replace(device, owner="17")) == "17"


@pytest.mark.parametrize(("part", "thing"), [("window", "window sample"), ("queries", "query")])
def test_a_test_sample_that_is_on_a_training_device_is_caught(writers, part, thing):
    train, validation, test = writers
    arrays = getattr(test[5], part)[0].copy()
    arrays[3] = train[11].queries[0][0]
    planted = changed(test, 5, **{part: (arrays,)})
    message = f"test device {test[5].name}, {thing} 3: the same sample, .* the training device "
    with pytest.raises(DataError, match=message + train[11].name):
        check(train, validation, planted)


def test_a_span_is_known_where_one_reading_is_shared_and_no_sooner():
    def device(name: str, begin: int, end: int) -> Device:
        rng = np.random.default_rng(begin)
        arrays = tuple((rng.random((1, 2, 3), dtype=np.float32),) for _ in range(2))
        spans = (np.array([[begin, end]]), np.array([[begin + 5000, end + 5000]]))
        return Device(name, *arrays, np.zeros(1, np.int64), None, "", *spans)

    train = [device("a", 100, 200), device("b", 110, 120), device("c", 300, 400)]
    for begin, end in ((90, 100), (200, 300), (400, 410)):
        check(train, [], [device("t", begin, end)])
    for begin, end, whose in ((90, 101, "a"), (150, 160, "a"), (299, 301, "c"), (50, 900, "a")):
        with pytest.raises(DataError, match=f"window sample 0: .* training device {whose};"):
            check(train, [], [device("t", begin, end)])
    with pytest.raises(DataError, match="is also in the held-out data of the backbone"):
        check([], [], train[:1], **{"held-out": Sources(spans=np.array([[150, 151]]))})


def test_samples_of_several_arrays_leak_only_where_all_of_them_agree():
    def device(name: str, first: list[int], second: list[int]) -> Device:
        arrays = (np.array([first], np.float32), np.array([second], np.float32))
        other = tuple(array + 100 * len(name) for array in arrays)
        return Device(name, arrays, other, np.zeros(1, np.int64))

    test = [device("t", [1, 2], [3])]
    check([device("train", [1, 2], [4])], [], test)
    with pytest.raises(DataError, match="test device t, window sample 0"):
        check([device("train", [1, 2], [3])], [], test)
