"""CIFAR, MNIST by writer, image domains: files whole and broken, and nothing seen twice."""

import gzip
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from packs import idx
from PIL import Image

from persona.data import DataError, Dataset, Device, datasets
from persona.data.cifar import Cifar10, Cifar100
from persona.data.image_domains import ImageDomains
from persona.data.image_shifts import FAMILIES, CameraShift
from persona.data.image_streams import CAMERA_GROUP
from persona.data.mnist_writers import MnistWriters

SPLITS = ("adapter", "validation", "test")
DEVICE_CLASSES = {
    "cifar-10": Cifar10,
    "cifar-100": Cifar100,
    "mnist-writers": MnistWriters,
    "image-domains": ImageDomains,
}


def numbered(count: int, first: int, channels: int, size: int) -> np.ndarray:
    """Images uint8 [count, channels, size, size] that say their number in their first pixels."""
    pixels = np.random.default_rng(first).integers(40, 200, (count, channels, size, size))
    numbers = first + np.arange(count)
    for place, base in enumerate((10_000, 100, 1)):
        pixels[:, 0, 0, place] = numbers // base % 100
    return pixels.astype(np.uint8)


def numbers_of(images: np.ndarray) -> list[int]:
    digits = np.rint(images[:, 0, 0, :3] * 255).astype(int)
    return (digits @ [10_000, 100, 1]).tolist()


def seen(device: Device) -> list[int]:
    return numbers_of(np.concatenate([*device.window, *device.queries]))


def write_cifar10(root: Path, each: int = 200) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    for place, name in enumerate(names):
        pixels = numbered(each, place * each, 3, 32).reshape(each, 3072)
        labels = ((place * each + np.arange(each)) % 10).astype(np.uint8)
        (folder / name).write_bytes(np.column_stack([labels, pixels]).tobytes())
    return root


def write_cifar100(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, count, first in (("train.bin", 2000, 0), ("test.bin", 300, 2000)):
        pixels = numbered(count, first, 3, 32).reshape(count, 3072)
        fine = ((first + np.arange(count)) % 100).astype(np.uint8)
        (root / name).write_bytes(np.column_stack([fine // 5, fine, pixels]).tobytes())
    return root


WRITERS = {"train": range(60), "test": range(60, 80)}


def series_of(writer: int) -> int:
    return (4, 0, 1)[writer % 3]


def write_mnist(root: Path, each: int = 30, packed: bool = False) -> Path:
    """Digits of 80 writers, a third of them students; the writers' digits are interleaved."""
    root.mkdir(parents=True, exist_ok=True)
    for mnist, (part, writers) in zip(("train", "t10k"), WRITERS.items(), strict=True):
        first = 0 if part == "train" else 60 * each
        rows = [
            (digit % 10, series_of(w), w, digit, 30 + digit % 10, 0, 0, 0)
            for digit in range(each)
            for w in writers
        ]
        extended = np.array(rows, np.int32)
        files = {
            f"{mnist}-images-idx3-ubyte": idx(numbered(len(rows), first, 1, 28)[:, 0]),
            f"{mnist}-labels-idx1-ubyte": idx(extended[:, 0].astype(np.uint8)),
            f"qmnist-{part}-labels-idx2-int": idx(np.concatenate([extended, extended[:3]])),
        }
        for name, data in files.items():
            path = root / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(data) if packed else data)
    return root


def writer_of(number: int, each: int = 30) -> int:
    return number % 60 if number < 60 * each else 60 + (number - 60 * each) % 20


def write_domains(root: Path) -> Path:
    number = 0
    for domain in ("cartoon", "photo", "sketch"):
        for label in ("dog", "house"):
            folder = root / domain / label
            folder.mkdir(parents=True)
            for pixels in numbered(80, number, 3, 6):
                Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number:05d}.png")
                number += 1
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_cifar10(root / "cifar-10")
    write_cifar100(root / "cifar-100")
    write_mnist(root / "mnist-writers")
    write_domains(root / "image-domains")
    return root


SETTINGS: dict[str, dict[str, object]] = {
    "cifar-10": {"corruptions": ()},
    "cifar-100": {"corruptions": ()},
    "mnist-writers": {},
    "image-domains": {"test_domain": "sketch"},
}
SMALL: dict[str, object] = {"window": 6, "queries": 5, "habits": 0.5}


def opened(files: Path, name: str, **settings: object) -> Dataset:
    return datasets[name](files / name, **SMALL | SETTINGS[name] | settings)


@pytest.fixture(scope="module", params=SETTINGS)
def data(request: pytest.FixtureRequest, files: Path) -> Dataset:
    """Each data set with images as they are, so that each image can be told by its pixels."""
    return opened(files, request.param)


# What holds for all


def test_they_are_registered_under_their_names():
    assert {name: datasets[name] for name in DEVICE_CLASSES} == DEVICE_CLASSES


def test_no_image_is_in_two_splits(data):
    rng = np.random.default_rng(0)
    (trained,), _ = data.batch(rng, 4000)
    (held,), _ = data.held_out()
    found = {"backbone": set(numbers_of(trained)), "held-out": set(numbers_of(held))}
    for split in SPLITS:
        found[split] = {n for d in data.devices(split, 60, 1) for n in seen(d)}
    assert all(found.values())
    for one, other in combinations(found, 2):
        assert not found[one] & found[other], (one, other)


def test_a_device_sees_no_image_twice(data):
    for split in SPLITS:
        for device in data.devices(split, 30, 1):
            assert len(set(seen(device))) == 11


def test_targets_are_the_labels_of_the_images(data):
    labels = dict(zip(numbers_of(data.pixels / 255), data.labels.tolist(), strict=True))
    for device in data.devices("test", 20, 2):
        assert [labels[n] for n in numbers_of(device.queries[0])] == device.targets.tolist()
        assert [labels[n] for n in numbers_of(device.window[0])] == device.window_targets.tolist()
    (images,), targets = data.batch(np.random.default_rng(0), 100)
    assert [labels[n] for n in numbers_of(images)] == targets.tolist()


def test_the_seed_fixes_the_devices_and_fewer_are_the_first_of_many(data):
    few, many, others = (data.devices("adapter", n, s) for n, s in ((3, 5), (9, 5), (9, 6)))
    for one, other in zip(few, many, strict=False):
        assert one.name == other.name
        np.testing.assert_array_equal(one.window[0], other.window[0])
        np.testing.assert_array_equal(one.queries[0], other.queries[0])
    assert any(seen(a) != seen(b) for a, b in zip(many, others, strict=True))
    names = [d.name for split in SPLITS for s in (5, 6) for d in data.devices(split, 9, s)]
    assert len(set(names)) == len(names)


def test_shapes_and_types_are_what_the_backbone_is_told(data):
    told = data.backbone_settings()
    shape = (told["channels"], told["size"], told["size"])
    (images,), targets = data.batch(np.random.default_rng(0), 7)
    assert images.shape == (7, *shape)
    assert targets.max() < told["classes"]
    for device in data.devices("validation", 4, 0):
        assert device.window[0].shape == (6, *shape)
        assert device.queries[0].shape == (5, *shape)
        assert device.window[0].dtype == device.queries[0].dtype == images.dtype == np.float32
        assert device.targets.dtype == device.window_targets.dtype == targets.dtype == np.int64
        assert device.targets.shape == (5,)
        assert device.window_targets.shape == (6,)


def test_small_concentrations_are_strong_habits_and_0_means_none(files):
    def commonest(habits: float) -> float:
        data = opened(files, "cifar-10", habits=habits, window=20, queries=20)
        both = (np.concatenate([d.targets, d.window_targets]) for d in data.devices("test", 60, 0))
        return np.mean([np.bincount(labels).max() / 40 for labels in both])

    assert commonest(0.1) > commonest(1.0) > commonest(0)
    assert commonest(0) == pytest.approx(0.2, abs=0.04)  # The largest of ten counts of 40.


def test_window_and_queries_of_a_device_share_its_habits(files):
    data = opened(files, "cifar-10", habits=0.2, window=20, queries=20)
    devices = data.devices("adapter", 100, 0)
    mixes = [
        [np.bincount(labels, minlength=10) / 20 for labels in (d.window_targets, d.targets)]
        for d in devices
    ]
    own = np.mean([np.abs(w - q).sum() for w, q in mixes])
    anothers = np.mean([np.abs(mixes[i][0] - mixes[i - 1][1]).sum() for i in range(100)])
    assert own < 0.5 * anothers


def test_a_static_rival_may_be_trained_on_the_adapters_images_too(files):
    fresh, all_seen = (
        opened(files, "cifar-10", backbone_sees_adapter=sees) for sees in (False, True)
    )
    adapters = {n for d in fresh.devices("adapter", 100, 0) for n in seen(d)}
    rng = np.random.default_rng(0)
    (few,), _ = fresh.batch(rng, 4000)
    (many,), _ = all_seen.batch(rng, 4000)
    assert not adapters & set(numbers_of(few))
    assert len(adapters & set(numbers_of(many))) > 0.9 * len(adapters)


def test_the_fingerprint_tells_the_data_and_not_the_settings(data, files):
    name = next(n for n, kind in DEVICE_CLASSES.items() if isinstance(data, kind))
    assert opened(files, name, window=7).fingerprint() == data.fingerprint()
    assert len(data.fingerprint()) == 64


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": 0}, "window must be 1 or more, got 0"),
        ({"habits": -1.0}, "habits must be 0 or more"),
        ({"corruptions": ("rain",)}, "there is no rain"),
    ],
)
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_make_no_sense_are_refused(files, name, settings, said):
    with pytest.raises(DataError, match=said):
        opened(files, name, **settings)


# Cameras


def test_window_and_queries_come_through_one_camera_and_devices_differ(files, monkeypatch):
    calls = []

    def record(_shift, images, look, _rng):
        calls.append((len(images), look))
        return images

    monkeypatch.setattr(CameraShift, "apply", record)
    data = opened(files, "cifar-10", corruptions=FAMILIES)
    data.devices("test", 40, 0)
    assert {count for count, _ in calls} == {11}
    assert len({look for _, look in calls}) > 20


def test_training_batches_hold_images_of_many_cameras(files, monkeypatch):
    looks = []

    def record(_shift, images, look, _rng):
        looks.append((len(images), look))
        return images

    monkeypatch.setattr(CameraShift, "apply", record)
    opened(files, "cifar-10", corruptions=FAMILIES).batch(np.random.default_rng(0), 100)
    assert sum(count for count, _ in looks) == 100
    assert {count for count, _ in looks[:-1]} == {CAMERA_GROUP}
    assert len({look for _, look in looks}) > 6


def test_training_devices_and_batches_come_through_the_same_kind_of_camera(files):
    """What noise does to the deviation of images is the same for both."""
    shifted = {"corruptions": ("contrast",), "severities": (1, 5), "habits": 0}
    data = opened(files, "cifar-10", **shifted)
    (images,), _ = data.batch(np.random.default_rng(0), 4000)
    devices = np.concatenate([d.queries[0] for d in data.devices("adapter", 400, 0)])
    one, other = (x.std((1, 2, 3)).mean() for x in (images, devices))
    assert one == pytest.approx(other, rel=0.05)


# CIFAR


def test_cifar_pixels_are_planes_of_red_green_and_blue(files):
    data = opened(files, "cifar-10")
    row = (files / "cifar-10/cifar-10-batches-bin/data_batch_2.bin").read_bytes()[3073 : 2 * 3073]
    assert data.labels[201] == row[0]
    plane = np.frombuffer(row[1 + 2048 :], np.uint8).reshape(32, 32)
    np.testing.assert_array_equal(data.pixels[201, 2], plane)


def test_only_the_official_test_file_is_tested_on(files):
    data = opened(files, "cifar-10")
    tested = {n for d in data.devices("test", 300, 0) for n in seen(d)}
    assert tested <= set(range(1000, 1200))
    assert len(tested) > 190


def test_cifar_100_has_its_fine_classes(files):
    data = opened(files, "cifar-100")
    assert data.backbone_settings()["classes"] == 100
    assert data.labels[:120].tolist() == [n % 100 for n in range(120)]


def test_the_folder_itself_or_the_one_around_it_may_be_given(files):
    inner = Cifar10(files / "cifar-10/cifar-10-batches-bin")
    assert inner.fingerprint() == Cifar10(files / "cifar-10").fingerprint()


def test_broken_cifar_files_are_named(tmp_path):
    folder = write_cifar10(tmp_path, each=60) / "cifar-10-batches-bin"
    broken = folder / "data_batch_3.bin"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-5])
    with pytest.raises(
        DataError, match=r"data_batch_3.bin has 184375 bytes, not whole rows of 3073"
    ):
        Cifar10(tmp_path)
    broken.write_bytes(b"")
    with pytest.raises(DataError, match="has 0 bytes"):
        Cifar10(tmp_path)
    broken.unlink()
    with pytest.raises(DataError, match=r"expected data_batch_1.bin.* of the binary version"):
        Cifar10(tmp_path)
    with pytest.raises(DataError, match="download the archive"):
        Cifar10(None)


def test_a_cifar_row_of_a_class_that_there_is_not_is_named_and_left_out(files, tmp_path):
    folder = write_cifar10(tmp_path) / "cifar-10-batches-bin"
    broken = folder / "data_batch_3.bin"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:3073] + b"\x0b" + whole[3074:])
    said = "data_batch_3.bin: row 2: class should be 0 to 9, is 11"
    with pytest.raises(DataError, match=f"1 of 1200 rows .* first {said}. Correct the rows, or "):
        Cifar10(tmp_path, bad_rows=0)
    data = Cifar10(tmp_path)
    assert data.faults == (said,)
    assert data.summary() == "1 unusable rows"
    np.testing.assert_array_equal(
        data.pixels, np.delete(Cifar10(files / "cifar-10").pixels, 401, 0)
    )


def test_splits_too_small_for_a_device_are_refused(files):
    with pytest.raises(DataError, match=r"a device needs 90 images, .* validation has 60"):
        opened(files, "cifar-10", window=50, queries=40)


# Writers


def test_a_device_has_the_digits_of_the_writer_in_its_name(files):
    data = opened(files, "mnist-writers")
    for split in SPLITS:
        for device in data.devices(split, 40, 0):
            person = int(device.name.partition("@")[0].removeprefix("w"))
            assert {writer_of(n) for n in seen(device)} == {person}


def test_shifted_populations_train_on_employees_and_test_on_students(files):
    data = opened(files, "mnist-writers")
    (trained,), _ = data.batch(np.random.default_rng(0), 2000)
    assert all(series_of(writer_of(n)) != 4 for n in numbers_of(trained))
    for split in SPLITS:
        series = {series_of(writer_of(n)) for d in data.devices(split, 99, 0) for n in seen(d)}
        assert (series == {4}) if split == "test" else (series <= {0, 1})


def test_mixed_populations_have_both_everywhere(files):
    data = opened(files, "mnist-writers", population="mixed", validation_share=0.2)
    for split in SPLITS:
        series = {series_of(writer_of(n)) for d in data.devices(split, 99, 0) for n in seen(d)}
        assert 4 in series
        assert series & {0, 1}


def test_writers_come_again_as_other_streams_but_not_without_end_for_testing(files):
    data = opened(files, "mnist-writers", streams=3)
    tested = [d.name.partition("@")[0] for d in data.devices("test", 10_000, 0)]
    counts = np.unique(tested, return_counts=True)[1]
    assert len(counts) == 27
    assert set(counts.tolist()) == {3}
    assert len(data.devices("adapter", 500, 0)) == 500
    first, again, _ = (d for d in data.devices("test", 81, 0) if d.name.startswith(tested[0]))
    assert seen(first) != seen(again)


def test_the_stored_order_of_a_writer_does_not_tell_the_labels(files):
    """Stored, the next digit of a writer is always one more."""
    data = opened(files, "mnist-writers", habits=0)
    steps = np.concatenate([np.diff(d.targets) % 10 for d in data.devices("adapter", 300, 0)])
    assert np.mean(steps == 1) < 0.2


def test_gzipped_files_are_read_alike(files, tmp_path):
    packed = MnistWriters(write_mnist(tmp_path, packed=True), **SMALL)
    assert packed.fingerprint() == opened(files, "mnist-writers").fingerprint()


def test_qmnists_own_images_will_do(files, tmp_path):
    write_mnist(tmp_path)
    for mnist, qmnist in (("train", "train"), ("t10k", "test")):
        (tmp_path / f"{mnist}-labels-idx1-ubyte").unlink()
        images = tmp_path / f"{mnist}-images-idx3-ubyte"
        images.rename(tmp_path / f"qmnist-{qmnist}-images-idx3-ubyte")
    data = MnistWriters(tmp_path, **SMALL)
    assert data.fingerprint() == opened(files, "mnist-writers").fingerprint()


def test_writers_with_too_few_digits_are_counted(files):
    data = opened(files, "mnist-writers", window=20, queries=10)
    assert data.summary() == ""
    with pytest.raises(DataError, match="writers with fewer than 31 digits"):
        opened(files, "mnist-writers", window=20, queries=11)


BREAKS = {
    "train-images-idx3-ubyte": [
        (lambda b: b[:-7], r"says 1800×28×28 values, which is 1411216 bytes, and has 1411209"),
        (lambda b: b + b"\0", "is it cut off"),
        (lambda b: b"\x08\x03\0\0" + b[4:], r"not IDX: .* got 8, 3, 0, 0"),
        (lambda b: b[:9], "ends inside its header"),
        (lambda b: b[:2], "not IDX"),
        (
            lambda _: idx(np.zeros((4, 28, 20), np.uint8)),
            r"square images of bytes, got \(4, 28, 20",
        ),
    ],
    "qmnist-train-labels-idx2-int": [
        (lambda b: b[:-4], "is it cut off"),
        (lambda _: idx(np.zeros((1800, 5), np.int32)), r"rows of 8 integers, got \(1800, 5\)"),
        (lambda _: idx(np.zeros((9, 8), np.int32)), r"has 1800 images, .* 9 rows"),
        (
            lambda _: idx(np.full((1800, 8), 12, np.int32)),
            "1800 of .* class should be 0 to 9, is 12",
        ),
        (lambda _: idx(np.zeros((1800, 8), np.int32)), "rows .* class is 0, in train-labels-idx1-"),
    ],
}


@pytest.mark.parametrize(
    ("name", "change", "said"), [(n, *case) for n, cases in BREAKS.items() for case in cases]
)
def test_broken_idx_files_are_named(tmp_path, name, change, said):
    path = write_mnist(tmp_path) / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=said) as caught:
        MnistWriters(tmp_path, **SMALL)
    assert name in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_row_of_another_class_than_mnists_is_named_and_left_out(files, tmp_path, packed):
    path = write_mnist(tmp_path) / "qmnist-train-labels-idx2-int"
    rows = np.frombuffer(path.read_bytes(), ">i4", offset=12).reshape(-1, 8).astype(np.int32)
    rows[6, 0], rows[40, 0] = 11, (rows[40, 0] + 1) % 10
    path.write_bytes(idx(rows))
    plain = tmp_path / "train-labels-idx1-ubyte"
    if packed:
        plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    faults = (
        f"{path.name}: row 7: class should be 0 to 9, is 11",
        f"{path.name}: row 41: class is {rows[40, 0]}, in train-labels-idx1-ubyte"
        f"{'.gz' * packed} {(rows[40, 0] - 1) % 10}",
    )
    with pytest.raises(DataError, match=f"2 of \\d+ rows .* first {faults[0]}; .* raise bad_rows"):
        MnistWriters(tmp_path, bad_rows=0, **SMALL)
    data = MnistWriters(tmp_path, **SMALL)
    assert data.faults == faults
    assert data.left_out["unusable rows"] == 2
    whole = opened(files, "mnist-writers")
    np.testing.assert_array_equal(data.pixels, np.delete(whole.pixels, [6, 40], axis=0))
    np.testing.assert_array_equal(data.labels, np.delete(whole.labels, [6, 40]))


def test_a_missing_or_damaged_file_is_named(tmp_path):
    path = write_mnist(tmp_path, packed=True) / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz is not whole gzip"):
        MnistWriters(tmp_path, **SMALL)
    path.unlink()
    with pytest.raises(DataError, match=r"expected t10k-images-idx3-ubyte or qmnist-test-images"):
        MnistWriters(tmp_path, **SMALL)
    with pytest.raises(DataError, match="needs a root"):
        MnistWriters(None)
    with pytest.raises(DataError, match="population must be shifted or mixed, got 'old'"):
        MnistWriters(tmp_path, population="old")


# Domains


def test_unreadable_misplaced_and_other_files_are_counted_and_named(tmp_path):
    root = write_domains(tmp_path)
    photo = sorted((root / "photo").rglob("*.png"))[0]
    for name in ("loose.png", "photo/loose.png", "photo/dog/deeper/loose.png", "about.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(photo.read_bytes())
    whole = len(list(root.glob("*/*/*.png")))
    photo.write_bytes(b"no image")
    data = ImageDomains(root, test_domain="sketch", bad_images=0.01, **SMALL)
    where = "not read; images are at DEVICE/LABEL/*.png or *.jpg"
    assert data.faults == (
        f"{photo.relative_to(root).as_posix()}: not a PNG or JPEG file",
        f"loose.png: {where}",
        f"photo/dog/deeper/loose.png: {where}",
        f"photo/loose.png: {where}",
        "about.txt: no PNG or JPEG",
    )
    assert len(data.pixels) == whole - 1
    assert data.summary() == (
        "1 unreadable images, 3 images in other places, 1 files that are no PNG or JPEG"
    )


def test_the_test_domain_is_tested_on_and_never_trained_on(files):
    data = opened(files, "image-domains")
    for split in SPLITS:
        domains = {d.name.split("-")[0] for d in data.devices(split, 30, 0)}
        assert domains == ({"sketch"} if split == "test" else {"cartoon", "photo"})
        for device in data.devices(split, 30, 0):
            place = ("cartoon", "photo", "sketch").index(device.name.split("-")[0])
            assert {n // 160 for n in seen(device)} == {place}


def test_a_wrong_test_domain_is_told_which_there_are(files):
    with pytest.raises(DataError, match="got 'oil'; there are cartoon, photo, sketch"):
        opened(files, "image-domains", test_domain="oil")


def test_domains_too_small_are_named(files):
    with pytest.raises(DataError, match=r"needs 65 images, .* validation has 16 of cartoon"):
        opened(files, "image-domains", window=60)
