"""The protocol's own checks: that no answer is in a window, and no test device in training.

Pure functions over devices and what a data set says of its backbone's training. People are told by
their names and samples by the readings that they were made of, so that neither another moment, nor
a placement, nor a corruption hides one; samples are compared bit for bit besides, which finds
copies in the files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from persona.data.base import NO_SPANS, Arrays, DataError, Device, Sources, Spans

Hashes = NDArray[np.uint64]
Bools = NDArray[np.bool_]


def owner(device: Device) -> str:
    """Whose device this is; one that nobody can have two of is its own."""
    return device.owner or device.name


def _has_items(device: Device) -> bool:
    """Whether the window is a history of item ids, and queries rank items."""
    return len(device.window) == 1 and device.window[0].ndim == 1


def _hashes(arrays: Arrays) -> Hashes:
    """One hash a sample [n]: of its bytes in all arrays [n, ...], with their types and shapes."""
    kinds = "".join(f"{array.dtype}{array.shape[1:]}" for array in arrays).encode()
    found = []
    for parts in zip(*(np.ascontiguousarray(array) for array in arrays), strict=True):
        digest = blake2b(kinds, digest_size=8)
        for part in parts:
            digest.update(part.tobytes())
        found.append(int.from_bytes(digest.digest(), "big"))
    return np.array(found, np.uint64)


def _spans(spans: Spans | None, count: int) -> Spans:
    """Spans of so many samples; empty ones, which meet no other, where none are known."""
    return np.zeros((count, 2), np.int64) if spans is None else spans


def answers(device: Device, window_of: Device) -> Bools:
    """Which samples of a window tell which queries of a device: [w, q].

    That is the right item of a query where the window is a history, else a sample that is a
    query's own or shares a reading with it.
    """
    (*_, candidates), window = device.queries, window_of.window
    if _has_items(device):
        right = candidates[np.arange(len(device.targets)), device.targets]
        return np.equal.outer(window[0], right)
    held = _spans(window_of.window_spans, len(window[0]))
    asked = _spans(device.query_spans, len(device.targets))
    shared = np.less.outer(held[:, 0], asked[:, 1]) & np.greater.outer(held[:, 1], asked[:, 0])
    return shared | np.equal.outer(_hashes(window), _hashes(device.queries))


def check_window(device: Device) -> None:
    """Raises DataError where a device's window holds what it is asked about."""
    leaking = np.argwhere(answers(device, device))
    if len(leaking):
        place, query = leaking[0].tolist()
        what = f"its right item {device.window[0][place]}" if _has_items(device) else "its sample"
        raise DataError(
            f"device {device.name}, query {query}: {what}, or a part of it, is in the device's own "
            f"window at place {place}; a window must end before the queries, and share nothing "
            "with them"
        )


@dataclass(frozen=True)
class Part:
    """One thing that a training used: a device, or all that the backbone was drawn from."""

    name: str
    owners: frozenset[str]
    samples: Hashes
    spans: Spans


@dataclass(frozen=True)
class Known:
    """Everything that a training used, for test devices to share nothing with."""

    parts: tuple[Part, ...]

    @classmethod
    def of(
        cls, devices: Mapping[str, Sequence[Device]], backbone: Mapping[str, Sources]
    ) -> "Known":
        """What was learnt from, by split. Raises DataError where a window holds an answer."""
        return cls(
            (
                *(
                    Part(f"the {split} data of the backbone", s.owners, _hashes(()), s.spans)
                    for split, s in backbone.items()
                ),
                *(part for split, found in devices.items() for part in _parts(split, found)),
            )
        )

    @cached_property
    def _owners(self) -> frozenset[str]:
        return frozenset().union(*(part.owners for part in self.parts))

    @cached_property
    def _samples(self) -> Hashes:
        return np.unique(np.concatenate([part.samples for part in self.parts]))

    @cached_property
    def _spans(self) -> Spans:
        """Sorted by where they begin; each ends where it or one before it reaches farthest."""
        spans = np.concatenate([NO_SPANS, *(part.spans for part in self.parts)])
        spans = spans[np.argsort(spans[:, 0], kind="stable")]
        return np.stack([spans[:, 0], np.maximum.accumulate(spans[:, 1])], axis=1)

    def check_unseen(self, devices: Sequence[Device]) -> None:
        """Raises DataError, naming the device and the position, where a window holds an answer, or
        a device shares its owner or a sample with anything known.
        """
        for position, device in enumerate(devices):
            check_window(device)
            self._check_owner(device, position)
            self._check_samples(device, "window sample", device.window, device.window_spans)
            self._check_samples(device, "query", device.queries, device.query_spans)

    def _check_owner(self, device: Device, position: int) -> None:
        if owner(device) in self._owners:
            part = next(p for p in self.parts if owner(device) in p.owners)
            raise DataError(
                f"test device {position}, {device.name}, is of {owner(device)}, who is also behind "
                f"{part.name}; test devices must be unseen"
            )

    def _check_samples(
        self, device: Device, things: str, arrays: Arrays, spans: Spans | None
    ) -> None:
        """Histories of items are passed over: everybody may meet the same items."""
        if _has_items(device):
            return
        hashes, spans = _hashes(arrays), _spans(spans, len(arrays[0]))
        begun = np.searchsorted(self._spans[:, 0], spans[:, 1])
        reach = np.concatenate([[0], self._spans[:, 1]])[begun]
        seen = np.isin(hashes, self._samples) | (reach > spans[:, 0])
        if seen.any():
            place = int(seen.argmax())
            begin, end = spans[place]
            part = next(
                p
                for p in self.parts
                if hashes[place] in p.samples
                or ((p.spans[:, 0] < end) & (p.spans[:, 1] > begin)).any()
            )
            raise DataError(
                f"test device {device.name}, {things} {place}: the same sample, or a part of it, "
                f"is also in {part.name}; splits must share no sample"
            )


def _parts(split: str, devices: Sequence[Device]) -> Iterator[Part]:
    for device in devices:
        check_window(device)
        yield Part(
            f"the {split} device {device.name}",
            frozenset({owner(device)}),
            _hashes(())
            if _has_items(device)
            else np.concatenate([_hashes(device.window), _hashes(device.queries)]),
            np.concatenate(
                [s for s in (NO_SPANS, device.window_spans, device.query_spans) if s is not None]
            ),
        )
