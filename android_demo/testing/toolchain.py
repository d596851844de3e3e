"""Where compilers and Android's platform come from, and the proof that they are the right ones.

The Kotlin compiler is the official one in npm's package `kotlin-compiler`, pinned with its sha512.
JUnit, aapt2, signing tools and fonts are Debian's, installed with apt-get; Android's platform for
API 23 and dx are in Debian's release before this one, and are fetched and unpacked, not installed.
Mirrors are those of this machine's own configuration. Everything lands in `android_demo/build`.
"""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
REPOSITORY = PROJECT.parent
BUILD = PROJECT / "build" / "testing"

KOTLIN = "2.4.20"
_KOTLIN_SHA512 = (
    "IF5IVM7LpPhA/ntHQQpaVt1yxpaaQovtEVYLyqWMuaLr0XelLPPm7/sM6HLhtcRjjjoSsK7I7lP2kzYJkMy73w=="
)
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_JARS = Path("/usr/share/java")
_JUNIT = (
    "junit-jupiter-api", "junit-jupiter-engine", "junit-jupiter-params", "junit-platform-commons",
    "junit-platform-console", "junit-platform-engine", "junit-platform-launcher",
    "junit-platform-reporting", "opentest4j", "opentest4j-reporting-events",
    "opentest4j-reporting-schema", "apiguardian-api", "picocli", "univocity-parsers",
)  # fmt: skip


class MissingError(Exception):
    """What a rung needs and cannot have here. The rung is skipped, and says so."""


class BrokenError(Exception):
    """A check that failed; the message is what the person needs to see."""


def run(command: Sequence[str | Path], **options: object) -> str:
    """What a command prints. Raises BrokenError with the end of its output where it fails."""
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode:
        end = "\n".join(done.stdout.strip().splitlines()[-40:])
        raise BrokenError(f"`{Path(command[0]).name}` ended with {done.returncode}:\n{end}")
    return str(done.stdout)


@cache
def install(program: str, package: str) -> Path:
    """A program or file of a Debian package, installed first where it is missing."""

    def found() -> Path | None:
        if "/" in program:
            return Path(program) if Path(program).exists() else None
        path = shutil.which(program)
        return Path(path) if path else None

    there = found()
    if there is not None:
        return there
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingError(f"needs {package} (Debian's name), and only root may install it")
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        _update_lists()
        run([*apt, "install", "--yes", "--no-install-recommends", package], env=quiet)
    except BrokenError as error:
        raise MissingError(f"apt-get cannot install {package}: {_last_line(error)}") from None
    there = found()
    if there is None:
        raise MissingError(f"{package} is installed, and yet there is no {program}")
    return there


@cache
def _update_lists() -> None:
    run(["apt-get", "-qq", "update"])


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


@cache
def java_home() -> Path:
    """A JDK of 17 or newer, with javac and JNI's headers."""
    install("javac", "openjdk-17-jdk-headless")
    home = Path(shutil.which("javac") or "").resolve().parent.parent
    if not (home / "include" / "jni.h").is_file():
        raise MissingError(f"needs a JDK with jni.h; {home} has none")
    return home


@cache
def kotlin() -> Path:
    """The folder of the Kotlin compiler; fetched once, and only taken with the right digest."""
    java_home()
    folder = BUILD / f"kotlin-{KOTLIN}"
    if not folder.is_dir():
        archive = _fetch_kotlin()
        staging = BUILD / "kotlin.unpacking"
        shutil.rmtree(staging, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(staging, filter="data")
        (staging / "package").rename(folder)
        shutil.rmtree(staging)
        archive.unlink()
    return folder


def _fetch_kotlin() -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    npm = install("npm", "npm")
    try:
        run([npm, "pack", "--silent", f"kotlin-compiler@{KOTLIN}"], cwd=BUILD)
    except BrokenError as error:
        raise MissingError(f"npm cannot fetch kotlin-compiler: {_last_line(error)}") from None
    archive = BUILD / f"kotlin-compiler-{KOTLIN}.tgz"
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != _KOTLIN_SHA512:
        archive.unlink()
        raise BrokenError(f"kotlin-compiler {KOTLIN} has sha512 {digest}, not {_KOTLIN_SHA512}")
    return archive


def kotlin_library(name: str = "kotlin-stdlib") -> Path:
    """A jar that comes with the compiler."""
    return kotlin() / "lib" / f"{name}.jar"


@cache
def junit() -> tuple[Path, ...]:
    """JUnit 5 with its console launcher."""
    install(str(_JARS / "junit-platform-console.jar"), "junit5")
    return tuple(_JARS / f"{name}.jar" for name in _JUNIT)


@cache
def aapt2() -> Path:
    """Android's resource compiler."""
    return install("aapt2", "aapt")


def android_jar() -> Path:
    """The classes of Android's API 23, with its resources."""
    return unpacked("libandroid-23-java") / "usr/share/java/com.android.android-23.jar"


def dx() -> Path:
    """The compiler from class files to Dalvik's."""
    return unpacked("dalvik-exchange") / "usr/share/java/com.android.dx-10.0.0.jar"


@cache
def unpacked(package: str, release: str = "bullseye", architecture: str = "amd64") -> Path:
    """A Debian package of any release and processor, unpacked into a folder. Needs no root."""
    folder = BUILD / f"{package}-{architecture}"
    if folder.is_dir():
        return folder
    place = BUILD / f"apt-{release}-{architecture}"
    for needed in ("lists/partial", "cache/archives/partial"):
        (place / needed).mkdir(parents=True, exist_ok=True)
    source = f"deb [signed-by={_KEYRING}] {_mirror()} {release} main\n"
    (place / "sources.list").write_text(source)
    apt = [
        "-qq",
        f"-oAPT::Architecture={architecture}",
        f"-oAPT::Architectures={architecture}",
        f"-oDir::Etc::SourceList={place}/sources.list",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={place}/lists",
        f"-oDir::Cache={place}/cache",
    ]
    try:
        if not any((place / "lists").glob("*Packages*")):
            run(["apt-get", *apt, "update"], cwd=place)
        run(["apt-get", *apt, "download", package], cwd=place)
    except (BrokenError, FileNotFoundError) as error:
        raise MissingError(f"apt-get cannot fetch {package}: {_last_line(error)}") from None
    (archive,) = place.glob(f"{package}_*.deb")
    staging = BUILD / f"{package}-{architecture}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    run(["dpkg-deb", "-x", archive, staging])
    _point_inwards(staging)
    staging.rename(folder)
    return folder


def _point_inwards(folder: Path) -> None:
    """Make links to absolute paths lead to what the package itself has there."""
    for link in [path for path in folder.rglob("*") if path.is_symlink()]:
        leads_to = link.readlink()
        inside = folder / str(leads_to).lstrip("/")
        if leads_to.is_absolute() and inside.exists():
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))


def _mirror() -> str:
    """The address of Debian's main archive in this machine's apt configuration."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in files:
        text = file.read_text(errors="replace") if file.is_file() else ""
        found = re.search(r"^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s+)?)(\S+/debian)/?\s", text, re.M)
        if found:
            return found[1]
    raise MissingError("apt's configuration names no Debian mirror")


def fresh(folder: Path) -> Path:
    """An empty folder, whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def fingerprint(inputs: Mapping[str, object], files: Sequence[Path]) -> str:
    """Of everything that an output is made from."""
    digest = hashlib.sha256(repr(sorted(inputs.items())).encode())
    for file in sorted(files):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
