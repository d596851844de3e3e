"""Digits on simulated devices: nothing is seen twice, and devices differ as the settings say."""

from itertools import combinations
from typing import get_args

import numpy as np
import pytest
from sklearn.datasets import load_digits

from persona.data import datasets
from persona.data.base import DataError, Split
from persona.data.digits import Digits
from persona.data.shifts import ImageShift, shift_images

UNSHIFTED = {"rotation": 0.0, "contrast": (1.0, 1.0), "noise": 0.0}
SPLITS = get_args(Split)


@pytest.fixture(scope="module")
def plain() -> Digits:
    """Images as they are, so that each can be told by its pixels."""
    return Digits(**UNSHIFTED)


def identities(images: np.ndarray) -> list[bytes]:
    return [image.round(3).tobytes() for image in images]


def test_the_images_are_scikit_learns_and_are_all_used(plain):
    digits = load_digits()
    assert datasets["digits"] is Digits
    np.testing.assert_allclose(plain.images[:, 0] * 16, digits.images, atol=1e-6)
    np.testing.assert_array_equal(plain.labels, digits.target)
    assert sorted(np.concatenate(list(plain.pools.values()))) == list(range(1797))


def test_no_image_belongs_to_two_pools(plain):
    assert set(plain.pools) == {"backbone", "held-out", *SPLITS}
    for one, other in combinations(plain.pools.values(), 2):
        assert not set(one) & set(other)


def test_each_device_and_batch_draws_from_its_own_pool(plain):
    owners = {
        image: name
        for name, pool in plain.pools.items()
        for image in identities(plain.images[pool])
    }
    (trained,), _ = plain.batch(np.random.default_rng(0), 500)
    (held,), _ = plain.held_out()
    assert {owners[i] for i in identities(trained)} == {"backbone"}
    assert {owners[i] for i in identities(held)} == {"held-out"}
    for split in SPLITS:
        for device in plain.devices(split, 20, 3):
            drawn = identities(np.concatenate([device.window[0], device.queries[0]]))
            assert {owners[i] for i in drawn} == {split}


def test_window_and_queries_of_a_device_share_no_image(plain):
    for device in plain.devices("test", 30, 3):
        drawn = identities(np.concatenate([device.window[0], device.queries[0]]))
        assert len(set(drawn)) == len(drawn) == 50


def test_targets_are_the_labels_of_the_queries(plain):
    labels = dict(zip(identities(plain.images), plain.labels.tolist(), strict=True))
    for device in plain.devices("test", 10, 3):
        assert [labels[i] for i in identities(device.queries[0])] == device.targets.tolist()
        assert [labels[i] for i in identities(device.window[0])] == device.window_targets.tolist()
    (images,), targets = plain.batch(np.random.default_rng(1), 200)
    assert [labels[i] for i in identities(images)] == targets.tolist()


def test_the_seed_fixes_the_devices():
    data, again = Digits(), Digits()
    for one, other in zip(data.devices("test", 4, 7), again.devices("test", 4, 7), strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.window[0], other.window[0])
        np.testing.assert_array_equal(one.queries[0], other.queries[0])
    first = data.devices("test", 1, 7)[0]
    for other in (data.devices("test", 1, 8)[0], data.devices("validation", 1, 7)[0]):
        assert other.name != first.name
        assert not np.array_equal(other.window[0], first.window[0])
    names = [d.name for s in SPLITS for d in data.devices(s, 5, 7)]
    assert len(set(names)) == 15


def test_fewer_devices_are_the_first_of_many():
    few, many = (Digits().devices("test", n, 7) for n in (2, 5))
    for one, other in zip(few, many, strict=False):
        np.testing.assert_array_equal(one.queries[0], other.queries[0])


def test_small_concentrations_are_strong_habits():
    """The commonest class of a device: nearly all of it, or hardly more than a tenth."""

    def commonest(habits: float) -> float:
        devices = Digits(habits=habits).devices("adapter", 60, 0)
        return np.mean([np.bincount(d.targets).max() / len(d.targets) for d in devices])

    assert commonest(0.1) > commonest(0.5) > commonest(50.0)
    assert commonest(50.0) < 0.3


def test_window_and_queries_have_the_same_habits():
    """Their class mixes agree as well as those of the same samples in another order."""
    plain = Digits(**UNSHIFTED, habits=0.2)
    labels = dict(zip(identities(plain.images), plain.labels, strict=True))
    rng = np.random.default_rng(0)

    def agreement(classes: np.ndarray) -> float:
        window, queries = (np.bincount(c, minlength=10) for c in np.split(classes, [20]))
        return np.minimum(window / 20, queries / 30).sum()

    drawn = [
        np.array([labels[i] for i in identities(np.concatenate([*d.window, *d.queries]))])
        for d in plain.devices("validation", 150, 1)
    ]
    found = np.mean([agreement(classes) for classes in drawn])
    assert found == pytest.approx(np.mean([agreement(rng.permutation(c)) for c in drawn]), abs=0.05)


def test_sizes_that_no_device_can_have_are_refused_before_training():
    with pytest.raises(DataError, match=r"at most 14. images, got window = 120 and queries = 30"):
        Digits(window=120)
    assert len(Digits(window=100, queries=43).devices("validation", 1, 0)[0].targets) == 43


def test_the_fingerprint_tells_the_data_and_not_the_settings():
    one, same = Digits(), Digits(window=5)
    assert one.fingerprint() == same.fingerprint()
    assert len(one.fingerprint()) == 64
    same.images[0, 0, 3, 3] += 1
    assert one.fingerprint() != same.fingerprint()


def looks(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_quarter_turns_are_numpys():
    rng = np.random.default_rng(0)
    images = rng.random((3, 1, 8, 8), dtype=np.float32)
    turned = shift_images(images, looks((90, 1, 0), (180, 1, 0), (-90, 1, 0)), rng)
    quarter = np.rot90(images[0, 0], 1)
    assert np.allclose(turned[0, 0], quarter, atol=1e-4)
    np.testing.assert_allclose(turned[1, 0], np.rot90(images[1, 0], 2), atol=1e-4)
    np.testing.assert_allclose(turned[2, 0], np.rot90(images[2, 0], -1), atol=1e-4)


def test_contrast_and_noise_are_what_they_say():
    images = np.random.default_rng(0).random((4000, 1, 8, 8), dtype=np.float32)
    rng = np.random.default_rng(1)
    still = shift_images(images, np.tile(looks((0, 0.5, 0)), (4000, 1)), rng)
    np.testing.assert_allclose(still, 0.5 * images, atol=1e-5)
    noisy = shift_images(images, np.tile(looks((0, 1, 0.2)), (4000, 1)), rng)
    assert (noisy - images).std() == pytest.approx(0.2, rel=0.02)
    assert (noisy - images).mean() == pytest.approx(0, abs=0.005)


def test_looks_fill_their_ranges():
    shift = ImageShift(rotation=30, contrast=(0.5, 1.5), noise=0.2)
    drawn = shift.looks(np.random.default_rng(0), 5000)
    np.testing.assert_allclose(drawn.min(0), [-30, 0.5, 0], atol=0.1)
    np.testing.assert_allclose(drawn.max(0), [30, 1.5, 0.2], atol=0.1)
    np.testing.assert_allclose(drawn.mean(0), [0, 1, 0.1], atol=1)
