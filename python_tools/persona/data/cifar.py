"""CIFAR-10 and CIFAR-100 in their binary versions, on simulated devices.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. A row is one label byte, or a coarse and a
fine one in CIFAR-100, then 3,072 bytes: the red, green and blue planes of 32×32 pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from persona.data.base import DataError, Split, datasets
from persona.data.image_shifts import FAMILIES
from persona.data.image_streams import ImageStreams, Owner, StreamScenario, check_images
from persona.data.left_out import UNUSABLE, refuse_many
from persona.data.stable_splits import check_shares, seed_of

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class CifarFiles:
    """folder: in the archive. labels: bytes before the pixels, of which the last is the class."""

    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    labels: int
    classes: int


CIFAR10 = CifarFiles(
    "cifar-10-batches-bin",
    tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test_batch.bin",
    "batches.meta.txt",
    1,
    10,
)
CIFAR100 = CifarFiles(
    "cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", 2, 100
)


def read_rows(path: Path, files: CifarFiles) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels uint8 [n, 3, 32, 32] and classes int64 [n] of one file.

    Raises DataError where the file is cut off.
    """
    width = files.labels + PIXELS
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if len(data) == 0 or len(data) % width:
        raise DataError(
            f"{path} has {len(data)} bytes, not whole rows of {width}; is it cut off, or not the "
            "binary version?"
        )
    rows = data.reshape(-1, width)
    labels = rows[:, files.labels - 1].astype(np.int64)
    return rows[:, files.labels :].reshape(-1, 3, 32, 32), labels


@dataclass(frozen=True)
class _Rows:
    """pixels, labels: training ones first. train: how many. faults: of the rows left out."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    train: int
    faults: tuple[str, ...]


def _read(root: Path | None, files: CifarFiles, bad_rows: float) -> _Rows:
    """All rows whose class there is. Raises DataError where too many are left out."""
    folders = [] if root is None else [root, root / files.folder]
    wanted = (*files.train, files.test)
    for folder in folders:
        if all((folder / name).is_file() for name in wanted):
            parts = [read_rows(folder / name, files) for name in wanted]
            pixels, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
            faults = [
                f"{name}: row {row + 1}: class should be 0 to {files.classes - 1}, is {found[row]}"
                for name, (_, found) in zip(wanted, parts, strict=True)
                for row in np.flatnonzero(found >= files.classes)
            ]
            refuse_many(faults, len(labels), str(folder), "rows", "bad_rows", bad_rows)
            good = labels < files.classes
            train = int(good[: len(labels) - len(parts[-1][1])].sum())
            return _Rows(pixels[good], labels[good], train, tuple(faults))
    raise DataError(
        f"expected {', '.join(wanted)} of the binary version in {root} or its "
        f"{files.folder}; download the archive, unpack it, and give that folder"
    )


class Cifar(ImageStreams):
    """Base of both: devices are streams with corruptions and habits.

    The official test file is for testing alone; the training file is cut into the other splits.
    backbone_share, held_out_share, validation_share: of its images; the rest are for the adapter.
    corruptions: all families where not given. bad_rows: the share of rows with a class that there
    is not to put up with; `faults` names them. Further settings are those of `StreamScenario`.
    """

    files: ClassVar[CifarFiles]

    def __init__(
        self,
        root: Path | None,
        *,
        backbone_share: float = 0.6,
        held_out_share: float = 0.04,
        validation_share: float = 0.06,
        split_seed: int = 0,
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        shares = {
            "backbone": backbone_share,
            "held-out": held_out_share,
            "validation": validation_share,
        }
        check_shares(shares, "images")
        settings = StreamScenario(**{"corruptions": FAMILIES} | scenario)
        read = _read(root, self.files, bad_rows)
        self.left_out, self.faults = {UNUSABLE: len(read.faults)}, read.faults
        order = np.random.default_rng(seed_of("split", split_seed)).permutation(read.train)
        cuts = (np.cumsum(list(shares.values())) * read.train).round().astype(int)
        pools = dict(zip((*shares, "adapter"), np.split(order, cuts), strict=True))
        pools["test"] = np.arange(read.train, len(read.labels))
        owners = {split: [Owner("", pool)] for split, pool in pools.items()}
        check_images(owners, settings)
        super().__init__(read.pixels, read.labels, self.files.classes, owners, settings)

    def device_name(self, owner: str, split: Split, seed: int, stream: int) -> str:  # noqa: ARG002
        return f"{split}-{seed}-{stream:05d}"


@datasets.register("cifar-10")
class Cifar10(Cifar):
    """CIFAR-10 (binary version): streams with camera corruptions and habits."""

    files = CIFAR10


@datasets.register("cifar-100")
class Cifar100(Cifar):
    """CIFAR-100 (binary version, 100 fine classes): streams with camera corruptions and habits."""

    files = CIFAR100
