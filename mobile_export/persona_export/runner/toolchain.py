"""The machines that the runner runs on, and the system packages that each of them needs.

The arm64 ones are emulated by qemu, with the CPU named: its `-cpu max` gives wrong 8-bit results.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

Machine = Literal["native", "cortex-a53", "cortex-a76"]

MACHINES: tuple[Machine, ...] = get_args(Machine)
"""This processor, and two cores of arm64 phones: without and with dot products and fp16."""

_BUILD = {"cmake": "cmake", "make": "make"}
_NATIVE: Mapping[str, str] = {**_BUILD, "g++": "g++"}
_ARM: Mapping[str, str] = {
    **_BUILD,
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "qemu-aarch64-static": "qemu-user-static",
}
_JSON = "nlohmann-json3-dev"


class RunnerError(RuntimeError):
    """The runner cannot be built, or cannot read or run a bundle; the message says why."""


class MissingToolsError(RunnerError):
    """System packages are needed that are not installed. `packages`: Debian's names of them."""

    def __init__(self, machine: Machine, packages: tuple[str, ...], why: str) -> None:
        self.packages = packages
        super().__init__(
            f"the {machine} runner cannot be built: {why}; install {' '.join(packages)} "
            "(Debian's names), and run this again"
        )


def missing_packages(machine: Machine) -> tuple[str, ...]:
    """Debian packages that the runner of a machine still needs here."""
    programs = _NATIVE if machine == "native" else _ARM
    missing = [package for program, package in programs.items() if shutil.which(program) is None]
    headers = (Path(root) / "include/nlohmann/json.hpp" for root in ("/usr", "/usr/local"))
    if not any(header.is_file() for header in headers):
        missing.append(_JSON)
    return tuple(missing)


def check_tools(machine: Machine) -> None:
    """Raises MissingToolsError naming the packages, and installs nothing."""
    missing = missing_packages(machine)
    if missing:
        raise MissingToolsError(machine, missing, "tools are missing")


def install_tools(machine: Machine) -> None:
    """Install with apt-get what is missing. Raises MissingToolsError where that cannot be done."""
    missing = missing_packages(machine)
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingToolsError(
            machine, missing, "tools are missing, and only root may install them"
        )
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        done = subprocess.run([*apt, *command], env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise MissingToolsError(machine, missing, f"apt-get {command[0]} failed ({reason})")
    check_tools(machine)
