"""Streams gone wrong do to devices what they say, and nothing to targets."""

import numpy as np
import pytest

from persona.data import DataError, Device
from persona.data.streams import SHORT, streams

WINDOW, QUERIES = 8, 5


def device(index: int) -> Device:
    rng = np.random.default_rng(index)
    images = rng.random((WINDOW + QUERIES, 3, 8, 8), dtype=np.float32)
    return Device(
        f"device-{index}",
        (images[:WINDOW],),
        (images[WINDOW:],),
        rng.integers(0, 3, QUERIES),
        rng.integers(0, 3, WINDOW),
    )


@pytest.fixture
def devices() -> list[Device]:
    return [device(i) for i in range(4)]


def spoilt(name: str, devices: list[Device]) -> list[Device]:
    return streams[name]().spoil(devices, np.random.default_rng(7))


@pytest.mark.parametrize("name", list(streams))
def test_names_targets_and_shapes_of_queries_stay_and_seeds_decide(name, devices):
    one, two = spoilt(name, devices), spoilt(name, devices)
    for before, after, again in zip(devices, one, two, strict=True):
        assert after.name == before.name
        assert np.array_equal(after.targets, before.targets)
        assert after.queries[0].shape == before.queries[0].shape
        assert np.array_equal(after.window[0], again.window[0])
        assert np.array_equal(after.queries[0], again.queries[0])


@pytest.mark.parametrize("name", ["mixed", "one-class", "short"])
def test_a_spoilt_window_leaves_the_queries_alone(name, devices):
    for before, after in zip(devices, spoilt(name, devices), strict=True):
        assert np.array_equal(after.queries[0], before.queries[0])


def test_half_of_a_mixed_window_is_anothers(devices):
    half = WINDOW // 2
    for i, after in enumerate(spoilt("mixed", devices)):
        assert np.array_equal(after.window[0][half:], devices[i].window[0][half:])
        assert np.array_equal(after.window[0][:half], devices[i - 1].window[0][:half])


def test_a_window_of_one_class_holds_its_most_frequent_one(devices):
    for before, after in zip(devices, spoilt("one-class", devices), strict=True):
        assert before.window_targets is not None
        (only,) = np.unique(after.window_targets)
        counts = np.bincount(before.window_targets)
        assert counts[only] == counts.max()
        own = {image.tobytes() for image in before.window[0][before.window_targets == only]}
        assert {image.tobytes() for image in after.window[0]} <= own
        assert len(after.window[0]) == WINDOW


def test_one_class_needs_known_classes(devices):
    blind = [Device(d.name, d.window, d.queries, d.targets) for d in devices]
    with pytest.raises(DataError, match="classes of the window"):
        spoilt("one-class", blind)


def test_a_short_window_keeps_the_newest(devices):
    for before, after in zip(devices, spoilt("short", devices), strict=True):
        assert np.array_equal(after.window[0], before.window[0][-SHORT:])


def test_a_cover_hides_the_same_quarter_of_every_image_of_a_device(devices):
    for before, after in zip(devices, spoilt("occlusion", devices), strict=True):
        images = np.concatenate([after.window[0], after.queries[0]])
        clean = np.concatenate([before.window[0], before.queries[0]])
        hidden = (images == 0).all((0, 1))
        assert hidden.sum() == 16
        assert np.array_equal(images[..., ~hidden], clean[..., ~hidden])


def test_stripes_take_every_fourth_row(devices):
    for after in spoilt("stripes", devices):
        lost = (after.window[0] == 0).all((0, 1, 3))
        assert lost.sum() == 2
        assert np.diff(np.flatnonzero(lost)).tolist() == [4]


def test_other_hardware_is_one_gain_and_offset_a_channel(devices):
    for before, after in zip(devices, spoilt("other-hardware", devices), strict=True):
        for channel in range(3):
            x, y = (
                np.concatenate([d.window[0], d.queries[0]])[:, channel].ravel()
                for d in (before, after)
            )
            gain, offset = np.polyfit(x, y, 1)
            np.testing.assert_allclose(y, gain * x + offset, atol=1e-4)
            assert 0.6 <= gain <= 1.4


def test_items_are_no_images():
    items = Device("u", (np.arange(1, 9),), (np.ones((2, 3), int),), np.zeros(2, int))
    with pytest.raises(DataError, match="images or signals"):
        spoilt("stripes", [items])
    (after,) = spoilt("short", [items])
    assert after.window[0].tolist() == [6, 7, 8]
