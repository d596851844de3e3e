"""`make ios`: everything of the iOS demo that can be proven without a Mac.

Each rung prints one line: passed, FAILED with what the tool said, or SKIPPED with the reason why it
cannot run here. A skipped rung is never a passed one.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import samples
from toolchain import BUILD, REPOSITORY, CommandError, NoToolchainError, Swift, find, run

IOS = REPOSITORY / "ios_demo"
TESTING = IOS / "testing"
KIT = IOS / "PersonaKit"
RUNTIME = TESTING / "RuntimeTests"
LOGIC = IOS / "PersonaDemo" / "Logic"
OBSERVATION_LINK = ("-Xlinker", "--allow-shlib-undefined")
"""Debian's libswiftObservation.so leaves a symbol open that it never calls."""


class SkippedError(Exception):
    """Why a rung cannot run here."""


def sources(*places: Path) -> list[Path]:
    """Swift files, without what is built."""
    found: set[Path] = set()
    for place in places:
        for folder, folders, files in os.walk(place):
            folders[:] = [name for name in folders if Path(folder, name) != BUILD]
            found |= {Path(folder, name) for name in files if name.endswith(".swift")}
    return sorted(found)


# Without a toolchain


def every_source_parses() -> str:
    import tree_sitter
    import tree_sitter_swift

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    files = sources(IOS)
    faults = [fault for file in files for fault in _faults(file, parser.parse(file.read_bytes()))]
    if faults:
        raise CommandError("\n".join(faults))
    return f"{len(files)} files"


def _faults(file: Path, tree: object) -> Iterator[str]:
    stack = [tree.root_node]  # type: ignore[attr-defined]
    while stack:
        node = stack.pop()
        if node.type == "ERROR" or node.is_missing:
            row, column = node.start_point
            yield f"{file.relative_to(REPOSITORY)}:{row + 1}:{column + 1}: cannot be parsed"
        else:
            stack += [child for child in node.children if child.has_error or child.is_missing]


def the_project_file_is_whole() -> str:
    lines = run([sys.executable, TESTING / "project_file.py"]).strip().splitlines()
    return lines[-1] if lines else ""


# With a toolchain


def _package(command: str, package: Path, *options: str | Path) -> list[str | Path]:
    folder = _built(package)
    return ["swift", command, "--package-path", package, "--scratch-path", folder, *options]


def _built(package: Path) -> Path:
    """Where a package is built. SwiftPM does not see which files came or went in another package
    that it builds upon, so it begins anew when any did.
    """
    folder = BUILD / "swift" / package.name
    listed = folder / "sources"
    now = "\n".join(map(str, sources(KIT, package)))
    if not listed.is_file() or listed.read_text() != now:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        listed.write_text(now)
    return folder


def _tests(said: str) -> str:
    """How many tests passed, from what `swift test` says."""
    found = re.findall(r"Test run with (\d+) tests? passed", said)
    found += re.findall(r"Executed (\d+) tests?, with 0 failures", said)
    count = sum(map(int, found))
    if not count:
        raise CommandError(f"no test ran:\n{said[-2000:]}")
    return f"{count} tests"


def personakit_builds_without_warnings(swift: Swift) -> str:
    swift.run(_package("build", KIT, "--build-tests", "-Xswiftc", "-warnings-as-errors"))
    return "Swift 6 language mode"


def personakit_passes_its_tests(swift: Swift) -> str:
    pictures = BUILD / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    line = _package("test", KIT, "-Xswiftc", "-warnings-as-errors")
    return _tests(swift.run(line, {"PERSONA_PICTURES": str(pictures)}))


def the_charts_are_drawn(_: Swift) -> str:
    """The library's draw lists as PNG, for people to look at."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SkippedError("there is no Chromium, which makes PNG of the SVG in build/pictures")
    drawings = sorted((BUILD / "pictures").glob("*.svg"))
    for drawing in drawings:
        size = re.findall(r'(?:width|height)="(\d+)', drawing.read_text()[:200])[:2]
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        shape = ["--force-device-scale-factor=2", f"--window-size={','.join(size)}"]
        picture = drawing.with_suffix(".png")
        run([browser, *options, *shape, f"--screenshot={picture}", drawing.as_uri()])
        if not picture.is_file():
            raise CommandError(f"{browser} drew nothing of {drawing.name}")
    return f"{len(drawings)} pictures in ios_demo/build/pictures"


def the_core_ml_code_typechecks(swift: Swift) -> str:
    if sys.platform == "darwin":
        raise SkippedError("the build itself had Apple's module")
    folder = BUILD / "swift" / "CoreMLStub"
    folder.mkdir(parents=True, exist_ok=True)
    swift.run([
        "swiftc", "-emit-module", "-module-name", "CoreML", "-parse-as-library",
        "-enable-library-evolution", "-suppress-warnings", TESTING / "CoreMLStub" / "CoreML.swift",
        "-o", folder / "CoreML.swiftmodule",
    ])  # fmt: skip
    swift.run([
        "swiftc", "-typecheck", "-swift-version", "6", "-warnings-as-errors", "-module-name",
        "PersonaKit", "-I", folder, "-Xcc",
        f"-fmodule-map-file={KIT / 'Sources' / 'COpenSSL' / 'module.modulemap'}",
        *sources(KIT / "Sources" / "PersonaKit"),
    ])  # fmt: skip
    return "against declarations of Apple's module, not against Apple's"


def the_engine_runs_real_programs(swift: Swift) -> str:
    """Bundles just exported, ExecuTorch's real library, and a real `persona serve`."""
    if sys.platform != "linux":
        raise SkippedError("the stand-in is for ExecuTorch's Linux wheel: run the app's test plan")
    import executorch

    runtime = Path(next(iter(executorch.__path__))).resolve()
    includes = (runtime / "include", runtime / "include/executorch/runtime/core/portable_type/c10")
    options: list[str | Path] = ["-Xlinker", f"-L{runtime / 'lib'}"]
    for folder in includes:
        options += ["-Xcxx", f"-I{folder}"]
    built = BUILD / "swift" / RUNTIME.name
    swift.run(_package("build", RUNTIME, "--build-tests", *options), readable=[runtime])
    killer = built / "killer.so"
    source = RUNTIME / "Sources" / "Killer" / "killer.c"
    swift.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", source, "-o", killer, "-ldl"])
    with ExitStack() as clouds:
        served = [(name, clouds.enter_context(samples.serving(name))) for name in samples.PRESETS]
        said = swift.run(
            _package("test", RUNTIME, "--skip-build", *options),
            {
                "LD_LIBRARY_PATH": str(runtime / "lib"),
                "PERSONA_SAMPLES": str(samples.FOLDER),
                "PERSONA_CLOUDS": ",".join("=".join(one) for one in served),
                "PERSONA_KILLER": str(killer),
                "PERSONA_VICTIM": str(built / "debug" / "SwapVictim"),
            },
            readable=[runtime],
        )
    largest = max(float(x) for x in re.findall(r"^(?:PARITY|EDITED) \w+ (\S+)", said, re.M))
    killed = re.search(r"KILLED at (\d+) steps", said)
    steps = killed[1] if killed else "no"
    return f"{_tests(said)}; outputs within {largest:.1e} of PyTorch's; killed at {steps} steps"


def the_apps_logic_passes_its_tests(swift: Swift) -> str:
    line = _package("test", LOGIC, "-Xswiftc", "-warnings-as-errors", *OBSERVATION_LINK)
    return _tests(swift.run(line))


def the_apps_sources_parse(swift: Swift) -> str:
    files = sources(IOS / "PersonaDemo")
    swift.run(["swiftc", "-frontend", "-parse", "-swift-version", "6", *files])
    return f"{len(files)} files"


def every_source_is_formatted(swift: Swift) -> str:
    files = sources(IOS)
    configuration = TESTING / "swift-format.json"
    swift.run(["swift", "format", "lint", "--strict", "--configuration", configuration, *files])
    return f"{len(files)} files"


ALWAYS: tuple[Callable[[], str], ...] = (every_source_parses, the_project_file_is_whole)
WITH_SWIFT: tuple[Callable[[Swift], str], ...] = (
    every_source_is_formatted,
    the_apps_sources_parse,
    personakit_builds_without_warnings,
    personakit_passes_its_tests,
    the_charts_are_drawn,
    the_core_ml_code_typechecks,
    the_apps_logic_passes_its_tests,
)


class Ladder:
    """Runs rungs and counts."""

    def __init__(self) -> None:
        self.counts = {"passed": 0, "SKIPPED": 0, "FAILED": 0}

    def climb(self, title: str, rung: Callable[[], str]) -> bool:
        """Run one rung and say what came of it; whether it passed."""
        start = time.monotonic()
        try:
            verdict, detail = "passed", rung()
        except (SkippedError, NoToolchainError) as error:
            verdict, detail = "SKIPPED", str(error)
        except (CommandError, RuntimeError) as error:
            verdict, detail = "FAILED", str(error)
        self.counts[verdict] += 1
        seconds = time.monotonic() - start
        print(f"{verdict:8}{title.replace('_', ' ')} ({seconds:.0f} s): {detail}", flush=True)
        return verdict == "passed"


def main() -> int:
    """Climb as far as this machine allows; 1 where a rung failed."""
    ladder = Ladder()
    making = samples.start()
    for rung in ALWAYS:
        ladder.climb(rung.__name__, rung)
    found: list[Swift] = []
    ladder.climb("a_swift_toolchain_is_here", partial(_toolchain, found))
    for swift in found:
        for check in WITH_SWIFT:
            ladder.climb(check.__name__, partial(check, swift))
        ladder.climb("samples_are_trained_and_exported", partial(_made, making))
        ladder.climb(
            the_engine_runs_real_programs.__name__, partial(the_engine_runs_real_programs, swift)
        )
    if not found:
        left_out = len(WITH_SWIFT) + 2
        print(f"SKIPPED {left_out} more rungs, which need Swift", flush=True)
        ladder.counts["SKIPPED"] += left_out
        if making is not None:
            making.terminate()
            making.wait()
    print(", ".join(f"{count} {verdict}" for verdict, count in ladder.counts.items()), flush=True)
    return 1 if ladder.counts["FAILED"] else 0


def _toolchain(found: list[Swift]) -> str:
    swift = find()
    found.append(swift)
    return f"in {swift.root}" if swift.root else "this machine's own"


def _made(making: samples.Making | None) -> str:
    samples.wait(making)
    return ", ".join(samples.PRESETS.values())


if __name__ == "__main__":
    sys.exit(main())
