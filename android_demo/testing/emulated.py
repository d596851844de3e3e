"""The same path on an arm64 phone's instruction set: an arm64 Java under qemu, the arm64 wheel's
own kernels under the same shim. Emulated times mean nothing and are not shown.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import samples
from compilers import compile_kotlin, compile_shim
from toolchain import BUILD, PROJECT, fresh, install, kotlin_library, run, unpacked

_CPU = "cortex-a76"
"""Named, because qemu's `-cpu max` gives wrong 8-bit results."""

_SYSTEM = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g")
_JAVA = "openjdk-17-jre-headless"
_PARITY = 1e-5


def on_arm64(name: str, class_path: Sequence[Path]) -> str:
    """A bundle made on this processor, run as on an arm64 phone, held against PyTorch."""
    from persona_export.runner.build import _arm_package

    qemu = install("qemu-aarch64-static", "qemu-user-static")
    java = _root(_JAVA) / "usr/lib/jvm/java-17-openjdk-arm64/bin/java"
    shim = compile_shim(_arm_package(), "shim-arm64", "aarch64-linux-gnu-g++")
    checks = [PROJECT / "testing/kotlin/dev/persona/checks/DevicePath.kt"]
    path = [compile_kotlin("device-path", checks, class_path), *class_path, kotlin_library()]
    home = fresh(BUILD / "homes" / f"{name}-arm64")
    outputs = home / "outputs.safetensors"
    with samples.serving(name) as url:
        place = samples.folder(name)
        run([
            qemu, "-cpu", _CPU, "-L", _system(), java, "-Xmx600m", "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1", f"-Dpersona.shim={shim}",
            "-cp", ":".join(map(str, path)), "dev.persona.checks.DevicePathKt",
            place / "bundle", place / "window.safetensors", url, samples.publisher_key(name),
            home, outputs,
        ])  # fmt: skip
    edit = (home / "edit.safetensors").read_bytes()
    return f"{_CPU}: " + samples.compared(name, outputs.read_bytes(), edit, _PARITY)


def _root(package: str) -> Path:
    return unpacked(package, "bookworm", "arm64")


def _system() -> Path:
    """What a program finds below / on an arm64 machine: the system's libraries, merged."""
    place = fresh(BUILD / "arm64-system")
    for package in _SYSTEM:
        shutil.copytree(_root(package), place, symlinks=True, dirs_exist_ok=True)
    return place
