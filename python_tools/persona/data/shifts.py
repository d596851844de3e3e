"""Shifts that make one device differ from another: how its images look, and which ones it sees."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F


@dataclass(frozen=True)
class ImageShift:
    """Ranges from which devices draw.

    rotation: degrees to either side. contrast: lowest and highest factor. noise: highest
    deviation. habits: concentration of the Dirichlet class mix; small means strong habits.
    """

    rotation: float = 40.0
    contrast: tuple[float, float] = (0.4, 1.2)
    noise: float = 0.25
    habits: float = 0.3

    def looks(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Draw `count` devices' looks: columns rotation in degrees, contrast, noise deviation."""
        return np.stack(
            [
                rng.uniform(-self.rotation, self.rotation, count),
                rng.uniform(*self.contrast, count),
                rng.uniform(0, self.noise, count),
            ],
            axis=1,
        ).astype(np.float32)

    def class_mix(self, rng: np.random.Generator, classes: int) -> NDArray[np.float64]:
        """Draw one device's habits: class frequencies [classes]."""
        return rng.dirichlet(np.full(classes, self.habits))


def shift_images(
    images: NDArray[np.float32], looks: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Rotate, scale and disturb images [n, c, h, w] in 0..1, each by its row of looks [n, 3]."""
    angle = torch.from_numpy(np.deg2rad(looks[:, 0]))
    cos, sin, none = torch.cos(angle), torch.sin(angle), torch.zeros(len(angle))
    rotation = torch.stack([torch.stack([cos, -sin, none], 1), torch.stack([sin, cos, none], 1)], 1)
    grid = F.affine_grid(rotation, list(images.shape), align_corners=False)
    turned = F.grid_sample(torch.from_numpy(images), grid, align_corners=False).numpy()
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    shape = (-1, 1, 1, 1)
    shifted: NDArray[np.float32] = turned * looks[:, 1].reshape(shape) + noise * looks[
        :, 2
    ].reshape(shape)
    return shifted
