"""Windows and samples gone wrong: what a gate must withstand, and an adapter can be hardened with.

A stream takes devices that are in order and returns the same devices as they would be if their
window, or all that they see, were spoilt. Targets never change.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.data.base import Arrays, DataError, Device
from persona.data.leaks import answers
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
    """Half of each window comes from another device: two people share one phone.

    Of the other's samples those are passed over that the device is asked about.
    """

    def spoil(
        self,
        devices: Sequence[Device],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> list[Device]:
        return [_mixed(device, devices[i - 1]) for i, device in enumerate(devices)]


def _mixed(device: Device, other: Device) -> Device:
    half = len(other.window[0]) // 2
    theirs = np.flatnonzero(~answers(device, other).any(1))[:half]
    own = np.arange(len(device.window[0]))[len(device.window[0]) // 2 :]

    def both(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([b[theirs], a[own]])

    spans = None
    if device.window_spans is not None and other.window_spans is not None:
        spans = both(device.window_spans, other.window_spans)
    return replace(
        device,
        window=tuple(both(*columns) for columns in zip(device.window, other.window, strict=True)),
        window_targets=None,
        window_spans=spans,
    )


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
    return replace(device, **_kept(device, chosen))


def _kept(device: Device, places: NDArray[np.int64]) -> dict[str, Any]:
    """The fields of a device whose window holds what was at these places."""
    known, spans = device.window_targets, device.window_spans
    return {
        "window": tuple(w[places] for w in device.window),
        "window_targets": None if known is None else known[places],
        "window_spans": None if spans is None else spans[places],
    }


@streams.register("short")
class Short(Stream):
    """Only the newest three samples or items of each window are there."""

    def spoil(
        self,
        devices: Sequence[Device],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> list[Device]:
        return [replace(d, **_kept(d, np.arange(len(d.window[0]))[-SHORT:])) for d in devices]


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
