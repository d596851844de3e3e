"""`make arm`: the same bundles on this processor and on two emulated arm64 cores, side by side.

Bundles of images and of sequences are trained for seconds and exported, then run by the C++ runner
against their golden vectors; the arm64 outputs are held against this processor's too. Emulated
times mean nothing and are not shown.
"""

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from persona.runs import load_run, save_run
from persona.training.config import RunConfig, SlotConfig, load_config
from persona.training.pipeline import open_dataset, train
from persona_export.export import Wanted, export_bundle
from persona_export.parity import difference
from persona_export.runner.run import Report, run_bundle
from persona_export.runner.toolchain import MACHINES, Machine, MissingToolsError, install_tools

_PRESETS: dict[str, tuple[SlotConfig, ...]] = {
    "digits-quick": (
        SlotConfig("trunk.second.0", "affine", bound=0.2, bias_bound=0.2),
        SlotConfig("head.0", "low-rank", rank=2),
        SlotConfig("head.2", "dense"),
    ),
    "drifting-interests": (),
}
"""Every kind of slot for images; for sequences the backbone's own choice."""


@dataclass(frozen=True)
class Row:
    """One bundle on one machine. `from_native`: largest difference from native, relative."""

    bundle: str
    report: Report
    from_native: float

    @property
    def holds(self) -> bool:
        """Whether golden vectors and native outputs agree within the bundle's tolerance."""
        return self.report.passed and self.from_native <= self.report.tolerance


def compare(bundle: Path, name: str, machines: Iterable[Machine]) -> list[Row]:
    """Run a bundle natively and on each machine. Raises RunnerError."""
    native = run_bundle(bundle)
    rows = [Row(name, native, 0.0)]
    for machine in machines:
        report = run_bundle(bundle, machine)
        apart = max(difference(native.outputs[n], out) for n, out in report.outputs.items())
        rows.append(Row(name, report, apart))
    return rows


def _small(preset: str) -> RunConfig:
    """A preset with training enough to move every weight, which parity needs no more of."""
    config, _ = load_config(preset)
    return replace(
        config,
        backbone=replace(config.backbone, steps=40, checks=1, slots=_PRESETS[preset]),
        adapter=replace(config.adapter, devices=64, validation_devices=16, steps=20, checks=1),
        prototypes=replace(config.prototypes, count=3, steps=20, rule_steps=20),
    )


def _bundle(preset: str, folder: Path) -> Path:
    config = _small(preset)
    data = open_dataset(config, None)
    trained = train(config, data, None, lambda _: lambda _done, _all: None)
    save_run(trained, data.backbone_settings(), folder / "run", None)
    wanted = (Wanted("executorch-xnnpack"),)
    return export_bundle(load_run(folder / "run"), wanted, folder / "bundle", lambda _: None).path


def _table(rows: Iterable[Row]) -> Table:
    columns = ("bundle", "machine", "base", "prototypes", "edited", "from native")
    table = Table(*columns, "", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        cases = row.report.cases
        prototypes = [case.relative for name, case in cases.items() if name.startswith("prototype")]
        figures = (cases["base"].relative, max(prototypes), cases["edited"].relative)
        table.add_row(
            row.bundle,
            row.report.machine,
            *(f"{figure:.1e}" for figure in (*figures, row.from_native)),
            "[green]equal[/]" if row.holds else "[red]DIFFERS[/]",
        )
    return table


def main() -> int:
    """0 if every bundle holds on every machine, 1 if one differs, 2 if tools are missing."""
    console = Console()
    torch.set_num_threads(1)
    try:
        for machine in MACHINES:
            install_tools(machine)
    except MissingToolsError as error:
        console.print(f"[bold yellow]SKIPPED, 1 rung not run:[/] {error}", soft_wrap=True)
        return 2
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for preset in _PRESETS:
            with console.status(f"{preset}: training and export"):
                bundle = _bundle(preset, Path(scratch) / preset)
            with console.status(f"{preset}: building the runner where it is new, and running"):
                rows += compare(bundle, preset, MACHINES[1:])
    console.print(_table(rows))
    console.print(
        "Largest differences from golden vectors and from native outputs, relative to max(1, "
        f"largest output); {max(row.report.tolerance for row in rows):g} is allowed. "
        "arm64 is emulated: no times."
    )
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
