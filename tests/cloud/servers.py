"""Real PostgreSQL and Redis for tests: Debian's packages, run without privileges in a folder."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

_INSTALL_SECONDS = 240
_START_SECONDS = 60.0


def installed(name: str, package: str) -> str:
    """Path of a server program, installed from Debian where that can be done."""
    found = _found(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update", "-q"], ["install", "-y", "-q", package]):
            subprocess.run(
                ["apt-get", *command],
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                timeout=_INSTALL_SECONDS,
                capture_output=True,
                check=False,
            )
        found = _found(name)
    if found is None:
        pytest.skip(f"NOT TESTED with {package}: install Debian's package {package}")
    return found


def _found(name: str) -> str | None:
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(debian[-1]) if debian else shutil.which(name)


def _as_nobody() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


@contextmanager
def data_folder() -> Iterator[Path]:
    """For PostgreSQL: not below pytest's folders, which each new session of it closes to others."""
    with TemporaryDirectory(prefix="persona-postgresql-") as name:
        yield Path(name)


@contextmanager
def postgresql(folder: Path, port: int) -> Iterator[str]:
    """A server of its own; yields the URL of its database `postgres`.

    Started again with the same folder and port, it has what it had.
    """
    initdb, postgres = (installed(name, "postgresql") for name in ("initdb", "postgres"))
    folder.chmod(0o777)
    _open_parents(folder)
    data, who = folder / "data", _as_nobody()
    place = {"cwd": folder, "env": os.environ | {"HOME": str(folder)}, **who}
    if not data.exists():
        options = ["-U", "persona", "-A", "trust", "-N", "-E", "UTF8", "--locale", "C"]
        subprocess.run([initdb, "-D", data, *options], check=True, capture_output=True, **place)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": 200,
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([postgres, "-D", data, *options], stderr=log, **place) as server,
    ):
        try:
            _wait_for(port, server, folder / "log")
            yield f"postgresql://persona@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(3)  # SIGQUIT: at once
            server.wait(10)


@contextmanager
def redis(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A server of its own; yields its URL and its process."""
    program, port = installed("redis-server", "redis-server"), free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with (
        (folder / "redis.log").open("wb") as log,
        subprocess.Popen(command, stdout=log) as server,
    ):
        try:
            _wait_for(port, server, folder / "redis.log")
            yield f"redis://127.0.0.1:{port}", server
        finally:
            server.kill()


def _open_parents(folder: Path) -> None:
    """Temporary folders may be for their owner only; another user must be able to pass through."""
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"a server did not start: {log.read_text()}")
