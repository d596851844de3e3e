"""Imports point one way: what each package may know, read from its source and seen at run time."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {
    "persona": ROOT / "python_tools" / "persona",
    "persona_export": ROOT / "mobile_export" / "persona_export",
    "persona_cloud": ROOT / "cloud" / "persona_cloud",
}
HEAVY = ("executorch", "coremltools")


def folder_of(package: str) -> Path:
    top, *rest = package.split(".")
    return PLACES[top].joinpath(*rest)


def imports(file: Path, package: str) -> Iterator[str]:
    """Every module that a file imports, also inside functions, as absolute dotted names."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in prefixes)


def found(package: str, but: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """Imported name -> files of the package that import it."""
    users: dict[str, set[str]] = {}
    folder = folder_of(package)
    for file in sorted(folder.rglob("*.py")):
        inside = ".".join([package, *file.relative_to(folder).parent.parts])
        if under(inside, but):
            continue
        for name in imports(file, inside):
            users.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    assert users, f"no imports found in {folder}"
    return users


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("persona.formats", ("numpy", "persona.formats")),
        ("persona.method", ("torch", "persona.formats", "persona.method")),
    ],
)
def test_the_inner_packages_import_nothing_but(package, allowed):
    strangers = {
        name: users
        for name, users in found(package).items()
        if name.partition(".")[0] not in sys.stdlib_module_names and not under(name, allowed)
    }
    assert not strangers


OUTER = ("persona_cloud", "persona_export", "persona.cli")
NEVER = {
    "persona.backbones": (
        *OUTER,
        *HEAVY,
        "persona.method",
        "persona.training",
        "persona.data",
        "persona.runs",
    ),
    "persona.data": (*OUTER, *HEAVY, "persona.backbones", "persona.method", "persona.training"),
    "persona.training": (
        *OUTER,
        *HEAVY,
        "persona.device",
        "persona.evaluation",
        "persona.baselines",
        "persona.runs",
    ),
    "persona.evaluation": (*OUTER, *HEAVY, "persona.device"),
    "persona.baselines": (*OUTER, *HEAVY, "persona.device"),
    "persona.device": (
        *OUTER,
        "coremltools",
        "persona.method",
        "persona.training",
        "persona.backbones",
        "persona.baselines",
        "persona.evaluation",
        "persona.data",
        "persona.runs",
        "persona.issuing",
    ),
    "persona_cloud": (
        *HEAVY,
        "persona_export",
        "persona.cli",
        "persona.device",
        "persona.evaluation",
        "persona.baselines",
    ),
    "persona_export": (
        "persona_cloud",
        "persona.cli",
        "persona.evaluation",
        "persona.baselines",
    ),
}


@pytest.mark.parametrize(("package", "never"), NEVER.items(), ids=NEVER)
def test_a_package_does_not_know_what_it_must_not(package, never):
    known = {name: users for name, users in found(package).items() if under(name, never)}
    assert not known


def test_only_the_commands_know_cloud_and_export():
    outer = ("persona_cloud", "persona_export")
    known = found("persona", but=("persona.cli",))
    assert not {name: users for name, users in known.items() if under(name, outer)}
    assert any(under(name, outer) for name in found("persona.cli")), "the check sees imports"


def test_imports_inside_functions_and_relative_ones_are_seen(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("def f():\n    from ..method import slots\n    import torch.nn as nn\n")
    assert set(imports(file, "persona.device")) == {"persona.method.slots", "torch.nn"}


def loaded_by(*modules: str) -> set[str]:
    """Top-level packages in memory after importing these modules in a fresh interpreter."""
    code = f"import sys, {', '.join(modules)}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_reading_formats_takes_no_torch():
    modules = sorted(
        f"persona.formats.{file.stem}" for file in folder_of("persona.formats").glob("[a-z]*.py")
    )
    assert not loaded_by(*modules) & {"torch", "flask", "sklearn", *HEAVY}


def test_the_method_takes_nothing_but_torch_and_numpy():
    loaded = loaded_by("persona.method.personalise")
    assert "torch" in loaded
    assert not loaded & {"sklearn", "scipy", "flask", "sqlalchemy", "click", "rich", *HEAVY}


def test_the_cloud_runs_without_exporters():
    loaded = loaded_by("persona_cloud")
    assert "flask" in loaded
    assert not loaded & {"persona_export", *HEAVY}
