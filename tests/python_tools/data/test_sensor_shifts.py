"""Placements of a phone: rotations, gains, and gravity taken out."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from persona.data.base import DataError
from persona.data.sensor_shifts import PlacementShift, align_gravity, place, random_rotations


def windows(count: int = 7, sensors: int = 2, length: int = 50) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((count, 3 * sensors, length))
    values[:, :3] += np.random.default_rng(1).standard_normal((count, 3, 1)) * 3
    return values.astype(np.float32)


def norms(values: np.ndarray) -> np.ndarray:
    n, channels, length = values.shape
    return np.linalg.norm(values.reshape(n, channels // 3, 3, length), axis=2)


@pytest.mark.parametrize("greatest", [0.0, 25.0, 180.0])
def test_rotations_are_rotations_of_at_most_the_asked_angle(greatest):
    matrices = random_rotations(np.random.default_rng(0), 500, greatest)
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (500, 3, 3)), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-5)
    angles = np.rad2deg(Rotation.from_matrix(matrices).magnitude())
    assert angles.max() <= greatest + 0.1
    assert angles.max() >= 0.95 * greatest


def test_rotations_to_180_degrees_are_uniform_as_scipys():
    """Uniform rotations send any vector anywhere, and their mean trace is 0."""
    matrices = random_rotations(np.random.default_rng(0), 20_000, 180)
    np.testing.assert_allclose(matrices.mean(0), 0, atol=0.02)
    theirs = Rotation.random(20_000, random_state=1).magnitude()
    ours = Rotation.from_matrix(matrices).magnitude()
    quarters = [0.1, 0.25, 0.5, 0.75, 0.9]
    np.testing.assert_allclose(
        np.quantile(ours, quarters), np.quantile(theirs, quarters), atol=0.03
    )


def test_a_rotation_keeps_norms_and_turns_all_sensors_alike():
    values = windows()
    placements = PlacementShift(180.0, (1.0, 1.0)).draw(np.random.default_rng(0), 7, 2)
    turned = place(values, placements)
    np.testing.assert_allclose(norms(turned), norms(values), rtol=1e-4)
    assert np.abs(turned - values).mean() > 0.3
    np.testing.assert_array_equal(placements[:, 0], placements[:, 1])
    for window, found, (first, second) in zip(values, turned, placements, strict=True):
        rows = [
            Rotation.from_matrix(m).apply(x.T).T
            for m, x in ((first, window[:3]), (second, window[3:]))
        ]
        np.testing.assert_allclose(found, np.concatenate(rows), atol=1e-4)


def test_gains_are_one_a_sensor_within_their_range():
    values = windows(count=400)
    placed = place(values, PlacementShift(90.0, (0.8, 1.3)).draw(np.random.default_rng(0), 400, 2))
    gains = norms(placed) / norms(values)
    np.testing.assert_allclose(gains.std(axis=2), 0, atol=1e-4)
    each = gains.mean(axis=2)
    assert each.min() >= 0.8 - 1e-3
    assert each.max() <= 1.3 + 1e-3
    assert abs(np.corrcoef(each.T)[0, 1]) < 0.2


def test_one_placement_serves_all_windows_of_a_device():
    values = windows()
    one = PlacementShift().draw(np.random.default_rng(0), 1, 2)
    np.testing.assert_allclose(place(values, one)[3:4], place(values[3:4], one), atol=1e-6)


def test_aligned_windows_point_down_and_keep_their_norms():
    values = windows()
    aligned = align_gravity(values)
    down = aligned[:, :3].mean(axis=2)
    size = np.linalg.norm(values[:, :3].mean(axis=2), axis=1)
    np.testing.assert_allclose(down, np.stack([0 * size, 0 * size, -size], axis=1), atol=1e-4)
    np.testing.assert_allclose(norms(aligned), norms(values), rtol=1e-3)


def test_the_turn_is_the_shortest_one_and_all_sensors_make_it():
    values = windows(count=3)
    for window, found in zip(values, align_gravity(values), strict=True):
        mean = window[:3].mean(axis=1)
        axis = np.cross(mean, [0, 0, -1])
        angle = np.arctan2(np.linalg.norm(axis), -mean[2])
        turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
        expected = np.concatenate([turn.apply(window[:3].T).T, turn.apply(window[3:].T).T])
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("mean", [(0, 0, 1), (0, 0, -1), (1e-4, 0, 1), (0, 0, 0)])
def test_windows_upside_down_aligned_or_without_gravity_are_turned_too(mean):
    values = windows(count=1)
    values[:, :3] += np.array(mean)[:, None] - values[:, :3].mean(axis=2, keepdims=True)
    aligned = align_gravity(values)
    np.testing.assert_allclose(norms(aligned), norms(values), rtol=1e-3)
    np.testing.assert_allclose(
        aligned[0, :3].mean(axis=1), [0, 0, -np.linalg.norm(mean)], atol=1e-3
    )


def test_aligned_windows_differ_only_by_a_turn_about_the_vertical():
    values = windows()
    placed = place(values, PlacementShift(180.0, (1.0, 1.0)).draw(np.random.default_rng(0), 7, 2))
    one, other = align_gravity(values), align_gravity(placed)
    np.testing.assert_allclose(one[:, [2, 5]], other[:, [2, 5]], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rotation": 200.0}, "0 to 180 degrees, got 200"),
        ({"gain": (0.0, 1.0)}, "got 0.0 and 1.0"),
        ({"gain": (1.2, 1.0)}, "got 1.2 and 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(DataError, match=said):
        PlacementShift(**settings)
