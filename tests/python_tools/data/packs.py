"""The real data beside a checkout, written in the official file formats that the readers take.

`shared/data` is no part of the project; where it is absent, tests that need it are skipped.
Run as a program, it leaves the folders for experiments: `python packs.py cifar10 FOLDER`.
"""

import csv
import gzip
import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PACKS = Path(__file__).parents[4] / "shared/data"

MOTION_COLUMNS = [
    f"{sensor}.{axis}"
    for sensor, axes in (
        ("attitude", ("roll", "pitch", "yaw")),
        ("gravity", "xyz"),
        ("rotationRate", "xyz"),
        ("userAcceleration", "xyz"),
    )
    for axis in axes
]


Event = tuple[str, str, int]


def _log(name: str) -> list[dict[str, str]]:
    """The rows of a packed log. Skips the test where the pack is absent."""
    path = PACKS / name
    if not path.is_file():
        pytest.skip(f"the real data are not there: {path}")
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def movielens_100k(out: Path) -> list[Event]:
    """`u.data`, with tabs between and in the order of the pack."""
    names = ("user_id", "item_id", "rating", "timestamp")
    rows = [[row[name] for name in names] for row in _log("movielens/ml100k_inter.csv.gz")]
    (out / "u.data").write_text("".join("\t".join(row) + "\n" for row in rows))
    return [(user, item, int(time)) for user, item, _, time in rows]


def movielens_1m(out: Path) -> list[Event]:
    """`ratings.dat`, with positions for times: the pack has no clock for users from 3000 on."""
    log = _log("movielens/ml1m_sequences.csv.gz")
    rows = [(row["user_id"], row["item_id"], int(row["pos"])) for row in log]
    (out / "ratings.dat").write_text("".join(f"{u}::{i}::3::{t}\n" for u, i, t in rows))
    return rows


def amazon_beauty(out: Path) -> list[Event]:
    """`ratings_Beauty.csv` of 2014; the pack numbers people and products, and has no ratings."""
    rows = [
        (f"A{int(row['user_id']):013d}", f"B{int(row['item_id']):09d}", int(row["timestamp"]))
        for row in _log("amazon/beauty_interactions.csv.gz")
    ]
    (out / "ratings_Beauty.csv").write_text("".join(f"{u},{i},5.0,{t}\n" for u, i, t in rows))
    return rows


def cifar10(out: Path, each: int | None = None) -> Path:
    """`cifar-10-batches-bin` in the binary version: rows of a label and 3,072 pixels, planes R G B.

    each: rows a file; all where None. The pack holds JPEG copies in an order of its own.
    """
    pack = dict(np.load(PACKS / "cifar10/cifar10_jpeg.npz"))
    blob, offset = pack["blob"].tobytes(), pack["offset"]
    folder = out / "cifar-10-batches-bin"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batches.meta.txt").write_text("\n".join(pack["classes"].tolist()) + "\n\n")
    train = np.random.default_rng(0).permutation(np.flatnonzero(pack["split"] == 0))
    test = np.random.default_rng(1).permutation(np.flatnonzero(pack["split"] == 1))
    files = {f"data_batch_{i + 1}.bin": part for i, part in enumerate(np.split(train, 5))}
    for name, rows in (files | {"test_batch.bin": test}).items():
        data = bytearray()
        for row in rows[:each]:
            image = Image.open(io.BytesIO(blob[offset[row] : offset[row + 1]])).convert("RGB")
            data.append(int(pack["y"][row]))
            data += np.asarray(image).transpose(2, 0, 1).tobytes()
        (folder / name).write_bytes(data)
    return out


def idx(array: np.ndarray) -> bytes:
    """An array in the IDX format of MNIST: uint8, or int32 big-endian."""
    kind = {"uint8": 0x08, "int32": 0x0C}[array.dtype.name]
    head = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def mnist(out: Path) -> Path:
    """MNIST's images and labels, and QMNIST's extended labels, in IDX.

    The pack has no global digit index, so that column 5 of the extended labels is 0 here.
    """
    pack = dict(np.load(PACKS / "mnist_writers/mnist_writers.npz"))
    out.mkdir(parents=True, exist_ok=True)
    for split, (mnist_name, qmnist_name) in enumerate([("train", "train"), ("t10k", "test")]):
        rows = np.flatnonzero(pack["split"] == split)
        label = pack["y"][rows].astype(np.int32)
        columns = [label, *(pack[k][rows] for k in ("hsf", "writer", "digit_index")), label + 30]
        none = np.zeros_like(label)
        extended = np.stack([*columns, none, none, none], axis=1).astype(np.int32)
        (out / f"{mnist_name}-images-idx3-ubyte").write_bytes(idx(pack["x"][rows]))
        (out / f"{mnist_name}-labels-idx1-ubyte").write_bytes(idx(pack["y"][rows]))
        (out / f"qmnist-{qmnist_name}-labels-idx2-int").write_bytes(idx(extended))
    return out


def motion_sense(out: Path, people: int = 24, rows: int | None = None) -> Path:
    """`A_DeviceMotion_data/ACTIVITY_TRIAL/sub_PERSON.csv`, of all rows where None.

    The pack has only the sum of gravity and userAcceleration, and no attitude: the sum stands in
    userAcceleration here, gravity and attitude are 0.
    """
    pack = dict(np.load(PACKS / "har/motionsense_raw.npz"))
    for recording, start in enumerate(pack["offset"]):
        person = int(pack["user"][recording])
        if person > people:
            continue
        end = start + pack["length"][recording]
        sensors = pack["x"][start:end][:rows] * pack["scale"]
        activity = pack["activity_names"][pack["activity"][recording]]
        folder = out / "A_DeviceMotion_data" / f"{activity}_{pack['trial'][recording]}"
        folder.mkdir(parents=True, exist_ok=True)
        acceleration, turning = sensors[:, :3].tolist(), sensors[:, 3:].tolist()
        lines = ["," + ",".join(MOTION_COLUMNS)]
        for i, ((ax, ay, az), (gx, gy, gz)) in enumerate(zip(acceleration, turning, strict=True)):
            sums = f"{ax:.4f},{ay:.4f},{az:.4f}"
            lines.append(f"{i},0,0,0,0,0,0,{gx:.3f},{gy:.3f},{gz:.3f},{sums}")
        (folder / f"sub_{person}.csv").write_text("\n".join(lines) + "\n")
    return out


if __name__ == "__main__":
    {"cifar10": cifar10, "mnist": mnist, "motionsense": motion_sense}[sys.argv[1]](
        Path(sys.argv[2])
    )
