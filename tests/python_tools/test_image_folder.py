"""Folders of images become devices that leak nothing, and bad files are named."""

import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from persona.data import DataError, Device, datasets, image_folder
from persona.data.image_folder import ImageFolder, ImageScenario
from persona.training.config import DataConfig, RunConfig
from persona.training.pipeline import open_dataset

SPLITS = ("adapter", "validation", "test")
LABELS = ("cup", "fork", "spoon")
PER_LABEL = 5


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def coded(device: int, label: int, index: int) -> np.ndarray:
    """A grey image of 4×4 that says where it lies: device, label and index as pixels."""
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0] = (device, label, index, 200)
    return pixels


def write_devices(root: Path, devices: int, per_label: int = PER_LABEL) -> Path:
    for device in range(devices):
        for label, name in enumerate(LABELS):
            for index in range(per_label):
                place = root / f"phone-{device:03d}" / name / f"{index}.png"
                save(place, coded(device, label, index))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_devices(tmp_path_factory.mktemp("photos"), 60)


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(root, tmp_path / "copy")
    return tmp_path / "copy"


def small(root: Path, **settings: object) -> ImageFolder:
    return ImageFolder(root, **{"channels": 1, "window": 6, "queries": 5} | settings)


@pytest.fixture(scope="module")
def data(root: Path) -> ImageFolder:
    return small(root)


def codes(images: np.ndarray) -> list[tuple[int, int, int]]:
    """Where images [n, 1, 4, 4] lie: (device, label, index) of each."""
    values = np.rint(images[:, 0, 0, :3] * 255).astype(int)
    return [tuple(row) for row in values.tolist()]


def place_of(name: str) -> int:
    return int(name.partition("@")[0].removeprefix("phone-"))


def same(one: Device, other: Device) -> bool:
    arrays = [(*d.window, *d.queries, d.targets) for d in (one, other)]
    return one.name == other.name and all(map(np.array_equal, *arrays))


# What a device is


@pytest.mark.parametrize("split", SPLITS)
def test_window_and_queries_are_different_images_of_the_device_with_their_own_labels(data, split):
    for device in data.devices(split, 100, seed=0):
        window, queries = codes(device.window[0]), codes(device.queries[0])
        assert len({*window, *queries}) == 11
        assert {d for d, _, _ in (*window, *queries)} == {place_of(device.name)}
        assert [label for _, label, _ in queries] == device.targets.tolist()
        assert [label for _, label, _ in window] == device.window_targets.tolist()


@pytest.mark.parametrize("split", SPLITS)
def test_all_devices_of_a_call_have_the_asked_shapes(data, split):
    for device in data.devices(split, 50, seed=0):
        assert device.window[0].shape == (6, 1, 4, 4)
        assert device.queries[0].shape == (5, 1, 4, 4)
        assert device.targets.shape == (5,)
        assert device.window[0].dtype == device.queries[0].dtype == np.float32
        assert device.targets.dtype == np.int64


def test_the_stored_order_does_not_tell_the_labels(data):
    targets = np.array([d.targets for d in data.devices("adapter", 500, seed=0)])
    frequencies = np.stack([np.bincount(column, minlength=3) / 500 for column in targets.T])
    # The standard deviation of a frequency is about 0.02.
    assert np.abs(frequencies - 1 / 3).max() < 0.1


def test_pixels_are_those_of_the_files_from_0_to_1(root, data):
    images, labels = data.batch(np.random.default_rng(0), 200)
    for image, label in zip(images[0], labels, strict=True):
        device, coded_label, index = codes(image[None])[0]
        assert coded_label == label
        file = root / f"phone-{device:03d}" / LABELS[label] / f"{index}.png"
        assert np.allclose(image[0], np.asarray(Image.open(file)) / 255)


def test_the_backbone_is_told_what_the_files_say(data):
    assert data.backbone_settings() == {"channels": 1, "size": 4, "classes": 3}
    assert data.label_names == ("cup", "fork", "spoon")


def test_a_label_may_be_missing_on_devices(copied):
    for device in range(0, 60, 2):
        shutil.rmtree(copied / f"phone-{device:03d}" / "fork")
    data = small(copied, window=5)
    assert data.label_names == LABELS
    for device in data.devices("test", 100, seed=0):
        if place_of(device.name) % 2 == 0:
            assert 1 not in device.targets


# Splits and seeds


def test_no_device_is_in_two_splits_and_every_device_is_in_one(data):
    names = data.split_names()
    assert all(set(names[a]).isdisjoint(names[b]) for a, b in combinations(names, 2))
    assert sum(map(len, names.values())) == 60
    for split in SPLITS:
        devices = data.devices(split, 1000, seed=0)
        assert {d.name.partition("@")[0] for d in devices} == set(names[split])


def test_the_backbone_sees_its_own_devices_alone(data):
    names = data.split_names()

    def devices(images: np.ndarray) -> set[str]:
        return {f"phone-{device:03d}" for device, _, _ in codes(images)}

    assert devices(data.batch(np.random.default_rng(0), 3000)[0][0]) == set(names["backbone"])
    assert devices(data.held_out()[0][0]) == set(names["held-out"])


def test_shares_are_kept_roughly_and_can_be_changed(tmp_path):
    root = write_devices(tmp_path, 250, per_label=1)
    shares = {"backbone_share": 0.2, "held_out_share": 0.1, "adapter_share": 0.5}
    data = small(root, window=1, queries=1, validation_share=0.1, **shares)
    counts = [len(names) / 250 for names in data.split_names().values()]
    # The largest standard deviation is 0.03.
    assert np.abs(np.array(counts) - [0.2, 0.1, 0.5, 0.1, 0.1]).max() < 0.1


def test_a_device_stays_in_its_split_when_more_come(tmp_path, data):
    more = small(write_devices(tmp_path, 80)).split_names()
    assert all(set(names) <= set(more[split]) for split, names in data.split_names().items())


def test_another_split_seed_splits_otherwise(root, data):
    assert small(root, split_seed=1).split_names() != data.split_names()


def test_the_same_seed_gives_the_same_devices_and_another_seed_others(root, data):
    for split in SPLITS:
        one = data.devices(split, 20, seed=3)
        again = small(root).devices(split, 20, seed=3)
        other = data.devices(split, 20, seed=4)
        assert all(map(same, one, again))
        assert not any(map(same, one, other))


def test_names_are_unique_and_fewer_devices_are_the_first_of_more(data):
    for split in SPLITS:
        every = data.devices(split, 100, seed=0)
        assert len({d.name for d in every}) == len(every)
        assert all(map(same, data.devices(split, 3, seed=0), every[:3]))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_devices_that_judge_come_once(data, split):
    assert len(data.devices(split, 1000, seed=0)) == len(data.split_names()[split])


def test_adapter_devices_come_at_other_moments_once_all_have_come(data):
    count = len(data.split_names()["adapter"])
    devices = data.devices("adapter", 3 * count + 1, seed=0)
    assert len(devices) == 3 * count + 1
    first, second = devices[:count], devices[count : 2 * count]
    assert [d.name for d in second] == [d.name.replace("@0", "@1") for d in first]
    assert devices[-1].name == first[0].name.replace("@0", "@3")
    drawn = [{*codes(d.window[0])} for d in devices[::count]]
    assert len({frozenset(images) for images in drawn}) == 4


def test_the_held_out_set_is_fixed_and_whole(data):
    (images,), labels = data.held_out()
    (again,), _ = data.held_out()
    assert np.array_equal(images, again)
    assert len({*codes(images)}) == len(labels) == 15 * len(data.split_names()["held-out"])


# Reading files


def test_colour_and_grey_are_read_as_asked(tmp_path):
    root = write_devices(tmp_path, 40)
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 0] = 255
    for label in LABELS:
        for index in range(PER_LABEL):
            for device in range(40):
                save(root / f"phone-{device:03d}" / label / f"{index}.png", colour)
    (images,), _ = small(root, channels=3).batch(np.random.default_rng(0), 5)
    assert images.shape == (5, 3, 4, 4)
    assert (images == np.array([1, 0, 0], np.float32)[:, None, None]).all()
    (images,), _ = small(root).batch(np.random.default_rng(0), 5)
    assert images.shape == (5, 1, 4, 4)
    # The luma of pure red in ITU-R 601.
    assert np.allclose(images, 0.299, atol=0.005)


def test_jpeg_is_read_whatever_the_case_of_its_suffix(copied):
    for suffix in (".jpg", ".jpeg", ".JPG"):
        save(copied / "phone-000" / "cup" / f"new{suffix}", np.full((4, 4), 77))
    assert sum(small(copied).left_out.values()) == 0


def test_a_photo_is_turned_upright_as_its_camera_says(copied):
    pixels = np.zeros((4, 4), np.uint8)
    pixels[:, :2] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # The camera was turned: rows are columns.
    for file in copied.rglob("*.png"):
        Image.fromarray(pixels).save(file, exif=turned)
    (images,), _ = small(copied).batch(np.random.default_rng(0), 1)
    assert np.array_equal(images[0, 0], np.rot90(pixels, -1) / 255)


def test_with_a_size_the_centred_square_is_resized(copied):
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = 200
    for file in copied.rglob("*.png"):
        save(file, pixels)
    data = small(copied, size=4)
    assert data.backbone_settings()["size"] == 4
    (images,), _ = data.batch(np.random.default_rng(0), 1)
    assert np.allclose(images, 200 / 255)


def test_without_a_size_an_image_of_another_one_is_named(copied):
    save(copied / "phone-007" / "fork" / "3.png", np.zeros((6, 5)))
    with pytest.raises(DataError) as caught:
        small(copied)
    message = str(caught.value)
    assert "phone-007/fork/3.png is 5×6 pixels" in message
    assert "first image phone-000/cup/0.png 4×4; set size = 4" in message
    assert small(copied, size=4).backbone_settings()["size"] == 4


def test_without_a_size_images_must_be_square(copied):
    save(copied / "phone-000" / "cup" / "0.png", np.zeros((6, 5)))
    with pytest.raises(DataError, match=r"phone-000/cup/0\.png is 5×6 pixels, not square; set"):
        small(copied)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def turned_to_text(path: Path) -> None:
    path.write_text("not an image")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def with_16_bits(path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(path)


@pytest.mark.parametrize("damage", [cut_short, turned_to_text, emptied, with_16_bits])
def test_a_few_unreadable_images_are_left_out_counted_and_named(copied, damage: Callable):
    damage(copied / "phone-000" / "cup" / "0.png")
    with pytest.raises(DataError) as caught:
        small(copied)
    message = str(caught.value)
    assert "1 of 900 images cannot be used" in message
    assert "bad_images = 0.001 allows; first phone-000/cup/0.png: " in message
    assert "raise bad_images" in message
    data = small(copied, bad_images=0.01)
    assert data.left_out["unreadable images"] == 1
    assert len(data.faults) == 1
    assert data.faults[0].startswith("phone-000/cup/0.png: ")
    assert "0x" not in data.faults[0]
    assert "1 unreadable images" in data.summary()


def test_nothing_readable_is_refused_whatever_is_put_up_with(copied):
    for file in copied.rglob("*.png"):
        turned_to_text(file)
    with pytest.raises(DataError, match="none of the 900 images"):
        small(copied, bad_images=1.0)


def test_devices_with_few_images_are_left_out_and_counted_but_their_labels_stay(copied):
    save(copied / "short" / "knife" / "0.png", coded(99, 3, 0))
    data = small(copied)
    assert data.left_out["devices with fewer than 11 images"] == 1
    assert "short" not in {name for names in data.split_names().values() for name in names}
    assert data.label_names == ("cup", "fork", "knife", "spoon")


def test_other_files_are_counted_and_hidden_ones_passed_over(copied, data):
    (copied / "phone-000" / "cup" / "notes.txt").write_text("")
    (copied / "phone-000" / "cup" / "._0.png").write_text("")
    (copied / ".cache" / "cup").mkdir(parents=True)
    (copied / ".cache" / "cup" / "0.png").write_text("")
    read = small(copied)
    assert read.left_out["files that are no PNG or JPEG"] == 1
    assert read.left_out["unreadable images"] == 0
    assert read.fingerprint() == data.fingerprint()


def test_the_fingerprint_changes_with_names_and_bytes_and_with_nothing_else(copied, data):
    assert small(copied, window=3).fingerprint() == data.fingerprint()
    first = copied / "phone-000" / "cup" / "0.png"
    original = first.read_bytes()
    save(first, coded(1, 1, 1))
    changed = small(copied).fingerprint()
    first.write_bytes(original)
    assert small(copied).fingerprint() == data.fingerprint()
    first.rename(first.with_name("9.png"))
    renamed = small(copied).fingerprint()
    assert len({data.fingerprint(), changed, renamed}) == 3


# What cannot be used


@pytest.mark.parametrize("root", [None, Path("nowhere")])
def test_a_root_is_needed(root):
    with pytest.raises(DataError, match=r"needs a root: a folder with images at DEVICE/LABEL"):
        ImageFolder(root)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no device folders"):
        small(tmp_path)


def test_images_at_another_depth_are_refused_with_the_first_of_them(root, tmp_path):
    with pytest.raises(DataError, match=r"found the first one at cup/0\.png; give each device"):
        small(root / "phone-000")
    above = tmp_path / "above"
    shutil.copytree(root / "phone-000", above / "phones" / "phone-000")
    with pytest.raises(DataError, match=r"the first one at phones/phone-000/cup/0\.png"):
        small(above)


def test_files_of_another_type_are_named(tmp_path):
    place = tmp_path / "phone" / "cup"
    place.mkdir(parents=True)
    with pytest.raises(DataError, match="only empty folders"):
        small(tmp_path)
    (place / "0.webp").write_bytes(b"")
    with pytest.raises(DataError, match=r"only files of type \.webp; .* PNG or JPEG"):
        small(tmp_path)


def test_one_label_is_refused(copied):
    for device in copied.iterdir():
        shutil.rmtree(device / "fork")
        shutil.rmtree(device / "spoon")
    with pytest.raises(DataError, match=r"two labels or more in .*, found only cup"):
        small(copied, window=2, queries=2)


def test_too_few_devices_for_a_split_are_refused_with_what_was_left_out(tmp_path):
    root = write_devices(tmp_path, 6)
    save(root / "short" / "cup" / "0.png", coded(99, 0, 0))
    with pytest.raises(DataError) as caught:
        small(root)
    message = str(caught.value)
    assert "each split needs 2 devices: " in message
    assert "6 of 7 devices can be used" in message
    assert "1 devices with fewer than 11 images" in message
    assert "give more devices, lower window or queries" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 4}, r"channels must be 1 \(grey\) or 3 \(colour\), got 4"),
        ({"size": 0}, "size must be 1 or more, got 0"),
        ({"window": 0}, "window must be 1 or more"),
        ({"queries": -1}, "queries must be 1 or more"),
        ({"adapter_share": 0.0}, "adapter and validation devices must be positive"),
        ({"backbone_share": 0.8}, "leave some for testing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        ImageScenario(**settings)


def test_a_setting_that_does_not_exist_is_named(root):
    config = RunConfig("r", DataConfig("image-folder", {"windw": 3}), None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="windw"):
        open_dataset(config, root)


def test_more_than_memory_holds_is_refused_before_it_is_read_or_made(root, data, monkeypatch):
    monkeypatch.setattr(image_folder, "MEMORY", 900 * 16 - 1)
    with pytest.raises(DataError, match=r"900 images of 1×4×4 need .* set a smaller size"):
        small(root)
    monkeypatch.setattr(image_folder, "MEMORY", 100 * 11 * 16 * 4)
    assert len(data.devices("adapter", 100, seed=0)) == 100
    with pytest.raises(DataError, match="these are 101 adapter devices of 11 images: ask for few"):
        data.devices("adapter", 101, seed=0)


def test_it_is_registered_and_needs_a_root():
    assert datasets["image-folder"] is ImageFolder
    assert ImageFolder.needs_root
