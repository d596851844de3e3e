"""Corruptions of images: each against its formula or a second implementation, then together."""

import colorsys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from persona.data.base import DataError
from persona.data.image_shifts import FAMILIES, CameraShift, corrupt

NOISES = {
    "gaussian-noise": lambda x: np.full_like(x, 0.08),
    "shot-noise": lambda x: np.sqrt(x / 100),
}


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Smooth coloured images with edges, [12, 3, 32, 32]."""
    noise = np.random.default_rng(0).random((12, 3, 32, 32))
    smooth = ndimage.gaussian_filter(noise, (0, 0.7, 4, 4))
    low, high = smooth.min((1, 2, 3), keepdims=True), smooth.max((1, 2, 3), keepdims=True)
    images = (smooth - low) / (high - low)
    images[:, :, 10:20, 8:24] = 1 - images[:, :, 10:20, 8:24]
    return images.astype(np.float32)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((one - other) ** 2).mean()))


@pytest.mark.parametrize("family", FAMILIES)
def test_images_keep_shape_type_and_range_and_the_given_ones_stay(photos, family):
    before = photos.copy()
    for severity in (1, 5):
        corrupted = corrupt(photos, family, severity, rng())
        assert corrupted.shape == photos.shape
        assert corrupted.dtype == np.float32
        assert corrupted.min() >= 0
        assert corrupted.max() <= 1
    np.testing.assert_array_equal(photos, before)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"saturate", "pixelate"}))
def test_each_severity_is_further_from_the_clean_image_than_the_one_before(photos, family):
    distances = [distance(corrupt(photos, family, s, rng()), photos) for s in range(6)]
    assert distances[0] == 0
    assert all(np.diff(distances) > 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_generator_fixes_the_outcome(photos, family):
    once, again = (corrupt(photos, family, 4, rng()) for _ in range(2))
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 40, 40), (1, 3, 8, 8)])
def test_other_sizes_and_grey_images_do_too(family, shape):
    images = rng().random(shape, dtype=np.float32)
    assert corrupt(images, family, 5, rng()).shape == shape


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gaussian-noise", "shot-noise", "haze"}))
def test_an_image_comes_out_the_same_whatever_its_neighbours(photos, family):
    if family in ("impulse-noise", "motion-blur"):
        alone = corrupt(photos[:1], family, 3, rng())
    else:
        alone = corrupt(photos[4:5], family, 3, rng())
    among = corrupt(photos, family, 3, rng())
    place = 0 if family in ("impulse-noise", "motion-blur") else 4
    np.testing.assert_allclose(among[place], alone[0], atol=1e-6)


@pytest.mark.parametrize("family", NOISES)
def test_noise_has_its_deviation_and_no_bias(family):
    grey = np.linspace(0.3, 0.7, 9, dtype=np.float32).reshape(9, 1, 1, 1)
    images = np.broadcast_to(grey, (9, 3, 64, 64)).copy()
    noise = corrupt(images, family, 3, rng()) - images
    expected = NOISES[family](grey[:, 0, 0, 0])
    np.testing.assert_allclose(noise.std((1, 2, 3)), expected, rtol=0.04)
    np.testing.assert_allclose(noise.mean((1, 2, 3)), 0, atol=0.004)


def test_impulses_are_black_and_white_and_as_many_as_said():
    images = np.full((4, 3, 64, 64), 0.5, np.float32)
    shares = [np.mean(corrupt(images, "impulse-noise", 5, rng()) == v) for v in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(shares, [0.035, 0.93, 0.035], atol=0.005)


def test_gaussian_blur_is_scipys(photos):
    expected = ndimage.gaussian_filter(photos, (0, 0, 1, 1), mode="nearest")
    np.testing.assert_allclose(corrupt(photos, "gaussian-blur", 5, rng()), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["defocus-blur", "motion-blur"])
def test_a_point_of_light_becomes_a_spot_that_is_a_disc_or_a_line(family):
    point = np.zeros((1, 1, 33, 33), np.float32)
    point[..., 16, 16] = 1
    spot = corrupt(point, family, 5, rng())[0, 0].astype(np.float64)
    assert spot.sum() == pytest.approx(1, abs=1e-5)
    places = np.argwhere(spot > 0) - 16
    spread = np.cov(places.T, aweights=spot[spot > 0], ddof=0)
    across, along = np.sqrt(np.linalg.eigvalsh(spread))
    if family == "defocus-blur":
        assert across == pytest.approx(along, rel=0.01)
        assert np.hypot(*places.T).max() <= 1.8 + 0.5
    else:
        assert along > 3 * across


def test_brightness_and_saturation_are_those_of_hsv(photos):
    pixels = photos[:2, :, ::4, ::4]
    brighter = corrupt(pixels, "brightness", 4, rng())
    vivid = corrupt(pixels, "saturate", 4, rng())
    flat = [x.transpose(0, 2, 3, 1).reshape(-1, 3) for x in (pixels, brighter, vivid)]
    for clean, bright, strong in zip(*flat, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*map(float, clean))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))
        np.testing.assert_allclose(bright, expected, atol=1e-4)
        expected = colorsys.hsv_to_rgb(hue, min(1, 2 * saturation + 0.1), value)
        np.testing.assert_allclose(strong, expected, atol=1e-4)


def test_contrast_scales_deviations_and_keeps_the_mean(photos):
    flat = corrupt(photos, "contrast", 2, rng())
    np.testing.assert_allclose(flat.mean((2, 3)), photos.mean((2, 3)), atol=1e-5)
    np.testing.assert_allclose(flat.std((2, 3)), photos.std((2, 3)) / 2, atol=1e-5)


def test_haze_is_a_veil_of_the_asked_strength_that_differs_between_images():
    black, white = (np.full((6, 3, 32, 32), v, np.float32) for v in (0, 1))
    for severity, amount in ((1, 0.2), (5, 1.5)):
        veil = corrupt(black, "haze", severity, rng())
        assert veil.max() == pytest.approx(amount / (1 + amount), abs=1e-4)
        assert veil.min() == pytest.approx(0, abs=1e-4)
        difference = corrupt(white, "haze", severity, rng()) - veil
        np.testing.assert_allclose(difference, 1 / (1 + amount), atol=1e-4)
    assert distance(veil[0], veil[1]) > 0.05
    np.testing.assert_array_equal(veil[:, 0], veil[:, 1])


def test_clouds_are_smooth():
    """Neighbouring pixels of the veil are much more alike than distant ones."""
    veil = corrupt(np.zeros((20, 1, 32, 32), np.float32), "haze", 5, rng())
    assert distance(veil[..., 1:], veil[..., :-1]) < 0.5 * distance(veil[..., 16:], veil[..., :16])


@pytest.mark.parametrize(("severity", "coarse"), enumerate([30, 28, 27, 24, 20], 1))
def test_pixelate_averages_over_fewer_and_fewer_larger_pixels(photos, severity, coarse):
    """Each of 32 pixels cut into `coarse` parts, of which every 32 are one larger pixel."""
    parts = photos.repeat(coarse, axis=2).repeat(coarse, axis=3)
    larger = parts.reshape(12, 3, coarse, 32, coarse, 32).mean((3, 5))
    nearest = np.asarray(
        Image.fromarray(np.arange(coarse, dtype=np.int32)[None]).resize(
            (32, 1), Image.Resampling.NEAREST
        )
    )[0]
    expected = larger[:, :, nearest][..., nearest]
    np.testing.assert_allclose(corrupt(photos, "pixelate", severity, rng()), expected, atol=1e-5)


def test_jpeg_is_pillows_at_the_asked_quality(photos):
    pixels = np.rint(photos * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    corrupted = corrupt(photos, "jpeg", 5, rng())
    for image, found in zip(pixels, corrupted, strict=True):
        data = BytesIO()
        Image.fromarray(image).save(data, "JPEG", quality=40)
        expected = np.asarray(Image.open(data)).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(found, expected, atol=1e-6)


# Cameras


def test_cameras_draw_every_family_and_severity_equally_often():
    shift = CameraShift(("haze", "jpeg", "contrast"), (2, 4))
    generator = rng()
    looks = [shift.draw(generator) for _ in range(3000)]
    assert {len(look) for look in looks} == {1}
    drawn, counts = np.unique([f"{f} {s}" for ((f, s),) in looks], return_counts=True)
    assert set(drawn) == {f"{f} {s}" for f in shift.corruptions for s in (2, 3, 4)}
    np.testing.assert_allclose(counts, 3000 / 9, rtol=0.2)


def test_two_corruptions_of_a_camera_are_different_ones_applied_in_turn(photos):
    shift = CameraShift(("contrast", "brightness"), (3, 3), each=2)
    look = shift.draw(rng())
    assert {family for family, _ in look} == {"contrast", "brightness"}
    (first, _), (second, _) = look
    expected = corrupt(corrupt(photos, first, 3, rng()), second, 3, rng())
    np.testing.assert_array_equal(shift.apply(photos, look, rng()), expected)


def test_no_corruption_or_severity_0_leaves_images_as_they_are(photos):
    for shift in (CameraShift(), CameraShift(FAMILIES, (0, 0))):
        np.testing.assert_array_equal(shift.apply(photos, shift.draw(rng()), rng()), photos)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"corruptions": ("rain",)}, "there is no rain; there are gaussian-noise"),
        ({"severities": (1, 6)}, "from 0 to 5, got 1 and 6"),
        ({"severities": (4, 2)}, "got 4 and 2"),
        ({"corruptions": ("jpeg",), "each": 2}, "1 to 1 different corruptions, got 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(DataError, match=said):
        CameraShift(**settings)
