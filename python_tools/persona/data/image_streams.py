"""Simulated image streams: a device draws habits and a camera, then images of one owner.

An owner is a writer or a domain; where nobody owns the images, one owner has a split's all.
Splits share no image, window and queries share none, and both come through the same camera.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from persona.data.base import (
    Arrays,
    DataError,
    Dataset,
    Device,
    Sources,
    Split,
    reading_of,
    split_window,
)
from persona.data.habits import BalancedPool, Habits, check_habits, class_mix, draw
from persona.data.image_shifts import STRONGEST, CameraShift
from persona.data.stable_splits import seed_of

Ints = NDArray[np.int64]

HELD_OUT = 4096
"""Images in the fixed set that chooses the backbone's checkpoint."""

CAMERA_GROUP = 8
"""Images of a training batch that come through one camera: as many devices as batches allow."""


@dataclass(frozen=True)
class StreamScenario:
    """What a device sees and is asked.

    window, queries: images that a device sees, and others that it is asked about.
    habits: concentration of the Dirichlet class mix; small means strong habits, 0 none: all
    classes equally frequent; of several, each device draws one. corruptions, severities, each:
    see `CameraShift`.
    streams: most devices of one owner in a call for validation or testing, 0 for any number;
    adapter devices may be as many as asked for.
    backbone_sees_adapter: trains the backbone on the adapter's images too. That is the static
    rival with all the data; an adapter trained on such a backbone learns from features that
    know its devices by heart.
    """

    window: int = 20
    queries: int = 20
    habits: Habits = 0.3
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, int] = (1, STRONGEST)
    each: int = 1
    streams: int = 0
    backbone_sees_adapter: bool = False

    def __post_init__(self) -> None:
        """Raises DataError where a setting makes no sense."""
        for name, least in (("window", 1), ("queries", 1), ("streams", 0)):
            if getattr(self, name) < least:
                raise DataError(f"{name} must be {least} or more, got {getattr(self, name)}")
        check_habits(self.habits)

    def camera(self) -> CameraShift:
        """What cameras are drawn from. Raises DataError where its settings make no sense."""
        low, high = self.severities
        return CameraShift(tuple(self.corruptions), (low, high), self.each)


@dataclass(frozen=True)
class Owner:
    """A name, which the names of its devices begin with, and its images."""

    name: str
    images: Ints


def check_images(owners: dict[str, list[Owner]], scenario: StreamScenario) -> None:
    """Raises DataError where an owner has too few images for a device, or a pool has none."""
    needed = scenario.window + scenario.queries
    short = [
        f"{split} has {len(owner.images)}{' of ' + owner.name if owner.name else ''}"
        for split, found in owners.items()
        for owner in found
        if len(owner.images) < (needed if split in get_args(Split) else 1)
    ]
    if short:
        raise DataError(
            f"a device needs {needed} images, and a backbone some: {', '.join(short)}; lower "
            "window or queries, or change the shares"
        )


class ImageStreams(Dataset):
    """Base of data sets with images in memory; a subclass reads them and calls `__init__`.

    pixels: uint8 [n, c, size, size]. labels: int64 [n]. classes: how many there are.
    owners: split, "backbone" or "held-out" -> who owns what of it; each list has images.
    """

    scenario_settings = StreamScenario

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: Ints,
        classes: int,
        owners: dict[str, list[Owner]],
        scenario: StreamScenario,
    ) -> None:
        self.scenario, self.shift = scenario, scenario.camera()
        self.pixels, self.labels, self.classes, self.owners = pixels, labels, classes, owners
        if "saturate" in self.shift.corruptions and pixels.shape[1] == 1:
            raise DataError("corruptions: saturate needs images in colour, these are grey")
        pools = {
            split: np.concatenate([owner.images for owner in found])
            for split, found in owners.items()
        }
        if scenario.backbone_sees_adapter:
            pools["backbone"] = np.concatenate([pools["backbone"], pools["adapter"]])
        self._pools = {s: BalancedPool(pools[s], labels) for s in ("backbone", "held-out")}
        taught = ["backbone", *(["adapter"] if scenario.backbone_sees_adapter else [])]
        self._sources = {
            name: Sources(
                frozenset(o.name for s in splits for o in owners[s] if o.name),
                reading_of(pools[splits[0]]),
            )
            for name, splits in {"training": taught, "held-out": ["held-out"]}.items()
        }
        self._fingerprint = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()

    def backbone_settings(self) -> dict[str, Any]:
        _, channels, size, _ = self.pixels.shape
        return {"channels": channels, "size": size, "classes": self.classes}

    def fingerprint(self) -> str:
        return self._fingerprint

    def _examples(self, picked: Ints) -> NDArray[np.float32]:
        return self.pixels[picked].astype(np.float32) / np.float32(255)

    def _pooled(self, rng: np.random.Generator, size: int, pool: str) -> tuple[Arrays, Ints]:
        """Images pooled over devices: classes equally frequent, a camera for every few images."""
        picked = self._pools[pool].pick(rng, size)
        images = self._examples(picked)
        if self.shift.corruptions:
            for start in range(0, size, CAMERA_GROUP):
                group = slice(start, start + CAMERA_GROUP)
                images[group] = self.shift.apply(images[group], self.shift.draw(rng), rng)
        return (images,), self.labels[picked]

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Arrays, Ints]:
        return self._pooled(rng, size, "backbone")

    def held_out(self) -> tuple[Arrays, Ints]:
        return self._pooled(np.random.default_rng(21), HELD_OUT, "held-out")

    def backbone_sources(self) -> dict[str, Sources]:
        return self._sources

    def devices(self, split: Split, count: int, seed: int) -> list[Device]:
        """Devices of a split: all owners once in an order fixed by the seed, then again.

        Each stream of an owner draws its own habits, camera and images.
        """
        rng = np.random.default_rng(seed_of("order", split, seed))
        order = rng.permutation(len(self.owners[split]))
        if self.scenario.streams and split != "adapter":
            count = min(count, len(order) * self.scenario.streams)
        turns = (divmod(turn, len(order)) for turn in range(count))
        return [
            self._device(self.owners[split][order[place]], split, seed, stream)
            for stream, place in turns
        ]

    def device_name(self, owner: str, split: Split, seed: int, stream: int) -> str:
        """Begins with a real owner and "@", so that devices of one person can be told."""
        return f"{owner}@{split}-{seed}-{stream:03d}"

    def _device(self, owner: Owner, split: Split, seed: int, stream: int) -> Device:
        name = self.device_name(owner.name, split, seed, stream)
        rng = np.random.default_rng(seed_of("draw", seed, name))
        s = self.scenario
        mix = class_mix(rng, self.classes, s.habits)
        drawn = owner.images[draw(rng, self.labels[owner.images], mix, s.window + s.queries)]
        images = self.shift.apply(self._examples(drawn), self.shift.draw(rng), rng)
        spans = reading_of(drawn)
        return split_window(name, owner.name, images, self.labels[drawn], spans, s.window)
