"""`persona bundle`: look into a bundle, and prove it on this machine."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from persona.cli.terminal import CheckFailedError, command, json_option, say_json, stdout

if TYPE_CHECKING:
    from collections.abc import Callable

    from persona.bundles import Bundle
    from persona.formats.manifest import Program
    from persona_export.parity import Parity
    from persona_export.runner import Machine

trust_option = click.option(
    "--trust",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The publisher's public key (PEM), as an app pins it.",
)


@click.group()
def bundle() -> None:
    """Show or verify what an app ships."""


def open_trusted(path: Path, trust: Path | None) -> "Bundle":
    """Open a bundle, with the pinned key where there is one."""
    from persona.bundles import open_bundle
    from persona.signing import PublicKeys, read_public_key

    return open_bundle(path, None if trust is None else PublicKeys([read_public_key(trust)]))


def _describe(opened: "Bundle") -> dict[str, Any]:
    manifest = opened.manifest
    return {
        "model": manifest.model,
        "digest": opened.digest,
        "signed_by": opened.key_id,
        "task": manifest.task,
        "created_at": manifest.created_at,
        "slots": {s.name: f"{s.kind} {s.out}×{s.in_}" for s in manifest.slots},
        "observation": manifest.observation.kind,
        "prototypes": manifest.prototype_count,
        "programs": {
            f"{p.target} {p.precision}": {
                "verified": p.verified,
                "tolerance": p.tolerance,
                "delegation": p.delegation,
            }
            for p in manifest.programs
        },
        "bytes": sum(file.size for file in manifest.files.values()),
        "edit_keys": [key.id for key in manifest.edit_keys],
    }


@bundle.command()
@click.argument("path", type=click.Path(path_type=Path))
@trust_option
@json_option
@command
def show(path: Path, trust: Path | None, as_json: bool) -> None:
    """Say what a bundle holds, after checking its signature and every file."""
    described = _describe(open_trusted(path, trust))
    if as_json:
        say_json(described)
        return
    table = Table(show_header=False, box=None)
    for name, value in described.items():
        lines = (
            [f"{k}: {v['verified'] if isinstance(v, dict) else v}" for k, v in value.items()]
            if isinstance(value, dict)
            else [str(value)]
        )
        table.add_row(f"[bold]{name}[/]", "\n".join(lines))
    stdout.print(table)


@bundle.command()
@click.argument("path", type=click.Path(path_type=Path))
@trust_option
@json_option
@command
def verify(path: Path, trust: Path | None, as_json: bool) -> None:
    """Check signature and files, look into the packages, and run every program that runs here.

    Programs are run on the golden vectors; ExecuTorch's CPU programs twice, from Python and by a
    C++ runner like an app's, which is built once with cmake and g++, and where `make arm` was run
    before, once more on each of two emulated arm64 processors.
    """
    opened = open_trusted(path, trust)
    rows = _proofs(opened)
    failed = next((row for row in rows.values() if row["passed"] is False), None)
    found = {"bundle": opened.digest, "pinned": trust is not None, "programs": rows}
    if not as_json:
        _print_rows(opened, rows, pinned=trust is not None)
    if failed is not None:
        raise CheckFailedError(failed["code"], failed["reason"], found)
    if as_json:
        say_json(found)


Rows = dict[str, dict[str, Any]]
"""By what was looked at; `passed` is None where a check cannot be made here."""


def _proofs(opened: "Bundle") -> Rows:
    from persona_export.parity import RUN_IN_CPP, check_in_bundle, check_in_cpp

    rows: Rows = {}
    arm, why_not = _arm_machines()
    for program in opened.manifest.programs:
        name = f"{program.target} {program.precision}"
        rows |= _package_row(name, opened, program)
        rows[name] = _row(check_in_bundle, opened, program)
        if program.target in RUN_IN_CPP:
            rows[f"{name}, C++"] = _row(check_in_cpp, opened, program)
            for machine in arm:
                on_machine = partial(check_in_cpp, machine=machine)
                rows[f"{name}, {machine}"] = _row(on_machine, opened, program)
    if why_not and any(program.target in RUN_IN_CPP for program in opened.manifest.programs):
        rows["C++ on arm64"] = {"passed": None, "reason": why_not}
    return rows


def _arm_machines() -> "tuple[tuple[Machine, ...], str]":
    """The emulated processors that the C++ runner can be run on, or none and why."""
    from persona_export.runner import MACHINES, RunnerError
    from persona_export.runner.build import check_ready

    emulated = MACHINES[1:]
    try:
        for machine in emulated:
            check_ready(machine)
    except RunnerError as error:
        return (), f"{error}; `make arm` gets what is missing, then verify again"
    return emulated, ""


def _package_row(name: str, opened: "Bundle", program: "Program") -> Rows:
    """What the structural checks found; no row where there is no package to look into."""
    from persona_export.parity import faults_in_bundle

    faults = faults_in_bundle(opened, program)
    if faults is None:
        return {}
    row: dict[str, Any] = {"passed": not faults, "faults": faults}
    if faults:
        row |= {"code": "bundle.package_faulty", "reason": "; ".join(faults)}
    return {f"{name}, package": row}


def _row(
    check: "Callable[[Bundle, Program], Parity]", opened: "Bundle", program: "Program"
) -> dict[str, Any]:
    """What running a program found."""
    from persona_export.targets import ExportError, NotRunnableError

    try:
        parity = check(opened, program)
    except NotRunnableError as error:
        return {"passed": None, "verified": program.verified, "reason": str(error)}
    except ExportError as error:
        return {"passed": False, "code": "bundle.program_differs", "reason": str(error)}
    return {"passed": True, "verified": program.verified, **vars(parity)}


def _print_rows(opened: "Bundle", rows: dict[str, dict[str, Any]], *, pinned: bool) -> None:
    title = f"{opened.manifest.model}  {opened.digest[:16]}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("program", "how", "base", "prototypes", "edited", "observe", "allowed"):
        left = column in ("program", "how")
        table.add_column(column, justify="left" if left else "right", no_wrap=left)
    for name, row in rows.items():
        program, _, where = name.partition(", ")
        if row["passed"] is None:
            table.add_row(program, where, "[yellow]not run[/]")
        elif not row["passed"]:
            table.add_row(program, where, "[red]failed[/]")
        elif "faults" in row:
            table.add_row(program, where, "[green]sound[/]")
        else:
            columns = ("base", "prototypes", "edited", "observed", "tolerance")
            figures = [f"{row[c]:.0e}" for c in columns]
            table.add_row(program, where or row["verified"], *figures)
    stdout.print(table)
    for name, row in rows.items():
        if not row["passed"]:
            colour = "yellow" if row["passed"] is None else "red"
            stdout.print(f"[{colour}]{name}[/]: {row['reason']}", highlight=False)
    stdout.print(
        f"{len(opened.manifest.files)} files match the manifest, signed by {opened.key_id}"
    )
    if not pinned:
        stdout.print(
            "[yellow]The key came with the bundle: the files belong together, but who made them "
            "is not proven. Pin the publisher's key with --trust.[/]"
        )
