"""Public data sets: where they are, under which terms, and how to fetch one whole or not at all.

Files come from their publishers, or from a mirror that is named; nothing is hosted here.
"""

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from persona.data.base import DataError
from persona.durable import staged_folder
from persona.registry import UnknownNameError

Progress = Callable[[int, int], None]
"""Called with the bytes that came, and those that will in all (0 where the server does not say)."""

_CHUNK = 1 << 20
_SECONDS = 30.0
_ARCHIVES = (".zip", ".tar.gz")


class DownloadError(DataError):
    """A data set that could not be fetched; the message says how to get it by hand."""


@dataclass(frozen=True)
class PublicFile:
    """One file: an archive (.zip, .tar.gz) is unpacked, anything else kept as it is.

    md5, sha256, git_blob: checksums as its publisher, or a library that pins it, states them;
    without one it is unverified. git_blob: its id in the publisher's git repository.
    size: in bytes, likewise.
    """

    url: str
    md5: str | None = None
    size: int | None = None
    sha256: str | None = None
    git_blob: str | None = None

    def checksums(self) -> dict[str, str]:
        """Kind -> what is known of it."""
        known = {"MD5": self.md5, "SHA-256": self.sha256, "git blob": self.git_blob}
        return {kind: value for kind, value in known.items() if value is not None}

    @property
    def name(self) -> str:
        """The file's name, as in its URL."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class PublicSet:
    """A data set that anyone may fetch.

    reader: the data set's name in a configuration. home: where it is described.
    terms: of use, in short; `home` has them in full. files: none where only a person, with a
    browser, can get them. by_hand: then, how.
    """

    title: str
    reader: str
    home: str
    terms: str
    files: tuple[PublicFile, ...]
    by_hand: str = ""

    def verified(self) -> bool:
        """Whether there are files, and a checksum is known for each."""
        return bool(self.files) and all(file.checksums() for file in self.files)


_GROUPLENS = (
    "Research use; cite Harper and Konstan (2015). No redistribution without permission, no "
    "commercial use without permission of the GroupLens project, no implied endorsement."
)
_GROUPLENS_SHARED = (
    "Research use; cite Harper and Konstan (2015). Redistribution under the same terms only, no "
    "commercial use without permission of the GroupLens project, no implied endorsement."
)
_CIFAR = (
    "No licence is stated; the authors ask to cite Krizhevsky (2009), Learning Multiple Layers."
)


def _movielens(size: str, folder: str, md5: str, terms: str) -> PublicSet:
    return PublicSet(
        f"MovieLens {size}: ratings of films",
        "movielens",
        f"https://grouplens.org/datasets/movielens/{size.lower()}/",
        terms,
        (PublicFile(f"https://files.grouplens.org/datasets/movielens/{folder}.zip", md5),),
    )


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_QMNIST = "https://raw.githubusercontent.com/facebookresearch/qmnist/master/"
_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_MOTION_SENSE = "https://github.com/mmalekzadeh/motion-sense"
_AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_AMAZON_2018 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/"

PUBLIC_SETS: dict[str, PublicSet] = {
    "movielens-100k": _movielens("100K", "ml-100k", "0e33842e24a9c977be4e0107933c0723", _GROUPLENS),
    "movielens-1m": _movielens("1M", "ml-1m", "c4d9eecfca2ab87c1945afe126590906", _GROUPLENS),
    "movielens-10m": _movielens("10M", "ml-10m", "ce571fd55effeba0271552578f2648bd", _GROUPLENS),
    "movielens-20m": _movielens(
        "20M", "ml-20m", "cd245b17a1ae2cc31bb14903e1204af3", _GROUPLENS_SHARED
    ),
    "movielens-25m": _movielens(
        "25M", "ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada", _GROUPLENS_SHARED
    ),
    "mnist": PublicSet(
        "MNIST: handwritten digits, from the mirror that torchvision uses",
        "mnist-writers",
        "https://github.com/facebookresearch/qmnist",
        "Creative Commons BY-SA 3.0, as its mirrors state; cite LeCun et al. (1998). Writers are "
        "in QMNIST's labels alone: fetch qmnist, too.",
        (
            PublicFile(
                f"{_MNIST}train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422
            ),
            PublicFile(
                f"{_MNIST}train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28881
            ),
            PublicFile(
                f"{_MNIST}t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1648877
            ),
            PublicFile(
                f"{_MNIST}t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4542
            ),
        ),
    ),
    "qmnist": PublicSet(
        "QMNIST: MNIST with its writers, and 50,000 more test digits",
        "mnist-writers",
        "https://github.com/facebookresearch/qmnist",
        "As its repository's LICENSE says; cite Yadav and Bottou (2019).",
        (
            PublicFile(
                f"{_QMNIST}qmnist-train-images-idx3-ubyte.gz", "ed72d4157d28c017586c42bc6afe6370"
            ),
            PublicFile(
                f"{_QMNIST}qmnist-train-labels-idx2-int.gz", "0058f8dd561b90ffdd0f734c6a30e5e4"
            ),
            PublicFile(
                f"{_QMNIST}qmnist-test-images-idx3-ubyte.gz", "1394631089c404de565df7b7aeaf9412"
            ),
            PublicFile(
                f"{_QMNIST}qmnist-test-labels-idx2-int.gz", "5b5b05890a5e13444e108efe57b788aa"
            ),
        ),
    ),
    "cifar-10": PublicSet(
        "CIFAR-10: small photographs in 10 classes, binary version",
        "cifar-10",
        f"{_TORONTO}cifar.html",
        _CIFAR,
        (
            PublicFile(
                f"{_TORONTO}cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170052171
            ),
        ),
    ),
    "cifar-100": PublicSet(
        "CIFAR-100: small photographs in 100 classes, binary version",
        "cifar-100",
        f"{_TORONTO}cifar.html",
        _CIFAR,
        (
            PublicFile(
                f"{_TORONTO}cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", 168513733
            ),
        ),
    ),
    "hapt": PublicSet(
        "HAPT: accelerometer and gyroscope of 30 people, 12 activities and transitions",
        "hapt",
        "https://archive.ics.uci.edu/dataset/341/",
        "As its page at UCI says; cite Reyes-Ortiz et al. (2016).",
        (
            PublicFile(
                "https://archive.ics.uci.edu/static/public/341/smartphone+based+recognition+of+"
                "human+activities+and+postural+transitions.zip"
            ),
        ),
    ),
    "motion-sense": PublicSet(
        "MotionSense: motion of 24 people's phones, 6 activities",
        "motion-sense",
        _MOTION_SENSE,
        "As its repository says; cite Malekzadeh et al. (2019).",
        (
            PublicFile(
                f"{_MOTION_SENSE}/raw/261cb0d60611a049ab38127738e42cc510ed50f4/data/"
                "A_DeviceMotion_data.zip",
                git_blob="78f9957d9f4d0a4b6457461009e1f2e0453a872d",
            ),
        ),
    ),
    "amazon-beauty-2014": PublicSet(
        "Amazon reviews of 2014, Beauty: ratings; its page has the other categories",
        "amazon-reviews",
        "https://jmcauley.ucsd.edu/data/amazon/index_2014.html",
        "No licence is stated; the authors ask to cite He and McAuley (2016) or McAuley et al. "
        "(2015).",
        (
            PublicFile(
                f"{_AMAZON_2014}ratings_Beauty.csv",
                sha256="17d5232b90444beecfe758ce1446e5300230491f3a88ac802992ca95fc4c150f",
            ),
        ),
    ),
    "amazon-all-beauty-2018": PublicSet(
        "Amazon reviews of 2018, All Beauty: ratings; its page has the other categories",
        "amazon-reviews",
        "https://nijianmo.github.io/amazon/index.html",
        "No licence is stated; the authors ask to cite Ni, Li and McAuley (2019).",
        (
            PublicFile(
                f"{_AMAZON_2018}All_Beauty.csv",
                sha256="b3d9260771f9fe489a61180b9ff407e15e10f481a287848f69bc4709b669246f",
            ),
        ),
    ),
    "douban": PublicSet(
        "Douban: reviews of films, books and music by the same people",
        "douban",
        "https://github.com/fengzhu1/GA-DTCDR",
        "As its authors say where it lies; cite Zhu et al. (2019 or 2020).",
        (),
        'get "douban dataset (text information)" from https://www.researchgate.net/publication/'
        "350793434_douban_datasettext_information, where people download it with a browser",
    ),
}
"""Name -> public set. CIFAR's checksums are on its page; MNIST's and QMNIST's are those that
torchvision pins; MovieLens' those that public configurations pin; Amazon's those that the library
OmniRec pins; MotionSense's is in its own repository; for HAPT none is known."""


def public_set(name: str) -> PublicSet:
    """The set of a name. Raises UnknownNameError with the names that there are."""
    if name not in PUBLIC_SETS:
        raise UnknownNameError(
            f"no public data set is called {name!r}; there are: {', '.join(sorted(PUBLIC_SETS))}"
        )
    return PUBLIC_SETS[name]


def fetch(chosen: PublicSet, out: Path, progress: Progress) -> None:
    """Download and unpack a set into the new folder `out`, whole or not at all.

    An archive's one top folder is left out: `out` is what a reader takes as its root.
    Raises DownloadError where a file does not come, or is not what its checksum says, or an archive
    would write elsewhere, or a person has to get the set; PlaceError where `out` cannot be written.
    """
    if not chosen.files:
        raise DownloadError(f"{chosen.title}: there is no file to fetch. {_by_hand(chosen)}")
    with staged_folder(out) as staging:
        for file in chosen.files:
            path = staging / file.name
            try:
                _download(file, path, progress)
                if file.name.endswith(_ARCHIVES):
                    _unpack(path, staging)
                    path.unlink()
            except DownloadError as error:
                raise DownloadError(f"{error}. {_by_hand(chosen)}") from None
        _lift(staging)


def _by_hand(chosen: PublicSet) -> str:
    urls = " ".join(file.url for file in chosen.files)
    how = chosen.by_hand or f"get {urls} with a browser, or on another machine"
    return (
        f"By hand: {how}; unpack archives into a folder, and pass that folder with --data "
        f"(reader: {chosen.reader})"
    )


def _download(file: PublicFile, path: Path, progress: Progress) -> None:
    """Stream a file to `path`, and check its size and checksums."""
    import httpx  # Slow to load, and every data set's registration loads this module.

    came = 0
    try:
        with httpx.stream(
            "GET",
            file.url,
            follow_redirects=True,
            timeout=_SECONDS,
            headers={"Accept-Encoding": "identity"},
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                raise DownloadError(f"{file.url} answers {answer.status_code}")
            size = int(answer.headers.get("Content-Length", file.size or 0))
            with path.open("wb") as out:
                for chunk in answer.iter_raw(_CHUNK):
                    out.write(chunk)
                    came += len(chunk)
                    progress(came, size)
    except httpx.RemoteProtocolError:
        raise DownloadError(f"{file.url} broke off after {came} bytes") from None
    except httpx.HTTPError as error:
        host = urlsplit(file.url).hostname
        raise DownloadError(f"cannot reach {host}: {error or type(error).__name__}") from None
    if file.size is not None and came != file.size:
        raise DownloadError(f"{file.url} has {came} bytes, expected {file.size}")
    for kind, expected in file.checksums().items():
        found = _checksum(path, kind)
        if found != expected:
            raise DownloadError(
                f"{file.url} has {kind} {found}, expected {expected}: it is damaged or has "
                "changed, and was not kept"
            )


def _checksum(path: Path, kind: str) -> str:
    """Of a file, in hexadecimal. A git blob's id is the SHA-1 of its size and content."""
    algorithm = {"MD5": "md5", "SHA-256": "sha256", "git blob": "sha1"}[kind]
    digest = hashlib.new(algorithm, usedforsecurity=False)
    if kind == "git blob":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _unpack(archive: Path, out: Path) -> None:
    """Unpack into `out`. Raises DownloadError for a damaged archive or one that leads elsewhere."""
    try:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as packed:
                for name in packed.namelist():
                    _check_inside(archive, name)
                packed.extractall(out)
            shutil.rmtree(out / "__MACOSX", ignore_errors=True)
        else:
            with tarfile.open(archive) as packed_tar:
                for name in packed_tar.getnames():
                    _check_inside(archive, name)
                packed_tar.extractall(out, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        raise DownloadError(f"{archive.name} cannot be unpacked: {error}") from None


def _check_inside(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise DownloadError(
            f"{archive.name} holds {name!r}, which leads out of its folder; nothing was unpacked"
        )


def _lift(folder: Path) -> None:
    """Where all is in one folder, put it where that folder is."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir():
        inner = entries[0].rename(folder / ".lifted")
        for entry in list(inner.iterdir()):
            entry.rename(folder / entry.name)
        inner.rmdir()
