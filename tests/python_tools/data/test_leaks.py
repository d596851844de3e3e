"""Each planted leak is caught and named; clean devices pass."""

from dataclasses import replace

import numpy as np
import pytest

from persona.data import DataError, Device
from persona.data.digits import Digits
from persona.data.drifting_interests import DriftingInterests
from persona.data.leaks import check_devices, owner


@pytest.fixture(scope="module")
def users() -> tuple[list[Device], list[Device], list[Device]]:
    data = DriftingInterests(users=150, items=300, events=60)
    return (
        data.devices("adapter", 200, 0),
        data.devices("validation", 9, 0),
        data.devices("test", 9, 0),
    )


@pytest.fixture(scope="module")
def writers() -> tuple[list[Device], list[Device], list[Device]]:
    data = Digits()
    return (
        data.devices("adapter", 40, 0),
        data.devices("validation", 9, 0),
        data.devices("test", 9, 0),
    )


def changed(devices: list[Device], place: int, **fields: object) -> list[Device]:
    return [replace(d, **fields) if i == place else d for i, d in enumerate(devices)]


def test_clean_devices_pass(users, writers):
    check_devices(*users)
    check_devices(*writers)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_right_item_in_the_window_is_caught_in_every_split(users, where):
    device = users[where][3]
    right = device.queries[1][2, device.targets[2]]
    window = np.insert(device.window[0], 1, right)
    planted = [*users]
    planted[where] = changed(users[where], 3, window=(window,))
    with pytest.raises(DataError, match=f"device {device.name}, query 2: its right item {right} "):
        check_devices(*planted)


def test_a_wrong_candidate_in_the_window_is_no_leak(users):
    train, validation, test = users
    device = test[0]
    wrong = device.queries[1][0, (device.targets[0] + 1) % 100]
    assert wrong not in device.queries[1][np.arange(5), device.targets]
    window = np.append(device.window[0], wrong)
    check_devices(train, validation, changed(test, 0, window=(window,)))


def test_a_query_sample_in_the_window_is_caught_bit_for_bit(writers):
    train, validation, test = writers
    window = test[4].window[0].copy()
    window[6] = test[4].queries[0][1]
    planted = changed(test, 4, window=(window,))
    with pytest.raises(DataError, match=f"device {test[4].name}, query 1: its sample is in"):
        check_devices(train, validation, planted)
    window[6].flat[0] = np.nextafter(window[6].flat[0], np.float32(9), dtype=window.dtype)
    check_devices(train, validation, changed(test, 4, window=(window,)))


@pytest.mark.parametrize("kind", ["training", "validation"])
def test_a_test_user_among_those_that_trained_is_caught_whatever_its_moment(users, kind):
    train, validation, test = users
    known = train[7] if kind == "training" else validation[1]
    renamed = changed(test, 2, name=owner(known.name))
    with pytest.raises(DataError, match=f"test device 2, .* of the same user as the {kind} device"):
        check_devices(train, validation, renamed)
    with pytest.raises(DataError, match="of the same user"):
        check_devices(train, validation, changed(test, 2, name=f"{owner(known.name)}@3"))


def test_only_a_moment_is_no_part_of_an_owners_name():
    assert owner("17@42") == "17"
    assert owner("17") == "17"
    assert owner("ann@example.org") == "ann@example.org"
    assert owner("ann@example.org@42") == "ann@example.org"


@pytest.mark.parametrize(("part", "thing"), [("window", "window sample"), ("queries", "query")])
def test_a_test_sample_that_is_on_a_training_device_is_caught(writers, part, thing):
    train, validation, test = writers
    arrays = getattr(test[5], part)[0].copy()
    arrays[3] = train[11].queries[0][0]
    planted = changed(test, 5, **{part: (arrays,)})
    message = f"test device {test[5].name}, {thing} 3: the same sample is on the training device "
    with pytest.raises(DataError, match=message):
        check_devices(train, validation, planted)


def test_samples_of_several_arrays_leak_only_where_all_of_them_agree():
    def device(name: str, first: list[int], second: list[int]) -> Device:
        arrays = (np.array([first], np.float32), np.array([second], np.float32))
        other = tuple(array + 100 * len(name) for array in arrays)
        return Device(name, arrays, other, np.zeros(1, np.int64))

    test = [device("t", [1, 2], [3])]
    check_devices([device("train", [1, 2], [4])], [], test)
    with pytest.raises(DataError, match="test device t, window sample 0"):
        check_devices([device("train", [1, 2], [3])], [], test)
