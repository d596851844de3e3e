"""The compilers, each called once for one state of its sources: what is built is kept beside."""

from collections.abc import Callable, Sequence
from pathlib import Path

from toolchain import BUILD, MissingError, fingerprint, fresh, install, java_home, kotlin, run

JAVA_8 = ("-jvm-target", "1.8", "-Xjdk-release=1.8")
"""What Android 8 (API 26) knows of Java: newer classes and methods do not compile."""

DX = ("-Xlambdas=class", "-Xsam-conversions=class", "-Xstring-concat=inline")
"""dx understands no invokedynamic."""


def _built(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """What `make` puts into the folder it is given, made only where `key` is new."""
    folder, mark = BUILD / name, BUILD / f"{name}.key"
    if folder.is_dir() and mark.is_file() and mark.read_text() == key:
        return folder
    mark.unlink(missing_ok=True)
    make(fresh(folder))
    mark.write_text(key)
    return folder


def sources(*folders: Path, suffix: str = ".kt") -> list[Path]:
    """All sources below these folders, in one order on every machine."""
    return sorted(path for folder in folders for path in folder.rglob(f"*{suffix}"))


def compile_kotlin(
    name: str,
    files: Sequence[Path],
    classpath: Sequence[Path] = (),
    flags: Sequence[str] = (*JAVA_8, *DX),
    jdk: bool = True,
) -> Path:
    """Classes of Kotlin sources. Warnings are errors.

    jdk: false where the class path itself has Java's classes, as Android's platform does.
    """
    if not files:
        raise MissingError(f"there are no sources for {name} yet")
    compiler = kotlin() / "lib"
    line = ["-Werror", "-module-name", name.replace("-", "_"), *flags]
    line += [] if jdk else ["-no-jdk"]
    path = ":".join(map(str, [*classpath, compiler / "kotlin-stdlib.jar"]))

    def make(folder: Path) -> None:
        run([
            java_home() / "bin/java", "-Xmx1200m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-cp", compiler / "kotlin-compiler.jar", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
            "-no-stdlib", "-no-reflect", *line, "-cp", path, "-d", folder, *files,
        ])  # fmt: skip

    contents = [file for folder in classpath if folder.is_dir() for file in folder.rglob("*.class")]
    return _built(name, fingerprint({"line": line, "path": path}, [*files, *contents]), make)


def compile_java(name: str, files: Sequence[Path], classpath: Sequence[Path]) -> Path:
    """Classes of Java sources against Android's platform alone."""
    path = ":".join(map(str, classpath))

    def make(folder: Path) -> None:
        run([
            java_home() / "bin/javac", "-nowarn", "-Xlint:-options", "-source", "8", "-target", "8",
            "-bootclasspath", path, "-d", folder, *files,
        ])  # fmt: skip

    return _built(name, fingerprint({"path": path}, files), make)


def compile_shim(package: Path, name: str = "shim", compiler: str = "g++") -> Path:
    """The JNI shim against an ExecuTorch wheel's headers and libraries.

    package: the wheel's `executorch` folder. compiler: a cross compiler for another processor.
    """
    gcc = install(compiler, "g++" if compiler == "g++" else f"g++-{compiler.removesuffix('-g++')}")
    source = Path(__file__).parent / "shim" / "executorch_jni.cpp"
    headers = package / "include"
    system = [headers, headers / "executorch/runtime/core/portable_type/c10"]
    system += [java_home() / "include", java_home() / "include/linux"]
    libraries = (
        "executorch", "executorch_kernels_optimized", "executorch_kernels_quantized",
        "executorch_backend_xnnpack", "executorch_threadpool",
    )  # fmt: skip

    def make(folder: Path) -> None:
        run([
            gcc, "-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror",
            "-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED",
            *(part for path in system for part in ("-isystem", path)), source,
            "-o", folder / "libpersona_shim.so", f"-L{package / 'lib'}", "-Wl,--no-as-needed",
            *(f"-l{library}" for library in libraries), f"-Wl,-rpath,{package / 'lib'}",
            "-Wl,--allow-shlib-undefined",
        ])  # fmt: skip

    key = fingerprint({"package": package, "gcc": gcc, "java": java_home()}, [source])
    return _built(name, key, make) / "libpersona_shim.so"
