"""Files and folders that are there whole or not at all, also after Ctrl-C or a power cut."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


class PlaceError(OSError):
    """A path that cannot be written to; the message says why and what to do."""


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data`: a reader sees the old bytes or the new, never a mixture.

    Raises PlaceError where that cannot be, as on a full disk; then the old bytes are still there.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        raise PlaceError(
            f"cannot write {path}: {error.strerror}; free some space or choose another place"
        ) from None


def check_place(out: Path, replaces: Collection[str] = ()) -> None:
    """Whether a new folder can be made at `out`. Raises PlaceError before any work is done.

    replaces: a folder that holds exactly these entries is an older result, and may go.
    """
    if out.resolve() == Path.cwd():
        raise PlaceError("the current folder cannot be replaced; name a new folder in it")
    older = out.is_dir() and {path.name for path in out.iterdir()} == set(replaces)
    if out.exists() and not older and (not out.is_dir() or any(out.iterdir())):
        raise PlaceError(f"{out} exists already; choose another place or remove it first")
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    try:
        Path(tempfile.mkdtemp(dir=parent, prefix=f".{out.name}.")).rmdir()
    except OSError as error:
        raise PlaceError(
            f"cannot write in {parent}: {error.strerror}; choose another place for {out.name}"
        ) from None


@contextmanager
def staged_folder(out: Path, replaces: Collection[str] = ()) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when all is done, and vanishes otherwise.

    replaces: see `check_place`; the older folder goes only when the new one is complete.
    """
    check_place(out, replaces)
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}.partial-"))
    except OSError as error:
        raise PlaceError(f"cannot write beside {out}: {error.strerror}") from None
    older = staging.with_name(f"{staging.name}-older")
    try:
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                _sync(path)
        staging.chmod(0o755)
        if out.exists():
            out.rename(older)
        staging.rename(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if older.exists() and not out.exists():
            older.rename(out)
        raise
    shutil.rmtree(older, ignore_errors=True)
    _sync(out.absolute().parent)
