"""The real data sets, from packs beside the checkout: counts as published, and no leak."""

from pathlib import Path

import numpy as np
import packs
import pytest

from persona.data import Dataset
from persona.data.cifar import Cifar10
from persona.data.mnist_writers import STUDENTS, MnistWriters
from persona.data.motion_sense import MotionSense

pytestmark = pytest.mark.skipif(
    not packs.PACKS.is_dir(), reason=f"the real data are not at {packs.PACKS}"
)

CONVERTERS = {
    "cifar-10": lambda out: packs.cifar10(out, each=1000),
    "mnist-writers": packs.mnist,
    "motion-sense": lambda out: packs.motion_sense(out, people=9, rows=2500),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Writes a pack out once in its official format."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = CONVERTERS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return of


def check_devices(data: Dataset) -> None:
    """No sample twice on a device, and no owner in two splits."""
    owners = {}
    for split in ("adapter", "validation", "test"):
        devices = data.devices(split, 40, 0)
        for device in devices:
            both = np.concatenate([*device.window, *device.queries])
            assert len({sample.tobytes() for sample in both}) == len(both)
            assert np.isfinite(both).all()
        owners[split] = {d.name.partition("@")[0] for d in devices}
    assert not owners["adapter"] & owners["validation"]
    assert not owners["test"] & (owners["adapter"] | owners["validation"])


def test_cifar_10_is_ten_classes_of_photographs(folder):
    data = Cifar10(folder("cifar-10"))
    assert data.pixels.shape == (6000, 3, 32, 32)
    np.testing.assert_allclose(np.bincount(data.labels) / 6000, 0.1, atol=0.02)
    means = data.pixels.mean((0, 2, 3)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.02)  # As published.
    check_devices(data)


def test_mnist_has_836_writers_whose_population_tells_where_they_train(folder):
    data = MnistWriters(folder("mnist-writers"))
    assert len(data.pixels) == 70_000
    assert np.bincount(data.labels[:60_000]).tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    left_out = sum(data.left_out.values())
    assert sum(map(len, data.owners.values())) + left_out == 836
    students = [w.name for w in data.owners["test"]]
    assert min(students) >= "w2100"
    assert STUDENTS == 4
    check_devices(data)


def test_motion_sense_stands_still_where_it_says_so(folder):
    """Acceleration is 1 g when sitting and standing, and varies most when jogging."""
    data = MotionSense(folder("motion-sense"), folds=3)
    assert data.summary() == "1 stretches that are copies of another"  # sit_5, sit_13 of sub_1.
    acceleration = np.linalg.norm(data.windows.values[:, :3], axis=1)
    labels = data.windows.labels
    means = [acceleration[labels == label].mean() for label in range(6)]
    np.testing.assert_allclose(means[4:], 1, atol=0.02)
    spread = [acceleration[labels == label].std() for label in range(6)]
    assert int(np.argmax(spread)) == data.label_names.index("jog")
    assert max(spread[4:]) < 0.1 * max(spread)
    check_devices(data)
