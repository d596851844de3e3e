"""The real data beside a checkout, written in the official file formats that the readers take.

`shared/data` is no part of the project; where it is absent, tests that need it are skipped.
Run as a program, it leaves the folders for experiments: `python packs.py cifar10 FOLDER`.
"""

import io
import struct
import sys
from pathlib import Path

import numpy as np
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
