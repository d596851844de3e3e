"""Habits: class mixes of devices, and samples drawn to fit them."""

import numpy as np
import pytest

from persona.data import DataError
from persona.data.habits import BalancedPool, check_habits, class_mix, draw

LABELS = np.repeat(np.arange(4), [400, 200, 100, 300])


def test_without_habits_all_classes_are_equally_frequent():
    assert class_mix(np.random.default_rng(0), 4, 0).tolist() == [0.25] * 4


@pytest.mark.parametrize("concentration", [0.2, 1.0, 5.0])
def test_mixes_have_the_mean_and_variance_of_a_dirichlet(concentration):
    rng = np.random.default_rng(0)
    mixes = np.stack([class_mix(rng, 5, concentration) for _ in range(4000)])
    np.testing.assert_allclose(mixes.sum(1), 1)
    np.testing.assert_allclose(mixes.mean(0), 0.2, atol=0.03)
    expected = 0.2 * 0.8 / (5 * concentration + 1)
    np.testing.assert_allclose(mixes.var(0), expected, rtol=0.15)


def test_drawn_classes_are_as_frequent_as_the_mix_whatever_there_is_most_of():
    rng = np.random.default_rng(0)
    mix = np.array([0.1, 0.2, 0.6, 0.1])
    drawn = np.concatenate([LABELS[draw(rng, LABELS, mix, 10)] for _ in range(2000)])
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), mix, atol=0.02)


def test_no_sample_is_drawn_twice_and_a_class_used_up_leaves_its_place():
    rng = np.random.default_rng(0)
    mix = np.array([0.0, 0.0, 1.0, 0.0])
    drawn = draw(rng, LABELS, mix, 250)
    assert len(set(drawn.tolist())) == 250
    assert (LABELS[drawn] == 2).sum() == 100
    assert sorted(draw(rng, LABELS, mix, 1000)) == list(range(1000))


def test_the_order_of_what_is_drawn_tells_nothing():
    """The likely classes do not come first."""
    rng = np.random.default_rng(0)
    mix = np.array([0.7, 0.1, 0.1, 0.1])
    drawn = np.stack([LABELS[draw(rng, LABELS, mix, 20)] for _ in range(1500)])
    first, last = (np.mean(half == 0) for half in np.split(drawn, 2, axis=1))
    assert first == pytest.approx(last, abs=0.03)


def test_a_balanced_pool_draws_every_class_it_has_equally_often_and_no_other_sample():
    members = np.flatnonzero(LABELS != 1)[::2]
    picked = BalancedPool(members, LABELS).pick(np.random.default_rng(0), 30_000)
    assert set(picked.tolist()) == set(members.tolist())
    shares = np.bincount(LABELS[picked], minlength=4) / 30_000
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.015)


def test_of_several_habits_each_device_draws_one():
    """Half of the devices see all classes equally often, the others one or two."""
    rng = np.random.default_rng(8)
    mixes = np.array([class_mix(rng, 10, [0.0, 0.05]) for _ in range(400)])
    even = np.isclose(mixes, 0.1).all(1)
    assert even.mean() == pytest.approx(0.5, abs=0.08)
    assert mixes[~even].max(1).mean() > 0.6


@pytest.mark.parametrize("habits", [-0.1, [0.3, -1.0], []])
def test_habits_that_make_no_sense_are_refused(habits):
    with pytest.raises(DataError, match="habits must be 0 or more"):
        check_habits(habits)
