"""Public sets come whole, checked and inside their folder, or not at all; from a real server."""

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from persona.data import datasets
from persona.data.download import (
    PUBLIC_SETS,
    DownloadError,
    PublicFile,
    PublicSet,
    fetch,
    public_set,
)
from persona.durable import PlaceError
from persona.registry import UnknownNameError

Serve = Callable[..., PublicFile]


@pytest.fixture
def serve(monkeypatch) -> Iterator[Serve]:
    """A server on this machine: serve(name, body, ...) gives the file to fetch."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bodies: dict[str, tuple[bytes, int]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/data.bin")
                self.end_headers()
                return
            if self.path not in bodies:
                self.send_error(404)
                return
            body, missing = bodies[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - missing])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def add(name: str, body: bytes, missing: int = 0, **known: object) -> PublicFile:
        bodies[f"/{name}"] = body, missing
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        return PublicFile(url, **{"md5": md5, **known})

    yield add
    server.shutdown()
    thread.join()
    server.server_close()


def of(*files: PublicFile) -> PublicSet:
    return PublicSet("A set", "movielens", "https://example.org", "Terms.", files)


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, body in files.items():
            packed.writestr(name, body)
    return out.getvalue()


def tarred(files: dict[str, bytes], link: tuple[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        if link is not None:
            info = tarfile.TarInfo(link[0])
            info.type, info.linkname = tarfile.SYMTYPE, link[1]
            packed.addfile(info)
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            packed.addfile(info, io.BytesIO(body))
    return out.getvalue()


def there(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def silent(_came: int, _all: int) -> None:
    pass


def refused(chosen: PublicSet, tmp_path: Path, message: str) -> None:
    """The fetch fails with this message, says what to do by hand, and leaves nothing."""
    with pytest.raises(DownloadError, match=message) as caught:
        fetch(chosen, tmp_path / "place/out", silent)
    assert f"get {chosen.files[0].url} " in str(caught.value)
    assert "--data" in str(caught.value)
    assert list((tmp_path / "place").iterdir()) == []
    assert there(tmp_path) == {}


def test_plain_files_are_kept_as_they_are_with_progress(serve, tmp_path):
    body = bytes(range(256)) * 10_000
    files = serve("a.gz", body, size=len(body)), serve("b.gz", b"b")
    steps: list[tuple[int, int]] = []
    fetch(of(*files), tmp_path / "out", lambda came, size: steps.append((came, size)))
    assert there(tmp_path / "out") == {"a.gz": body, "b.gz": b"b"}
    assert (len(body), len(body)) in steps
    assert len(steps) > 2


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archives_are_unpacked_without_their_one_top_folder(serve, tmp_path, pack):
    name = "set.zip" if pack is zipped else "set.tar.gz"
    body = pack({"ml-1m/ratings.dat": b"1::2::3::4", "ml-1m/ml-1m/deep.txt": b"deep"})
    fetch(of(serve(name, body)), tmp_path / "out", silent)
    assert there(tmp_path / "out") == {"ratings.dat": b"1::2::3::4", "ml-1m/deep.txt": b"deep"}


def test_what_a_mac_adds_to_an_archive_is_left_out(serve, tmp_path):
    body = zipped({"set/a": b"a", "__MACOSX/set/._a": b"junk"})
    fetch(of(serve("set.zip", body)), tmp_path / "out", silent)
    assert there(tmp_path / "out") == {"a": b"a"}


def test_a_redirect_is_followed(serve, tmp_path):
    there_ = serve("data.bin", b"content")
    moved = PublicFile(there_.url.replace("data.bin", "moved"), there_.md5)
    fetch(of(moved), tmp_path / "out", silent)
    assert there(tmp_path / "out") == {"moved": b"content"}


@pytest.mark.parametrize("kind", ["md5", "sha256", "git_blob"])
def test_a_wrong_checksum_is_refused_and_the_right_one_is_not(serve, tmp_path, kind):
    """Against the sums that md5sum, sha256sum and git hash-object give for the one byte "a"."""
    sums = {
        "md5": ("MD5", "0cc175b9c0f1b6a831c399e269772661"),
        "sha256": (
            "SHA-256",
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        ),
        "git_blob": ("git blob", "2e65efe2a145dda7ee51d1741299f848e5bf752e"),
    }
    name, right = sums[kind]
    wrong = serve("a.bin", b"a", **{"md5": None, kind: "0" * len(right)})
    refused(
        of(wrong), tmp_path, f"has {name} {right}, expected 0000.* it is damaged or has changed"
    )
    fetch(of(serve("a.bin", b"a", **{"md5": None, kind: right})), tmp_path / "out", silent)
    assert there(tmp_path / "out") == {"a.bin": b"a"}


def test_a_wrong_size_is_refused(serve, tmp_path):
    refused(of(serve("a.bin", b"abc", size=4)), tmp_path, "has 3 bytes, expected 4")


def test_a_download_that_breaks_off_is_refused(serve, tmp_path):
    body = b"x" * 5_000_000
    refused(of(serve("a.bin", body, missing=1000, md5=None)), tmp_path, "broke off after")


def test_the_second_files_failure_leaves_nothing_of_the_first(serve, tmp_path):
    refused(of(serve("a", b"a"), serve("b", b"b", md5="0" * 32)), tmp_path, "expected 0000")


def test_a_page_that_is_not_there_is_refused(serve, tmp_path):
    known = serve("a", b"a")
    refused(of(PublicFile(known.url + "x")), tmp_path, "ax answers 404")


def test_a_set_that_only_people_can_get_says_where_and_touches_nothing(tmp_path):
    douban = PUBLIC_SETS["douban"]
    assert not douban.verified()
    with pytest.raises(
        DownloadError, match=r"no file to fetch\. By hand: get .*researchgate\.net"
    ) as e:
        fetch(douban, tmp_path / "out", silent)
    assert "pass that folder with --data (reader: douban)" in str(e.value)
    assert there(tmp_path) == {}


def test_offline_says_what_to_get_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    url = f"http://127.0.0.1:{server.server_port}/a.zip"
    refused(of(PublicFile(url)), tmp_path, r"cannot reach 127\.0\.0\.1: ")


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "..\\escaped"])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_that_leads_out_of_its_folder_is_refused(serve, tmp_path, name, pack):
    file = serve("a.zip" if pack is zipped else "a.tar.gz", pack({"fine": b"1", name: b"evil"}))
    refused(of(file), tmp_path, "which leads out of its folder; nothing was unpacked")


def test_a_link_out_of_an_archive_is_refused(serve, tmp_path):
    body = tarred({"link/evil": b"evil"}, link=("link", str(tmp_path)))
    refused(of(serve("a.tar.gz", body)), tmp_path, "cannot be unpacked")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_damaged_archive_is_refused(serve, tmp_path, name):
    pack = zipped if name == "a.zip" else tarred
    body = pack({"a": bytes(range(256)) * 100})
    refused(of(serve(name, body[: len(body) // 2])), tmp_path, "cannot be unpacked")


def test_an_existing_folder_is_not_touched(serve, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PlaceError, match="exists already"):
        fetch(of(serve("a", b"a")), tmp_path, silent)
    assert there(tmp_path) == {"mine.txt": b"mine"}


# The table


def test_every_public_set_has_a_reader_terms_and_a_wellformed_checksum_or_none():
    names = set(datasets)
    for chosen in PUBLIC_SETS.values():
        assert chosen.reader in names
        assert chosen.terms
        assert chosen.home.startswith("https://")
        assert bool(chosen.files) != bool(chosen.by_hand)
        for file in chosen.files:
            assert file.url.startswith("https://")
            for kind, value in file.checksums().items():
                length = {"MD5": 32, "SHA-256": 64, "git blob": 40}[kind]
                assert re.fullmatch(f"[0-9a-f]{{{length}}}", value)
            assert file.size is None or file.size > 1000
    found = [c for s in PUBLIC_SETS.values() for f in s.files for c in f.checksums().values()]
    assert len(found) == len(set(found))
    unverified = {name for name, chosen in PUBLIC_SETS.items() if not chosen.verified()}
    assert unverified == {"hapt", "douban"}


def test_the_name_that_a_file_gets_is_that_of_its_address():
    (hapt,) = PUBLIC_SETS["hapt"].files
    assert hapt.name.endswith("postural+transitions.zip")


def test_an_unknown_set_lists_those_that_there_are():
    with pytest.raises(UnknownNameError, match=r"'movielens-2m'; there are: .*movielens-1m"):
        public_set("movielens-2m")
