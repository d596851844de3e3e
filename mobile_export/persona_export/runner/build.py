"""Builds the runner into a cache outside the source tree, once for each state of its sources.

An arm64 runner is cross-compiled against the arm64 wheel of the very ExecuTorch that is installed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from persona.durable import staged_folder
from persona_export.runner.toolchain import Machine, RunnerError, check_tools

SOURCES = Path(__file__).parent / "cpp"

_ARM_PLATFORM = "manylinux_2_28_aarch64"
_CPP_PARTS = ("executorch/include/", "executorch/lib/", "executorch/share/")
_CROSS = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
)


def cache_folder() -> Path:
    """Where runners and wheels are kept: `persona/runner` of the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "persona" / "runner"


def build(machine: Machine) -> Path:
    """The runner's executable for a machine, built if it was not yet.

    Raises MissingToolsError, or RunnerError with what the compiler said.
    """
    check_tools(machine)
    package = _installed_package() if machine == "native" else _arm_package()
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    kind = "native" if machine == "native" else "arm64"
    executable = folder / f"persona-runner-{kind}-{_fingerprint(SOURCES, package)}"
    if executable.is_file():
        return executable
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as scratch:
        cross = () if machine == "native" else _CROSS
        prefix = f"-DCMAKE_PREFIX_PATH={package}"
        _run(["cmake", "-S", SOURCES, "-B", scratch, prefix, *cross])
        _run(["cmake", "--build", scratch, "--parallel", "2"])
        (Path(scratch) / "persona-runner").replace(executable)
    return executable


def check_ready(machine: Machine) -> None:
    """Whether the runner can be built from what is on this computer, with nothing fetched.

    Raises RunnerError saying what is missing.
    """
    check_tools(machine)
    if machine != "native" and not _arm_folder().is_dir():
        raise RunnerError(
            f"the {machine} runner cannot be built: ExecuTorch's arm64 libraries are not in "
            f"{_arm_folder()}"
        )


def _fingerprint(sources: Path, package: Path) -> str:
    """Of everything that the executable depends on; `package` is where it finds its libraries."""
    digest = hashlib.sha256(f"{package}\n{_version()}\n".encode())
    for path in sorted(sources.iterdir()):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _version() -> str:
    return metadata.version("executorch")


def _installed_package() -> Path:
    import executorch

    return Path(next(iter(executorch.__path__)))


def _arm_folder() -> Path:
    return cache_folder() / f"executorch-{_version()}-{_ARM_PLATFORM}"


def _arm_package() -> Path:
    """Headers and libraries of the arm64 wheel, fetched with pip as it is configured here."""
    package = _arm_folder()
    if not package.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                  "--only-binary=:all:", f"--platform={_ARM_PLATFORM}", f"--dest={scratch}",
                  f"executorch=={_version()}"])  # fmt: skip
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive, staged_folder(package) as staging:
                names = [name for name in archive.namelist() if name.startswith(_CPP_PARTS)]
                archive.extractall(staging, names)
    return package / "executorch"


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-25:]
        raise RunnerError(
            f"`{' '.join(map(str, command))}` failed with exit code {done.returncode}:\n"
            + "\n".join(said)
        )


def command(machine: Machine) -> list[str | Path]:
    """What begins the command line that runs the runner as on a machine."""
    executable = build(machine)
    if machine == "native":
        return [executable]
    qemu = shutil.which("qemu-aarch64-static")
    assert qemu is not None
    return [qemu, "-cpu", machine, "-L", "/usr/aarch64-linux-gnu", executable]
