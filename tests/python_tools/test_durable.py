"""Files and folders are there whole or not at all, whatever happens while they are written."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from persona.durable import PlaceError, check_place, staged_folder, write_atomic


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_with_the_mode_asked_for(tmp_path):
    path = tmp_path / "note"
    write_atomic(path, b"old")
    write_atomic(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert listing(tmp_path) == ["note"]


@pytest.mark.parametrize("trouble", [OSError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path, monkeypatch, trouble
):
    path = tmp_path / "note"
    write_atomic(path, b"old")

    def fail(_descriptor: int) -> None:
        raise trouble

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(trouble):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert listing(tmp_path) == ["note"]


def test_a_reader_sees_the_old_bytes_or_the_new_and_never_a_mixture(tmp_path):
    path = tmp_path / "note"
    versions = [bytes([value]) * 200_000 for value in b"ab"]
    write_atomic(path, versions[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(40):
            write_atomic(path, versions[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_bytes())
    writer.join()
    assert seen <= set(versions)


def test_a_folder_appears_when_all_is_done(tmp_path):
    out = tmp_path / "deep" / "out"
    with staged_folder(out) as staging:
        (staging / "part").mkdir()
        (staging / "part" / "file").write_text("content")
        assert not out.exists()
        assert staging.parent == out.parent
        assert staging.name.startswith(".out.partial-")
    assert (out / "part" / "file").read_text() == "content"
    assert listing(out.parent) == ["out"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o755


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interruption_leaves_nothing(tmp_path, trouble):
    def write() -> None:
        with staged_folder(tmp_path / "out") as staging:
            (staging / "file").write_text("half")
            raise trouble

    with pytest.raises(trouble):
        write()
    assert listing(tmp_path) == []


def test_a_disk_that_fails_at_the_last_moment_leaves_nothing(tmp_path, monkeypatch):
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def write() -> None:
        with staged_folder(tmp_path / "out") as staging:
            (staging / "file").write_text("whole")
            monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(OSError, match="No space left"):
        write()
    assert listing(tmp_path) == []


def test_what_exists_is_not_overwritten(tmp_path):
    full, file, empty = (tmp_path / name for name in ("full", "file", "empty"))
    full.mkdir()
    (full / "work").write_text("of weeks")
    file.write_text("also")
    empty.mkdir()
    for out in (full, file):
        with pytest.raises(PlaceError, match="exists already; choose another place or remove"):
            check_place(out)
        with pytest.raises(PlaceError), staged_folder(out):
            pytest.fail("the work began")
    with staged_folder(empty) as staging:
        (staging / "new").write_text("")
    assert listing(empty) == ["new"]
    assert (full / "work").read_text() == "of weeks"


OLDER = ("results.json", "chart")


def older(path: Path) -> Path:
    path.mkdir()
    (path / "results.json").write_text("old")
    (path / "chart").write_text("old")
    return path


def test_an_older_result_is_replaced_as_a_whole(tmp_path):
    out = older(tmp_path / "out")
    with staged_folder(out, replaces=OLDER) as staging:
        (staging / "results.json").write_text("new")
        assert (out / "results.json").read_text() == "old"
    assert listing(out) == ["results.json"]
    assert (out / "results.json").read_text() == "new"


def test_an_older_result_stays_when_the_new_one_fails(tmp_path):
    out = older(tmp_path / "out")

    def write() -> None:
        with staged_folder(out, replaces=OLDER):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert listing(out) == ["chart", "results.json"]
    assert listing(tmp_path) == ["out"]


def test_an_older_result_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    out, rename = older(tmp_path / "out"), Path.rename

    def fail(path: Path, target: Path) -> Path:
        if (path / "new").exists():
            raise OSError(5, "Input/output error")
        return rename(path, target)

    def write() -> None:
        with staged_folder(out, replaces=OLDER) as staging:
            (staging / "new").write_text("")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        write()
    assert listing(out) == ["chart", "results.json"]
    assert listing(tmp_path) == ["out"]


def test_a_folder_that_is_no_older_result_is_not_replaced(tmp_path):
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday").write_text("")
    for name in OLDER:
        (out / name).write_text("")
    with pytest.raises(PlaceError, match="exists already"):
        check_place(out, replaces=OLDER)


def test_asking_leaves_no_trace(tmp_path):
    check_place(tmp_path / "one" / "two" / "out")
    assert listing(tmp_path) == []


def test_where_nobody_can_write_the_message_says_so_before_any_work():
    """Not even root makes a folder under /proc."""
    if not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    for out in (Path("/proc/out"), Path("/proc/self/deep/out")):
        with pytest.raises(PlaceError, match=r"cannot write in /proc.*choose another place"):
            check_place(out)
        with pytest.raises(PlaceError), staged_folder(out):
            pytest.fail("the work began")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_without_permission_the_message_says_so_before_any_work(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(PlaceError, match=r"cannot write in .*locked: Permission denied"):
        check_place(locked / "out")


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match="file"), staged_folder(tmp_path / "file" / "out"):
        pytest.fail("the work began")


KILLED = """
import sys, time
from pathlib import Path
from persona.durable import staged_folder
with staged_folder(Path(sys.argv[1])) as staging:
    (staging / "run.json").write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_only_a_hidden_partial_folder(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, out], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (left,) = listing(tmp_path)
    assert left.startswith(".out.partial-")
    with staged_folder(out) as staging:
        (staging / "file").write_text("whole")
    assert listing(out) == ["file"], "and does not stand in the way"
