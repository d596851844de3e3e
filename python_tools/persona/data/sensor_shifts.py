"""Where a phone is carried: a rotation and gains that a device keeps, x' = g·R·x for each sensor.

Channels come in threes, x, y and z of one sensor each, the accelerometer first.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from persona.data.base import DataError

Floats = NDArray[np.float32]

_ANGLES = 1001


def random_rotations(rng: np.random.Generator, count: int, greatest: float) -> Floats:
    """Rotation matrices [count, 3, 3] of at most `greatest` degrees, uniform among those.

    Axes are uniform; angles have the density of uniform rotations, proportional to 1 − cos θ.
    180 degrees draws from all rotations.
    """
    angles = np.linspace(0, np.deg2rad(greatest), _ANGLES)
    turned = np.interp(rng.random(count), _normed(angles - np.sin(angles)), angles)
    axes = rng.standard_normal((count, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    matrices: Floats = Rotation.from_rotvec(axes * turned[:, None]).as_matrix().astype(np.float32)
    return matrices


def _normed(cumulative: NDArray[np.float64]) -> NDArray[np.float64]:
    return cumulative / cumulative[-1] if cumulative[-1] > 0 else cumulative


@dataclass(frozen=True)
class PlacementShift:
    """What devices' placements are drawn from.

    rotation: greatest turn in degrees, to 180. gain: lowest and highest factor of a sensor.
    """

    rotation: float = 180.0
    gain: tuple[float, float] = (0.9, 1.1)

    def __post_init__(self) -> None:
        """Raises DataError where a setting makes no sense."""
        if not 0 <= self.rotation <= 180:
            raise DataError(f"rotation must be 0 to 180 degrees, got {self.rotation}")
        low, high = self.gain
        if not 0 < low <= high:
            raise DataError(f"gain must be a lowest and a highest factor, got {low} and {high}")

    @property
    def changes(self) -> bool:
        """Whether it changes anything; channels must then come in threes."""
        return self.rotation > 0 or tuple(self.gain) != (1, 1)

    def draw(self, rng: np.random.Generator, count: int, sensors: int) -> Floats:
        """Placements [count, sensors, 3, 3]: one rotation, and a gain for each sensor."""
        rotations = random_rotations(rng, count, self.rotation)
        gains = rng.uniform(*self.gain, (count, sensors)).astype(np.float32)
        return gains[:, :, None, None] * rotations[:, None]


def place(windows: Floats, placements: Floats) -> Floats:
    """Windows [n, 3·sensors, length] under placements [n or 1, sensors, 3, 3]."""
    n, channels, length = windows.shape
    triples = windows.reshape(n, channels // 3, 3, length)
    return (placements @ triples).reshape(n, channels, length)


def align_gravity(windows: Floats) -> Floats:
    """Turn each window the shortest way so that its mean acceleration points to −z.

    windows: [n, 3·sensors, length], the accelerometer first. This takes out what gravity tells
    of the placement; the turn about the vertical stays unknown. Windows whose mean acceleration
    is zero stay as they are.
    """
    mean = windows[:, :3].mean(axis=2, dtype=np.float64)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    x, y, z = (mean / np.maximum(norm, 1e-12)).T
    # R = I + [v] + [v]²/(1 + c) with v = a × (0, 0, −1) = (−y, x, 0) and c = −z.
    upright = z > 1 - 1e-6
    share = 1 / np.where(upright, 1, 1 - z)
    turn = np.stack(
        [
            np.stack([1 - x * x * share, -x * y * share, x], axis=1),
            np.stack([-x * y * share, 1 - y * y * share, y], axis=1),
            np.stack([-x, -y, -z], axis=1),
        ],
        axis=1,
    )
    turn[upright] = np.diag([1, -1, -1])
    turn[norm[:, 0] < 1e-6] = np.eye(3)
    return place(windows, turn[:, None].astype(np.float32))
