"""Corruptions that a camera keeps: noise, blur, light, haze and compression, in severities 1 to 5.

The families and their 32-pixel strengths are those of CIFAR-10-C (Hendrycks and Dietterich, 2019,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"), except that
defocus, motion blur and haze are built more simply, with strengths of our own. Blurs widen with
the image. They are written here on NumPy, Pillow and PyTorch because the libraries that have them
(imagecorruptions, albumentations) work image by image and bring OpenCV.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from persona.data.base import DataError

Floats = NDArray[np.float32]
Corruption = Callable[[Floats, int, np.random.Generator], Floats]

STRONGEST = 5
_REFERENCE_SIZE = 32
_FAMILIES: dict[str, Corruption] = {}


def _family(name: str) -> Callable[[Corruption], Corruption]:
    def add(corruption: Corruption) -> Corruption:
        _FAMILIES[name] = corruption
        return corruption

    return add


@_family("gaussian-noise")
def _gaussian_noise(images: Floats, severity: int, rng: np.random.Generator) -> Floats:
    deviation = np.float32((0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1])
    return images + deviation * rng.standard_normal(images.shape, dtype=np.float32)


@_family("shot-noise")
def _shot_noise(images: Floats, severity: int, rng: np.random.Generator) -> Floats:
    photons = (500, 250, 100, 75, 50)[severity - 1]
    return (rng.poisson(images * photons) / photons).astype(np.float32)


@_family("impulse-noise")
def _impulse_noise(images: Floats, severity: int, rng: np.random.Generator) -> Floats:
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    drawn = rng.random(images.shape, dtype=np.float32)
    salted = np.where(drawn < share / 2, np.float32(1), images)
    return np.where(drawn > 1 - share / 2, np.float32(0), salted)


def _grid(reach: float) -> tuple[Floats, Floats]:
    """Coordinates of a square kernel that holds `reach` pixels to every side."""
    side = np.arange(-np.ceil(reach), np.ceil(reach) + 1, dtype=np.float32)
    y, x = np.meshgrid(side, side, indexing="ij")
    return y, x


def _convolve(images: Floats, kernel: Floats) -> Floats:
    """Every channel with one kernel of odd size, edges repeated."""
    n, c, h, w = images.shape
    planes = torch.from_numpy(np.ascontiguousarray(images).reshape(n * c, 1, h, w))
    reach = len(kernel) // 2
    padded = F.pad(planes, (reach,) * 4, mode="replicate")
    weight = torch.from_numpy(kernel / kernel.sum())[None, None]
    blurred: Floats = F.conv2d(padded, weight).numpy().reshape(n, c, h, w)
    return blurred


def _scaled(width: float, images: Floats) -> float:
    return width * images.shape[-1] / _REFERENCE_SIZE


@_family("gaussian-blur")
def _gaussian_blur(images: Floats, severity: int, _rng: np.random.Generator) -> Floats:
    deviation = _scaled((0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1], images)
    y, x = _grid(4 * deviation)
    return _convolve(images, np.exp(-(x**2 + y**2) / (2 * deviation**2)))


@_family("defocus-blur")
def _defocus_blur(images: Floats, severity: int, _rng: np.random.Generator) -> Floats:
    """A disc with a soft edge."""
    radius = _scaled((0.7, 0.9, 1.1, 1.4, 1.8)[severity - 1], images)
    y, x = _grid(radius + 0.5)
    return _convolve(images, np.clip(radius + 0.5 - np.hypot(x, y), 0, 1))


@_family("motion-blur")
def _motion_blur(images: Floats, severity: int, rng: np.random.Generator) -> Floats:
    """A line with soft edges, in one direction for all images of the call."""
    half = _scaled((2.0, 3.0, 4.0, 5.5, 7.0)[severity - 1], images) / 2
    angle = rng.uniform(0, np.pi)
    y, x = _grid(half + 0.5)
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    across = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    return _convolve(images, np.clip(half + 0.5 - np.abs(along), 0, 1) * np.exp(-2 * across**2))


@_family("brightness")
def _brightness(images: Floats, severity: int, _rng: np.random.Generator) -> Floats:
    """More HSV value, hue and saturation kept."""
    value = images.max(axis=1, keepdims=True)
    more = np.clip(value + np.float32((0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]), 0, 1)
    return np.where(value > 0, images * (more / np.maximum(value, np.float32(1e-6))), more)


@_family("contrast")
def _contrast(images: Floats, severity: int, _rng: np.random.Generator) -> Floats:
    mean = images.mean(axis=(2, 3), keepdims=True)
    return mean + np.float32((0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]) * (images - mean)


@_family("saturate")
def _saturate(images: Floats, severity: int, _rng: np.random.Generator) -> Floats:
    """HSV saturation times a factor plus an offset; severities 1 and 2 take colour away."""
    factor, offset = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))[severity - 1]
    value = images.max(axis=1, keepdims=True)
    chroma = value - images.min(axis=1, keepdims=True)
    saturation = chroma / np.maximum(value, np.float32(1e-6))
    target = np.clip(saturation * np.float32(factor) + np.float32(offset), 0, 1)
    gain = np.where(chroma > 0, target / np.maximum(saturation, np.float32(1e-6)), 0)
    return value - (value - images) * gain.astype(np.float32)


@_family("haze")
def _haze(images: Floats, severity: int, rng: np.random.Generator) -> Floats:
    """x' = (x + a·f) / (1 + a), with f in 0..1 a cloud of amplitude 1/frequency^1.75 an image."""
    amount = np.float32((0.2, 0.5, 0.75, 1.0, 1.5)[severity - 1])
    n, _, h, w = images.shape
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((n, h, w), dtype=np.float32))
    cloud = np.fft.irfft2(spectrum / frequency**1.75, s=(h, w))
    low, high = (edge(cloud, axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
    whiteness = ((cloud - low) / (high - low)).astype(np.float32)[:, None]
    return (images + amount * whiteness) / (1 + amount)


def _boxes(size: int, coarse: int) -> Floats:
    """The share of each of `size` pixels in each of `coarse` larger ones, [coarse, size]."""
    edges = np.arange(coarse + 1) * size / coarse
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    boxes = np.clip(covered, 0, None)
    return (boxes / boxes.sum(1, keepdims=True)).astype(np.float32)


def _coarsening(size: int, share: float) -> Floats:
    """Averages over larger pixels, and repeats each where its middle falls, [size, size]."""
    coarse = max(1, int(size * share))
    nearest = ((np.arange(size) + 0.5) * coarse / size).astype(np.int64)
    return _boxes(size, coarse)[nearest]


@_family("pixelate")
def _pixelate(images: Floats, severity: int, _rng: np.random.Generator) -> Floats:
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    rows, columns = (_coarsening(side, share) for side in images.shape[2:])
    return (rows @ images @ columns.T).astype(np.float32, copy=False)


@_family("jpeg")
def _jpeg(images: Floats, severity: int, _rng: np.random.Generator) -> Floats:
    """Compressed and decoded one by one, so that no image leaks into another."""
    quality = (80, 65, 58, 50, 40)[severity - 1]
    pixels = np.rint(images * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    decoded = np.empty_like(pixels)
    for image, out in zip(pixels, decoded, strict=True):
        data = BytesIO()
        grey = image.shape[-1] == 1
        Image.fromarray(image[..., 0] if grey else image).save(data, "JPEG", quality=quality)
        out[...] = np.asarray(Image.open(data)).reshape(out.shape)
    return decoded.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


FAMILIES = tuple(_FAMILIES)
"""Names of all corruptions."""


def corrupt(images: Floats, family: str, severity: int, rng: np.random.Generator) -> Floats:
    """Images [n, c, h, w] from 0 to 1 under one corruption, float32 from 0 to 1.

    severity: 0 (as they are) to 5. What is random differs between images, but the direction of
    motion blur is one for all.
    """
    if severity == 0:
        return images
    corrupted = _FAMILIES[family](images, severity, rng)
    return np.clip(corrupted, 0, 1).astype(np.float32, copy=False)


Look = tuple[tuple[str, int], ...]
"""Corruptions with their severities, applied one after the other."""


@dataclass(frozen=True)
class CameraShift:
    """What devices' cameras are drawn from.

    corruptions: families, all equally likely; none means that images stay as they are.
    severities: lowest and highest, 0 (clean) to 5. each: different corruptions of one device.
    """

    corruptions: tuple[str, ...] = ()
    severities: tuple[int, int] = (1, STRONGEST)
    each: int = 1

    def __post_init__(self) -> None:
        """Raises DataError where a setting makes no sense."""
        unknown = sorted(set(self.corruptions) - set(FAMILIES))
        if unknown:
            raise DataError(
                f"corruptions: there is no {', '.join(unknown)}; there are {', '.join(FAMILIES)}"
            )
        low, high = self.severities
        if not 0 <= low <= high <= STRONGEST:
            raise DataError(
                f"severities must be a lowest and a highest from 0 to {STRONGEST}, got {low} and "
                f"{high}"
            )
        if self.corruptions and not 1 <= self.each <= len(self.corruptions):
            raise DataError(
                f"each device must have 1 to {len(self.corruptions)} different corruptions, got "
                f"{self.each}"
            )

    def draw(self, rng: np.random.Generator) -> Look:
        """One device's look."""
        if not self.corruptions:
            return ()
        families = rng.permutation(len(self.corruptions))[: self.each]
        low, high = self.severities
        return tuple((self.corruptions[f], int(rng.integers(low, high + 1))) for f in families)

    def apply(self, images: Floats, look: Look, rng: np.random.Generator) -> Floats:
        """Images [n, c, h, w] from 0 to 1 as a device with this look takes them."""
        for family, severity in look:
            images = corrupt(images, family, severity, rng)
        return images
