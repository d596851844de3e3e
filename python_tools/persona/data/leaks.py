"""The protocol's own checks: that no answer is in a window, and no test device in training.

Pure functions over devices; samples are compared by a hash of their bytes.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from persona.data.base import Arrays, DataError, Device

_MOMENT = re.compile(r"@\d+$")


def owner(name: str) -> str:
    """Whose device this is: an adapter device's name ends with its moment, as in "17@42"."""
    return _MOMENT.sub("", name)


def _has_items(device: Device) -> bool:
    """Whether the window is a history of item ids, and queries rank items."""
    return len(device.window) == 1 and device.window[0].ndim == 1


def _hashes(arrays: Arrays) -> Iterator[bytes]:
    """One hash a sample: of its bytes in all arrays [n, ...], with their types and shapes."""
    kinds = "".join(f"{array.dtype}{array.shape[1:]}" for array in arrays).encode()
    for parts in zip(*(np.ascontiguousarray(array) for array in arrays), strict=True):
        digest = blake2b(kinds, digest_size=16)
        for part in parts:
            digest.update(part.tobytes())
        yield digest.digest()


def check_window(device: Device) -> None:
    """Raises DataError where a device's window holds what it is asked about.

    That is the right item of a query where the window is a history, else a query's own sample, bit
    for bit.
    """
    if _has_items(device):
        right = device.queries[-1][np.arange(len(device.targets)), device.targets]
        seen = set(device.window[0].tolist())
        leaking = [(q, f"its right item {i}") for q, i in enumerate(right.tolist()) if i in seen]
    else:
        held = set(_hashes(device.window))
        leaking = [(q, "its sample") for q, h in enumerate(_hashes(device.queries)) if h in held]
    if leaking:
        query, what = leaking[0]
        raise DataError(
            f"device {device.name}, query {query}: {what} is in the device's own window; a window "
            "must end before the queries, and share no sample with them"
        )


def check_owners(test: Sequence[Device], others: Sequence[Device], split: str) -> None:
    """Raises DataError where a test device belongs to somebody among the devices of `split`."""
    known = {owner(device.name): device.name for device in others}
    for position, device in enumerate(test):
        if owner(device.name) in known:
            raise DataError(
                f"test device {position}, {device.name}, is of the same user as the {split} device "
                f"{known[owner(device.name)]}; test devices must be unseen"
            )


def check_samples(test: Sequence[Device], others: Sequence[Device], split: str) -> None:
    """Raises DataError where a sample of a test device is on a device of `split`, bit for bit.

    Histories of items are passed over: everybody may meet the same items.
    """
    known: dict[bytes, str] = {}
    for device in others:
        if not _has_items(device):
            for part in (device.window, device.queries):
                known.update(dict.fromkeys(_hashes(part), device.name))
    if not known:
        return
    for device in test:
        if _has_items(device):
            continue
        for things, arrays in (("window sample", device.window), ("query", device.queries)):
            for position, found in enumerate(_hashes(arrays)):
                if found in known:
                    raise DataError(
                        f"test device {device.name}, {things} {position}: the same sample is on "
                        f"the {split} device {known[found]}; splits must share no sample"
                    )


def check_devices(
    train: Sequence[Device], validation: Sequence[Device], test: Sequence[Device]
) -> None:
    """All checks, on the devices of a run.

    Raises DataError, naming the device and the position, where a window holds an answer, or a test
    device shares its user or a sample with a training or validation device.
    """
    for device in (*train, *validation, *test):
        check_window(device)
    for split, others in (("training", train), ("validation", validation)):
        check_owners(test, others, split)
        check_samples(test, others, split)
