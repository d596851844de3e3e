"""Windows and samples gone wrong: what a gate must withstand, and an adapter can be hardened with.

A stream takes devices that are in order and returns the same devices as they would be if their
window, or all that they see, were spoilt. Targets never change.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from persona.data.base import Arrays, DataError, Device
from persona.registry import Registry

SHORT = 3
"""Samples or items in a short window."""


class Stream(ABC):
    """Base class: one way in which devices go wrong."""

    @abstractmethod
    def spoil(self, devices: Sequence[Device], rng: np.random.Generator) -> list[Device]:
        """The same devices, spoilt. Raises DataError where the data have no such stream."""


streams: Registry[type[Stream]] = Registry("stream", "persona.data")


@streams.register("mixed")
class Mixed(Stream):
    """Half of each window comes from another device: two people share one phone."""

    def spoil(
        self,
        devices: Sequence[Device],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> list[Device]:
        others = [devices[i - 1] for i in range(len(devices))]
        return [
            replace(
                device,
                window=tuple(
                    np.concatenate([theirs[: len(theirs) // 2], own[len(own) // 2 :]])
                    for own, theirs in zip(device.window, other.window, strict=True)
                ),
                window_targets=None,
            )
            for device, other in zip(devices, others, strict=True)
        ]


@streams.register("one-class")
class OneClass(Stream):
    """Each window holds its most frequent class alone, drawn again to its full length."""

    def spoil(self, devices: Sequence[Device], rng: np.random.Generator) -> list[Device]:
        return [_only(device, rng) for device in devices]


def _only(device: Device, rng: np.random.Generator) -> Device:
    targets = device.window_targets
    if targets is None:
        raise DataError("stream 'one-class' needs data that know the classes of the window")
    places = np.flatnonzero(targets == np.bincount(targets).argmax())
    chosen = rng.choice(places, len(targets))
    return replace(
        device, window=tuple(w[chosen] for w in device.window), window_targets=targets[chosen]
    )


@streams.register("short")
class Short(Stream):
    """Only the newest three samples or items of each window are there."""

    def spoil(
        self,
        devices: Sequence[Device],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> list[Device]:
        return [
            replace(
                d,
                window=tuple(w[-SHORT:] for w in d.window),
                window_targets=None if d.window_targets is None else d.window_targets[-SHORT:],
            )
            for d in devices
        ]


class _EverySample(Stream):
    """Window and queries alike go through a change of samples that their device keeps."""

    def spoil(self, devices: Sequence[Device], rng: np.random.Generator) -> list[Device]:
        spoilt = []
        for device in devices:
            seed = int(rng.integers(2**63))
            window, queries = (
                self._arrays(arrays, np.random.default_rng(seed))
                for arrays in (device.window, device.queries)
            )
            spoilt.append(replace(device, window=window, queries=queries))
        return spoilt

    def _arrays(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        if len(arrays) != 1 or arrays[0].ndim < 3:
            raise DataError("this stream needs devices whose samples are images or signals")
        return (self.change(arrays[0], rng),)

    @abstractmethod
    def change(self, samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Samples [n, channels, ...] as this device sees them."""


@streams.register("occlusion")
class Occlusion(_EverySample):
    """A square of half the side, or half of the time, is covered at one place."""

    def change(self, samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        covered = samples.copy()
        places = [rng.integers(0, side - side // 2 + 1) for side in samples.shape[2:]]
        region = tuple(
            slice(p, p + side // 2) for p, side in zip(places, samples.shape[2:], strict=True)
        )
        covered[(slice(None), slice(None), *region)] = 0
        return covered


@streams.register("stripes")
class Stripes(_EverySample):
    """Every fourth row, or moment, is lost."""

    def change(self, samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        striped = samples.copy()
        striped[:, :, int(rng.integers(4)) :: 4] = 0
        return striped


@streams.register("other-hardware")
class OtherHardware(_EverySample):
    """Each channel has another gain and offset, as another camera or sensor would."""

    def change(self, samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        channels = (1, samples.shape[1], *[1] * (samples.ndim - 2))
        gain = rng.uniform(0.6, 1.4, channels).astype(np.float32)
        offset = rng.uniform(-0.1, 0.1, channels).astype(np.float32)
        changed: NDArray[np.float32] = samples * gain + offset
        return changed
