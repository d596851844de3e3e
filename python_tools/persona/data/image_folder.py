"""Folders of images as devices: ROOT/DEVICE/LABEL/*.png or *.jpg, in colour or in grey.

A device is whatever differs from the next one: a phone, a person, a camera, a shop. Images are
decoded once, into memory.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from persona.data.base import (
    Arrays,
    DataError,
    Dataset,
    Device,
    Sources,
    Split,
    datasets,
    reading_of,
    split_window,
)
from persona.data.left_out import not_read, refuse_many, visible
from persona.data.stable_splits import check_shares, seed_of, split_by_name

Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]

MEMORY = 4 * 2**30
"""Most bytes that decoded images may take, and most that the devices of one call may take."""

HELD_OUT = 4096
"""Most images in the fixed set that chooses the backbone's checkpoint."""

LEAST_DEVICES = 2
"""In each split: a device is compared with another one."""

SUFFIXES = (".png", ".jpg", ".jpeg")
LAYOUT = "DEVICE/LABEL/*.png or *.jpg"


@dataclass(frozen=True)
class ImageScenario:
    """How images come, what a device sees, what it is asked, and who trains what.

    size: height and width in pixels. An image of another size is cropped to its centred square
    and resized. None takes the size of the first image, and then all must have it.
    channels: 1 for grey, 3 for colour. Pixels become numbers from 0 to 1.
    window, queries: images that a device sees, and others that it is asked about. A device with
    fewer images than both is left out.
    backbone_share, held_out_share, adapter_share, validation_share: of the devices; the rest are
    for testing. Held-out devices choose the backbone's checkpoint, validation devices the
    adapter's.
    split_seed: another seed splits the devices otherwise.
    """

    size: int | None = None
    channels: int = 3
    window: int = 20
    queries: int = 20
    backbone_share: float = 0.4
    held_out_share: float = 0.1
    adapter_share: float = 0.25
    validation_share: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Raises DataError where a setting makes no sense."""
        if self.channels not in (1, 3):
            raise DataError(f"channels must be 1 (grey) or 3 (colour), got {self.channels}")
        for name in ("size", "window", "queries"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} must be 1 or more, got {value}")
        check_shares(self.shares(), "devices")

    def shares(self) -> dict[str, float]:
        """Split -> its share, without the test devices, which are the rest."""
        return {
            "backbone": self.backbone_share,
            "held-out": self.held_out_share,
            "adapter": self.adapter_share,
            "validation": self.validation_share,
        }


@dataclass(frozen=True)
class Images:
    """Images in memory, in the order of their paths.

    pixels: uint8 [n, channels, size, size]. devices, labels: int64 [n], indices into the names.
    faults: what was wrong with each image left out, with its path.
    fingerprint: sha256 over the paths and bytes of all files, those left out included.
    """

    pixels: Pixels
    devices: Ints
    labels: Ints
    device_names: tuple[str, ...]
    label_names: tuple[str, ...]
    faults: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class FoundFiles:
    """Paths below a root, sorted: images at DEVICE/LABEL/FILE, images elsewhere, other files."""

    images: tuple[str, ...]
    elsewhere: tuple[str, ...]
    others: tuple[str, ...]

    def left_out(self, unreadable: int) -> Counter[str]:
        """Counts by reason of all that gave no image."""
        return Counter(
            {
                "unreadable images": unreadable,
                "images in other places": len(self.elsewhere),
                "files that are no PNG or JPEG": len(self.others),
            }
        )

    def faults(self) -> tuple[str, ...]:
        """What is wrong with each file that is no image at its place."""
        return (
            *not_read(self.elsewhere, f"images are at {LAYOUT}"),
            *(f"{name}: no PNG or JPEG" for name in self.others),
        )


def find_images(root: Path) -> FoundFiles:
    """The visible files below `root`.

    Raises DataError where there is no image at its place.
    """
    # Only the first of these patterns follows links to folders.
    found = visible(root, ("*/*/*", "**/*"))
    names = sorted(path.relative_to(root).as_posix() for path in found)
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    placed = tuple(name for name in images if name.count("/") == 2)
    if not placed:
        raise DataError(f"expected images at {LAYOUT} in {root}, found {_found_instead(root)}")
    return FoundFiles(
        placed,
        tuple(name for name in images if name.count("/") != 2),
        tuple(name for name in names if not name.lower().endswith(SUFFIXES)),
    )


def _found_instead(root: Path) -> str:
    """What is in a folder that holds no image in the right place."""
    if not any(path.is_dir() for path in root.iterdir()):
        return "no device folders in it; give each device a folder"
    elsewhere = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if elsewhere:
        place = elsewhere[0].relative_to(root).as_posix()
        return f"the first one at {place}; give each device a folder, and each label one in it"
    kinds = sorted({path.suffix for path in root.rglob("*") if path.is_file()})
    came = f"only files of type {', '.join(kinds)}" if kinds else "only empty folders"
    return f"{came}; give the folder that holds the device folders, with images as PNG or JPEG"


def decode_image(data: bytes, channels: int) -> Image.Image:
    """A PNG or JPEG, upright as its camera says, in grey or in colour with 8 bits a channel.

    Raises ValueError for what is not one, and whatever Pillow raises for one that is damaged.
    """
    try:
        opened = Image.open(BytesIO(data), formats=("PNG", "JPEG"))
    except UnidentifiedImageError:
        raise ValueError("not a PNG or JPEG file") from None
    with opened as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError("more than 8 bits a pixel; convert it to 8 bits")
        return ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")


def centred_square(image: Image.Image, size: int) -> Image.Image:
    """The centred square of an image, resized: what an app has to feed the model."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size))


def _check_memory(images: int, channels: int, size: int, each: int, remedy: str) -> None:
    """Raises DataError where so many images, with `each` bytes a value, take too much memory."""
    needed = images * channels * size**2 * each
    if needed > MEMORY:
        raise DataError(
            f"{images} images of {channels}×{size}×{size} need {needed / 2**30:.1f} GiB of "
            f"memory, more than the limit of {MEMORY / 2**30:g} GiB; {remedy}"
        )


def _own_size(image: Image.Image, name: str) -> int:
    """The size that all images should have where none is set: that of the first."""
    if image.width != image.height:
        raise DataError(
            f"{name} is {image.width}×{image.height} pixels, not square; set size, and every "
            "image is cropped to its centred square and resized"
        )
    return image.width


def read_images(
    root: Path, names: Sequence[str], scenario: ImageScenario, bad_images: float
) -> Images:
    """Decode the images `names` under `root`.

    bad_images: the share of images that may be unreadable; those are left out.
    Raises DataError where too many are unreadable, sizes differ and none is set, or there is too
    little memory.
    """
    channels, size = scenario.channels, scenario.size
    pixels = np.zeros((0, channels, 0, 0), np.uint8)
    kept: list[int] = []
    faults: list[str] = []
    digest = hashlib.sha256()
    for index, name in enumerate(names):
        try:
            data = (root / name).read_bytes()
            digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
            image = decode_image(data, channels)
        except Exception as error:  # Pillow's decoders raise many kinds for damaged files.
            faults.append(f"{name}: {error}")
            continue
        if not kept:
            size = size or _own_size(image, name)
            _check_memory(len(names), channels, size, 1, "set a smaller size, or give fewer images")
            pixels = np.zeros((len(names), channels, size, size), np.uint8)
        assert size is not None
        if scenario.size is None and image.size != (size, size):
            raise DataError(
                f"{name} is {image.width}×{image.height} pixels, the first image {names[kept[0]]} "
                f"{size}×{size}; set size = {size} to resize all, or make them equal"
            )
        square = np.asarray(centred_square(image, size)).reshape(size, size, channels)
        pixels[len(kept)] = square.transpose(2, 0, 1)
        kept.append(index)
    refuse_many(faults, len(names), str(root), "images", "bad_images", bad_images)
    if not kept:
        raise DataError(f"none of the {len(names)} images in {root} can be read; {faults[0]}")
    parts = np.array([name.split("/")[:2] for name in names])
    device_names, devices = np.unique(parts[:, 0], return_inverse=True)
    label_names, labels = np.unique(parts[:, 1], return_inverse=True)
    return Images(
        pixels[: len(kept)],
        devices[kept].astype(np.int64),
        labels[kept].astype(np.int64),
        tuple(device_names.tolist()),
        tuple(label_names.tolist()),
        tuple(faults),
        digest.hexdigest(),
    )


@datasets.register("image-folder")
class ImageFolder(Dataset):
    """Your own images in ROOT/DEVICE/LABEL/*.png or *.jpg: classification on each device.

    root: the folder that holds the device folders. bad_images: the share of unreadable images to
    put up with. Further settings are those of `ImageScenario`. A label may be missing on devices.
    `left_out` counts what was left out, by reason; `faults` names the unreadable images, those in
    other places and other files.
    Raises DataError where the folder or the settings do not do.
    """

    scenario_settings = ImageScenario

    def __init__(self, root: Path | None, *, bad_images: float = 0.001, **scenario: Any) -> None:
        if root is None or not root.is_dir():
            raise DataError(
                f"image-folder needs a root: a folder with images at {LAYOUT}, got {root}"
            )
        self.scenario = ImageScenario(**scenario)
        files = find_images(root)
        images = read_images(root, files.images, self.scenario, bad_images)
        self.label_names, self.faults = images.label_names, (*images.faults, *files.faults())
        if len(self.label_names) < 2:
            raise DataError(
                f"expected two labels or more in {root}, found only {self.label_names[0]}; is it "
                f"laid out as {LAYOUT}?"
            )
        self._images = images
        self._of_device = [
            np.flatnonzero(images.devices == device) for device in range(len(images.device_names))
        ]
        self.left_out: Counter[str] = files.left_out(len(images.faults))
        self._members = self._split(self._usable())
        self._pools = {
            split: np.concatenate([self._of_device[d] for d in self._members[split]])
            for split in ("backbone", "held-out")
        }

    def _usable(self) -> Ints:
        """Devices with enough images for a window and queries."""
        needed = self.scenario.window + self.scenario.queries
        enough = np.array([len(images) >= needed for images in self._of_device])
        self.left_out[f"devices with fewer than {needed} images"] = int((~enough).sum())
        return np.flatnonzero(enough)

    def _split(self, usable: Ints) -> dict[str, Ints]:
        names = self._images.device_names
        shares = self.scenario.shares()
        split = split_by_name(
            [names[d] for d in usable], list(shares.values()), self.scenario.split_seed
        )
        members = {name: usable[split == i] for i, name in enumerate((*shares, "test"))}
        short = [f"{n} has {len(m)}" for n, m in members.items() if len(m) < LEAST_DEVICES]
        if short:
            raise DataError(
                f"each split needs {LEAST_DEVICES} devices: {', '.join(short)}; {len(usable)} of "
                f"{len(names)} devices can be used ({self.summary()}); give more devices, lower "
                "window or queries, or change the shares or split_seed"
            )
        return members

    def split_names(self) -> dict[str, tuple[str, ...]]:
        """Split, "backbone" or "held-out" -> the names of its devices."""
        names = self._images.device_names
        return {split: tuple(names[d] for d in found) for split, found in self._members.items()}

    def backbone_settings(self) -> dict[str, Any]:
        _, channels, size, _ = self._images.pixels.shape
        return {"channels": channels, "size": size, "classes": len(self.label_names)}

    def fingerprint(self) -> str:
        return self._images.fingerprint

    def _examples(self, picked: Ints) -> tuple[Arrays, Ints]:
        """Images float32 [n, channels, size, size] from 0 to 1, and labels [n]."""
        pixels = self._images.pixels[picked].astype(np.float32)
        return (pixels / np.float32(255),), self._images.labels[picked]

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Arrays, Ints]:
        """Images of the backbone devices, all equally likely, and their labels."""
        return self._examples(rng.choice(self._pools["backbone"], size))

    def held_out(self) -> tuple[Arrays, Ints]:
        """Images of the held-out devices, at most `HELD_OUT`."""
        rng = np.random.default_rng(seed_of("held out", self.scenario.split_seed))
        return self._examples(rng.permutation(self._pools["held-out"])[:HELD_OUT])

    def backbone_sources(self) -> dict[str, Sources]:
        names = self.split_names()
        return {
            part: Sources(frozenset(names[split]), reading_of(self._pools[split]))
            for part, split in (("training", "backbone"), ("held-out", "held-out"))
        }

    def devices(self, split: Split, count: int, seed: int) -> list[Device]:
        """Devices of a split in an order fixed by the seed, as are their windows and queries.

        Both are drawn from all images of the device, in random order: the stored one would tell
        the labels. Adapter devices come again, with other draws, once all have come; their names
        carry the moment, as in "kitchen@0".
        """
        rng = np.random.default_rng(seed_of("order", split, seed))
        order = rng.permutation(self._members[split])
        names = [self._images.device_names[device] for device in order]
        if split == "adapter":
            turns = [divmod(turn, len(order)) for turn in range(count)]
            chosen = [(order[place], f"{names[place]}@{moment}") for moment, place in turns]
        else:
            chosen = list(zip(order, names, strict=True))[:count]
        self._check_room(len(chosen), split)
        return [self._device(device, name, seed) for device, name in chosen]

    def _check_room(self, count: int, split: Split) -> None:
        _, channels, size, _ = self._images.pixels.shape
        each = self.scenario.window + self.scenario.queries
        remedy = (
            f"these are {count} {split} devices of {each} images: ask for fewer devices, or set a "
            "smaller window, queries or size"
        )
        _check_memory(count * each, channels, size, 4, remedy)

    def _device(self, device: int, name: str, seed: int) -> Device:
        s = self.scenario
        rng = np.random.default_rng(seed_of("draw", seed, name))
        drawn = rng.permutation(self._of_device[device])[: s.window + s.queries]
        (images,), labels = self._examples(drawn)
        owner = self._images.device_names[device]
        return split_window(name, owner, images, labels, reading_of(drawn), s.window)
