"""`make android`: everything of the Android demo that can be proven without a phone.

Each rung prints one line: passed, FAILED with what the tool said, or SKIPPED with the reason why
it cannot run here. A skipped rung is never a passed one. `--full` adds what takes long: the same
path on an emulated arm64 phone processor, and an APK, signed and verified.

Ends with 0 if no rung failed, 1 if one did. Needs Persona's own environment to run in.
"""

import argparse
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import samples
from compilers import JAVA_8, compile_java, compile_kotlin, compile_shim, sources
from resources import link
from toolchain import (
    BUILD,
    KOTLIN,
    PROJECT,
    REPOSITORY,
    BrokenError,
    MissingError,
    android_jar,
    fresh,
    install,
    java_home,
    junit,
    kotlin,
    kotlin_library,
    run,
)

CORE = PROJECT / "core/src"
APP = PROJECT / "app/src/main/kotlin/dev/persona/demo"
TESTING = PROJECT / "testing"
FLAVOURS = ("cpu", "vulkan", "qnn")
TEST_JARS: dict[str, Callable[[], tuple[Path, ...]]] = {
    "org.junit.jupiter:junit-jupiter": junit,
    "org.junit.platform:junit-platform-launcher": junit,
    "org.jetbrains.kotlin:kotlin-test-junit5": lambda: (
        kotlin_library("kotlin-test"),
        kotlin_library("kotlin-test-junit5"),
    ),
}
"""The jars at hand for each library that Gradle may give the tests, with what it brings along."""

PARITY = 1e-5
"""Largest difference from eager PyTorch, relative to max(1, largest output)."""


def kotlin_compiler() -> str:
    """The toolchain itself."""
    said = run([java_home() / "bin/java", "-version"]).splitlines()[0]
    return f"{kotlin().name}, {said}"


@cache
def core() -> Path:
    """The library's classes, for Java 8 as Android 8 has it."""
    return compile_kotlin("core", sources(CORE / "main/kotlin"))


def test_jars() -> list[Path]:
    """Jars of what Gradle's own files declare for the tests of core, and no others."""
    catalogue = tomllib.loads((PROJECT / "gradle/libs.versions.toml").read_text())
    if catalogue["versions"]["kotlin"] != KOTLIN:
        raise BrokenError(f"Gradle has Kotlin {catalogue['versions']['kotlin']}, not {KOTLIN}")
    declared = (PROJECT / "core/build.gradle.kts").read_text()
    names = re.findall(r"^ +test(?:Implementation|RuntimeOnly)\(libs\.([\w.]+)\)", declared, re.M)
    jars: dict[Path, None] = {}
    for name in names:
        module = catalogue["libraries"][name.replace(".", "-")]["module"]
        if module not in TEST_JARS:
            raise BrokenError(f"core's tests declare {module}; say in TEST_JARS which jar it is")
        jars.update(dict.fromkeys(TEST_JARS[module]()))
    return [jar for jar in jars if jar.is_file()]


def core_tests() -> str:
    """The library compiles for Android 8's Java, and its JUnit tests pass."""
    tests = sources(CORE / "test/kotlin")
    jars = test_jars()
    flags = (*JAVA_8, f"-Xfriend-paths={core()}")
    classes = compile_kotlin("core-tests", tests, [core(), *jars], flags=flags)
    path = [core(), classes, kotlin_library(), *jars]
    said = run(
        [
            java_home() / "bin/java", "-Xmx1g", "-cp", ":".join(map(str, path)),
            f"-Dpersona.conformance={REPOSITORY / 'tests/conformance'}",
            "org.junit.platform.console.ConsoleLauncher", "--scan-classpath", str(classes),
            "--disable-banner", "--details=summary", "--fail-if-no-tests",
        ],
        cwd=PROJECT / "core",
    )  # fmt: skip
    counted = [line.strip(" []") for line in said.splitlines() if "tests successful" in line]
    return counted[0] if counted else "no count was printed"


@cache
def runtime() -> tuple[Path, Path]:
    """Classes of the stand-in for org.pytorch.executorch, and the shim under it."""
    import executorch

    stand_in = compile_kotlin("standin", sources(TESTING / "standin"), flags=JAVA_8)
    return stand_in, compile_shim(Path(next(iter(executorch.__path__))))


@cache
def session() -> list[Path]:
    """Class path of the app's parts that know nothing of Android."""
    stand_in, _ = runtime()
    files = sources(APP / "session", APP / "runtime")
    return [compile_kotlin("session", files, [core(), stand_in]), core(), stand_in]


def shim() -> str:
    """The stand-in, the shim on the real runtime, and the app's engine compile."""
    session()
    return f"libpersona_shim.so {runtime()[1].stat().st_size // 1024} kB, engine and session"


def java(shim_library: Path, path: Sequence[Path], main: str, *arguments: object) -> str:
    """Run a main function of the checks."""
    return run([
        java_home() / "bin/java", "-Xmx600m", "-Djava.awt.headless=true",
        f"-Dpersona.shim={shim_library}", "-cp", ":".join(map(str, [*path, kotlin_library()])),
        f"dev.persona.checks.{main}Kt", *map(str, arguments),
    ])  # fmt: skip


def device_path(name: str) -> str:
    """A bundle made now, a real `persona serve`, the app's engine on the real runtime."""
    path = session()
    checks = [TESTING / "kotlin/dev/persona/checks/DevicePath.kt"]
    path = [compile_kotlin("device-path", checks, path), *path]
    home = fresh(BUILD / "homes" / name)
    outputs = home / "outputs.safetensors"
    with samples.serving(name) as url:
        place, key = samples.folder(name), samples.publisher_key(name)
        given = (place / "bundle", place / "window.safetensors", url, key)
        java(runtime()[1], path, "DevicePath", *given, home, outputs)
    edit = home / "edit.safetensors"
    return samples.compared(name, outputs.read_bytes(), edit.read_bytes(), PARITY)


@cache
def app_classes(flavour: str = "cpu") -> list[Path]:
    """Class path of the whole app with a flavour, against Android's own classes."""
    stand_in, _ = runtime()
    platform = android_jar()
    generated = compile_java("R", sources(link(flavour).java, suffix=".java"), [platform])
    older = compile_java("newer-stub", sources(TESTING / "newer", suffix=".java"), [platform])
    newer = compile_kotlin("newer", [APP / "NewerAndroid.kt"], [older, platform])
    files = [file for file in sources(APP) if file.name != "NewerAndroid.kt"]
    files += sources(PROJECT / f"app/src/{flavour}/kotlin")
    path = [core(), stand_in, generated, newer]
    return [compile_kotlin(f"app-{flavour}", files, [*path, platform]), *path]


def app() -> str:
    """Resources link, and every source of the app compiles against Android's android.jar."""
    app_classes()
    count = len(sources(APP))
    left_out = ", ".join(link("cpu").left_out)
    return f"{count} sources against API 23 (without {left_out}, which it does not know)"


def flavours() -> str:
    """The flavours that the app was not compiled with compile, too."""
    platform = android_jar()
    for flavour in FLAVOURS[1:]:
        files = sources(PROJECT / f"app/src/{flavour}/kotlin")
        compile_kotlin(f"flavour-{flavour}", files, [platform])
    return ", ".join(FLAVOURS[1:])


def screens() -> str:
    """The app's own session through its states, and a picture of each screen."""
    install("/usr/share/fonts/truetype/roboto", "fonts-roboto-unhinted")
    path = app_classes()
    names = ("Addresses", "AwtPainter", "DesktopPhone", "Headless", "Screens")
    files = [TESTING / f"kotlin/dev/persona/checks/{name}.kt" for name in names]
    flags = ("-jvm-target", "17")
    path = [compile_kotlin("screens", files, path, flags=flags), *path]
    pictures = fresh(BUILD / "pictures")
    with samples.serving("images") as images, samples.serving("items") as items:
        key = samples.publisher_key("images")
        strings = PROJECT / "app/src/main/res/values/strings.xml"
        home = fresh(BUILD / "homes" / "screens")
        java(runtime()[1], path, "Screens", images, items, key, strings, home, pictures)
    count = len(list(pictures.glob("*.png")))
    return f"{count} pictures in {pictures.relative_to(PROJECT)}"


Rung = tuple[str, Callable[[], str]]

RUNGS: tuple[Rung, ...] = (
    ("Kotlin compiler", kotlin_compiler),
    ("core: JUnit", core_tests),
    ("runtime shim and engine", shim),
    ("app against android.jar", app),
    ("other flavours", flavours),
    ("images: phone and cloud", lambda: device_path("images")),
    ("SASRec: phone and cloud", lambda: device_path("items")),
    ("screens", screens),
)


def full() -> tuple[Rung, ...]:
    """Rungs that take long."""
    from apk import signed_apk
    from emulated import on_arm64

    return (
        ("APK, signed", lambda: signed_apk(app_classes())),
        ("arm64: images", lambda: on_arm64("images", session())),
        ("arm64: SASRec", lambda: on_arm64("items", session())),
    )


def climb(rungs: Sequence[Rung]) -> int:
    """Run the rungs in turn. The number of those that failed."""
    counts = {"passed": 0, "FAILED": 0, "SKIPPED": 0}
    for name, rung in rungs:
        start = time.monotonic()
        try:
            verdict, said = "passed", rung()
        except MissingError as reason:
            verdict, said = "SKIPPED", str(reason)
        except BrokenError as error:
            verdict, said = "FAILED", str(error)
        counts[verdict] += 1
        seconds = time.monotonic() - start
        print(f"{verdict:8}{name:26}{seconds:5.0f} s  {said}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return counts["FAILED"]


def main() -> int:
    """0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also the APK and emulated arm64")
    parser.add_argument("--only", metavar="TEXT", help="rungs whose name holds this")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    making = samples.start()
    rungs = list(RUNGS) + list(full() if arguments.full else ())
    waiting = ("sample bundles", lambda: samples.wait(making))
    rungs.insert(5, waiting)
    if arguments.only:
        rungs = [rung for rung in rungs if arguments.only in rung[0] or rung is waiting]
    return 1 if climb(rungs) else 0


if __name__ == "__main__":
    sys.exit(main())
