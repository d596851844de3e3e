"""A Swift toolchain: the machine's own, or Debian trixie's in a folder of its own.

The folder is made by debootstrap with the machine's own package mirror, and kept. Commands run in
it in a mount namespace of their own, so no mount outlives its command, however it ends.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "ios_demo" / "build"

_RELEASE = "trixie"
_PACKAGES = ("swiftlang", "libssl-dev", "libc6-dev", "libstdc++-14-dev")
_FREE_BYTES = 8 * 10**9
_READY = "swift-is-here"


class NoToolchainError(Exception):
    """Why there is no Swift here; no fault of the sources."""


class CommandError(Exception):
    """A command that failed, with what it said last."""


def _last_lines(text: str, count: int = 30) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def run(line: Sequence[str | Path], extra: Mapping[str, str] | None = None) -> str:
    """What a command says. Raises CommandError where it fails."""
    done = subprocess.run(
        [str(word) for word in line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | dict(extra or {}),
    )
    if done.returncode:
        raise CommandError(f"{shlex.join(map(str, line))[:200]}\n{_last_lines(done.stdout)}")
    return done.stdout


@dataclass(frozen=True)
class Swift:
    """A toolchain. root: the folder that it lives in, or None for the machine's own."""

    root: Path | None

    def run(
        self,
        line: Sequence[str | Path],
        variables: Mapping[str, str] | None = None,
        readable: Sequence[Path] = (),
    ) -> str:
        """Run a command beside the toolchain. It sees the repository and, of what lies outside,
        `readable`; it writes into the build folder only.
        """
        words = [str(word) for word in line]
        if self.root is None:
            return run(words, variables)
        given = [f"{name}={value}" for name, value in (variables or {}).items()]
        inside = ["env", "-i", "HOME=/root", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", *given, *words]
        script = [
            "set -e",
            _bound("/proc", self.root),
            _bound("/dev", self.root),
            *(_bound(path, self.root, "ro") for path in (REPOSITORY, *readable)),
            _bound(BUILD, self.root),
            f"exec chroot {shlex.quote(str(self.root))} {shlex.join(inside)}",
        ]
        return run([*_NAMESPACE, "sh", "-c", "\n".join(script)])


_NAMESPACE = ("unshare", "--mount", "--propagation", "private")


def _bound(path: Path | str, root: Path, options: str = "rw") -> str:
    place = shlex.quote(f"{root}{path}")
    source = shlex.quote(str(path))
    return f"mkdir -p {place}; mount --rbind {source} {place}; " + (
        f"mount -o remount,bind,ro {place}" if options == "ro" else ":"
    )


def find() -> Swift:
    """The machine's Swift 6 or later, else Debian's, which is fetched where it is not there yet.

    Raises NoToolchainError, or CommandError where making it fails.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    if shutil.which("swift"):
        version = re.search(r"Swift version (\d+)", run(["swift", "--version"]))
        if version and int(version[1]) >= 6:
            return Swift(None)
    root = Path(os.environ.get("PERSONA_SWIFT_CHROOT") or BUILD / "swift-chroot").resolve()
    _check_namespace()
    if not (root / _READY).is_file():
        _make(root)
    return Swift(root)


def _check_namespace() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NoToolchainError(
            "no Swift 6 is installed, and fetching Debian's needs root on Linux: install Swift "
            "from swift.org, or run this as root"
        )
    if shutil.which("unshare") is None or subprocess.run([*_NAMESPACE, "true"]).returncode:
        raise NoToolchainError("no Swift 6 is installed, and mount namespaces are not allowed here")


def _make(root: Path) -> None:
    """Debian's toolchain in `root`, whole or not at all."""
    root.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root.parent).free
    if free < _FREE_BYTES:
        raise NoToolchainError(
            f"Debian's Swift needs {_FREE_BYTES / 1e9:.0f} GB in {root.parent}, {free / 1e9:.1f} "
            "are free"
        )
    if shutil.which("apt-get") is None:
        raise NoToolchainError("no Swift 6 is installed, and this machine has no apt-get")
    if shutil.which("debootstrap") is None or not _mirrors():
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        try:
            run(["apt-get", "update", "-qq"], quiet)
            run(["apt-get", "install", "-y", "-qq", "debootstrap"], quiet)
        except CommandError as error:
            raise NoToolchainError(f"debootstrap cannot be installed: {error}") from None
    mirrors = _mirrors()
    if not mirrors:
        raise NoToolchainError("this machine's package sources name no mirror of Debian")
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        run([*_NAMESPACE, "debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}",
             _RELEASE, partial, mirrors[0]])  # fmt: skip
    except CommandError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise NoToolchainError(f"Debian's Swift cannot be fetched: {error}") from None
    shutil.rmtree(partial / "var" / "cache" / "apt", ignore_errors=True)
    (partial / _READY).touch()
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)


def _mirrors() -> list[str]:
    """Addresses of Debian's own archive, from the machine's package sources."""
    try:
        lines = run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"])
    except CommandError:
        return []
    found = [line.split("|", 2) for line in lines.splitlines()]
    return sorted({uri for origin, label, uri in found if origin == label == "Debian"})
