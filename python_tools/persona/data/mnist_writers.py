"""MNIST by writer: a device is a stream of digits that one person wrote.

Images in IDX (MNIST's or QMNIST's files, gzipped or not); who wrote them is in QMNIST's extended
labels (Yadav and Bottou, 2019, "Cold Case: The Lost MNIST Digits"), whose columns are the class,
the NIST series, the writer, the digit's place among the writer's, and four more.
"""

import gzip
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from persona.data.base import DataError, datasets
from persona.data.image_streams import ImageStreams, Owner, StreamScenario
from persona.data.left_out import UNUSABLE, refuse_many
from persona.data.stable_splits import check_shares, split_by_name

Ints = NDArray[np.int64]
Population = Literal["shifted", "mixed"]

STUDENTS = 4
"""NIST series hsf_4: high-school students. The others are NIST's employees."""

LEAST_WRITERS = 2
"""In each split: a device is compared with another one."""

_DTYPES = {0x08: ">u1", 0x0C: ">i4"}
_COLUMNS = 8
_FILES = (("train", "train"), ("t10k", "test"))


def read_idx(path: Path) -> NDArray[Any]:
    """An array of bytes or 32-bit integers in IDX, gzipped where the name ends in .gz.

    Raises DataError where the file is not IDX, or longer or shorter than it says.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not whole gzip: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES or not data[3]:
        raise DataError(
            f"{path} is not IDX: expected magic bytes 0, 0, 8 or 12, dimensions; got "
            f"{', '.join(map(str, data[:4]))}"
        )
    start, kind = 4 + 4 * data[3], np.dtype(_DTYPES[data[2]])
    if len(data) < start:
        raise DataError(f"{path} ends inside its header")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    needed = start + int(np.prod(shape, dtype=object)) * kind.itemsize
    if len(data) != needed:
        raise DataError(
            f"{path} says {'×'.join(map(str, shape))} values, which is {needed} bytes, and has "
            f"{len(data)}; is it cut off?"
        )
    return np.frombuffer(data, kind, offset=start).reshape(shape)


def _find(root: Path, *stems: str) -> Path:
    """The first of these files that is there, as it is or gzipped."""
    for stem in stems:
        for name in (stem, f"{stem}.gz"):
            if (root / name).is_file():
                return root / name
    raise DataError(f"expected {' or '.join(stems)} in {root}, as it is or with .gz")


def _read_part(
    root: Path, mnist: str, qmnist: str
) -> tuple[NDArray[np.uint8], Ints, tuple[str, ...]]:
    """Images [n, 28, 28] of the training or test files, and their extended labels [n, 8].

    Rows whose class is no digit, or not MNIST's, are left out, and named.
    """
    stem = "images-idx3-ubyte"
    images_at = _find(root, f"{mnist}-{stem}", f"qmnist-{qmnist}-{stem}")
    labels_at = _find(root, f"qmnist-{qmnist}-labels-idx2-int")
    images, labels = read_idx(images_at), read_idx(labels_at)
    if images.ndim != 3 or images.dtype.itemsize != 1 or images.shape[1] != images.shape[2]:
        raise DataError(f"{images_at}: expected square images of bytes, got {images.shape}")
    if labels.ndim != 2 or labels.shape[1] != _COLUMNS:
        raise DataError(f"{labels_at}: expected rows of {_COLUMNS} integers, got {labels.shape}")
    if len(images) > len(labels):
        raise DataError(f"{images_at} has {len(images)} images, {labels_at} {len(labels)} rows")
    rows = labels[: len(images)].astype(np.int64)  # QMNIST's test labels go on where MNIST ends.
    said = _wrong_classes(root / f"{mnist}-labels-idx1-ubyte", labels_at, rows[:, 0])
    good = np.ones(len(rows), bool)
    good[list(said)] = False
    faults = tuple(f"{labels_at.name}: row {row + 1}: {what}" for row, what in said.items())
    return images.astype(np.uint8)[good], rows[good], faults


def _wrong_classes(plain_at: Path, labels_at: Path, classes: Ints) -> dict[int, str]:
    """Row -> what is wrong with its class: no digit, or another one in MNIST's labels, if there."""
    said = {
        int(row): f"class should be 0 to 9, is {classes[row]}"
        for row in np.flatnonzero((classes < 0) | (classes > 9))
    }
    for path in (plain_at, plain_at.with_name(f"{plain_at.name}.gz")):
        if not path.is_file():
            continue
        plain = read_idx(path)
        if plain.shape != classes.shape:
            raise DataError(f"{path} has {plain.shape} labels, {labels_at} {classes.shape}")
        for row in np.flatnonzero(plain != classes):
            said.setdefault(int(row), f"class is {classes[row]}, in {path.name} {plain[row]}")
    return said


@datasets.register("mnist-writers")
class MnistWriters(ImageStreams):
    """MNIST with QMNIST's writers: unseen people on each device, by default of another population.

    root: the folder with the four files. population: "shifted" trains on NIST's employees and
    tests on high-school students; "mixed" splits all writers alike.
    backbone_share, held_out_share, adapter_share, validation_share: of the writers; with "mixed"
    the rest are for testing, with "shifted" the rest join the adapter's. split_seed: another one
    splits the writers otherwise. bad_rows: the share of rows to put up with whose class is no
    digit, or not that of MNIST's own labels where these are there; `faults` names them. Further
    settings are those of `StreamScenario`.
    A device's images come in random order: the stored one tells the labels. A writer has about
    eleven of each digit, so that strong habits use them up and come out weaker than drawn.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        population: Population = "shifted",
        backbone_share: float = 0.4,
        held_out_share: float = 0.08,
        adapter_share: float = 0.3,
        validation_share: float = 0.1,
        split_seed: int = 0,
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        if population not in get_args(Population):
            raise DataError(
                f"population must be {' or '.join(get_args(Population))}, got {population!r}"
            )
        if root is None or not root.is_dir():
            raise DataError(f"mnist-writers needs a root: the folder of the files, got {root}")
        settings = StreamScenario(**{"streams": 4} | scenario)
        shares = {
            "backbone": backbone_share,
            "held-out": held_out_share,
            "validation": validation_share,
            "adapter": adapter_share,
        }
        check_shares(shares, "writers")
        parts = [_read_part(root, *names) for names in _FILES]
        images, rows = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        self.faults = tuple(fault for part in parts for fault in part[2])
        total = len(rows) + len(self.faults)
        refuse_many(self.faults, total, str(root), "rows", "bad_rows", bad_rows)
        self.left_out: Counter[str] = Counter({UNUSABLE: len(self.faults)})
        owners = self._owners(rows, population, shares, split_seed, settings)
        super().__init__(images[:, None], rows[:, 0], 10, owners, settings)

    def _owners(
        self,
        rows: Ints,
        population: Population,
        shares: dict[str, float],
        split_seed: int,
        settings: StreamScenario,
    ) -> dict[str, list[Owner]]:
        """Split -> its writers; those with too few digits for a device may train the backbone."""
        numbers, writer_of = np.unique(rows[:, 2], return_inverse=True)
        order = np.argsort(writer_of, kind="stable")
        images = np.split(order, np.cumsum(np.bincount(writer_of))[:-1])
        writers = [Owner(f"w{n:04d}", i) for n, i in zip(numbers, images, strict=True)]
        student = np.array([rows[w.images[0], 1] == STUDENTS for w in writers])
        split = split_by_name([w.name for w in writers], list(shares.values()), split_seed)
        names = (*shares, "test")
        if population == "shifted":
            split = np.where(student, len(shares), np.minimum(split, len(shares) - 1))
        needed = settings.window + settings.queries
        owners: dict[str, list[Owner]] = {name: [] for name in names}
        for writer, where in zip(writers, split, strict=True):
            name = names[where]
            if name in ("backbone", "held-out") or len(writer.images) >= needed:
                owners[name].append(writer)
            else:
                self.left_out[f"{name} writers with fewer than {needed} digits"] += 1
        short = [f"{n} has {len(o)}" for n, o in owners.items() if len(o) < LEAST_WRITERS]
        if short:
            raise DataError(
                f"each split needs {LEAST_WRITERS} writers: {', '.join(short)} "
                f"({self.summary()}); lower window or queries, or change the shares or split_seed"
            )
        return owners
