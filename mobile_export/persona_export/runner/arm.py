"""`make arm`: the same bundles on this processor and on two emulated arm64 cores, side by side.

One bundle of each shape that programs have is trained for seconds and exported in fp32 and int8,
then run by the C++ runner against its golden vectors; the arm64 outputs are held against this
processor's too. Emulated times mean nothing and are not shown.
"""

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from persona.runs import load_run, save_run
from persona.training.config import (
    BackboneConfig,
    DataConfig,
    RunConfig,
    SlotConfig,
    load_config,
)
from persona.training.pipeline import open_dataset, train
from persona_export.export import Wanted, export_bundle
from persona_export.parity import difference
from persona_export.runner.run import Report, run_bundle
from persona_export.runner.toolchain import MACHINES, Machine, MissingToolsError, install_tools
from persona_export.targets import Precision, SlotFeed

_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def _images() -> RunConfig:
    """Every kind of slot, as inputs, in the trunk too; grey images, an observation that pools."""
    config, _ = load_config("digits-quick")
    slots = (
        SlotConfig("trunk.second.0", "affine", bound=0.2, bias_bound=0.2),
        SlotConfig("head.0", "low-rank", rank=2),
        SlotConfig("head.2", "dense"),
    )
    return replace(config, backbone=replace(config.backbone, slots=slots))


def _sequences(backbone: str) -> RunConfig:
    """The backbone's own slots; candidates as many as the caller likes, item ids observed."""
    config, _ = load_config("drifting-interests")
    settings = {"dim": 32}
    return replace(config, backbone=replace(config.backbone, name=backbone, settings=settings))


def _colour_images() -> RunConfig:
    """A narrow MobileNetV3-small, whose classifier is still large enough to be patched."""
    return RunConfig(
        "colour",
        DataConfig("image-folder", {"window": 10, "queries": 10, "validation_share": 0.2}),
        BackboneConfig("mobilenet-v3-small", {"width": 0.25}),
    )


@dataclass(frozen=True)
class Shape:
    """A shape of programs: what it is called, what is trained, and how slots reach it."""

    name: str
    config: RunConfig
    slot_feed: SlotFeed = "inputs"


def shapes() -> tuple[Shape, ...]:
    """One for each backbone of images and sequences that a phone gets."""
    return (
        Shape("image-net", _images()),
        Shape("mobilenet-v3", _colour_images(), "patched"),
        *(Shape(name, _sequences(name)) for name in ("sasrec", "gru4rec", "din")),
    )


@dataclass(frozen=True)
class Row:
    """One program on one machine. `from_native`: largest difference from native, relative."""

    bundle: str
    report: Report
    from_native: float

    @property
    def holds(self) -> bool:
        """Whether golden vectors and native outputs agree within the bundle's tolerance."""
        return self.report.passed and self.from_native <= self.report.tolerance


def compare(bundle: Path, name: str, precision: str, machines: Iterable[Machine]) -> list[Row]:
    """Run a bundle's program natively and on each machine. Raises RunnerError."""
    native = run_bundle(bundle, "native", precision)
    rows = [Row(name, native, 0.0)]
    for machine in machines:
        report = run_bundle(bundle, machine, precision)
        apart = max(difference(native.outputs[n], out) for n, out in report.outputs.items())
        rows.append(Row(name, report, apart))
    return rows


def _small(config: RunConfig) -> RunConfig:
    """With training enough to move every weight, which parity needs no more of."""
    return replace(
        config,
        backbone=replace(config.backbone, steps=20, batch=64, checks=1),
        adapter=replace(
            config.adapter, devices=8, validation_devices=4, batch=4, steps=10, checks=1
        ),
        prototypes=replace(config.prototypes, count=3, steps=10, batch=8, rule_steps=20),
    )


def _write_images(root: Path) -> None:
    """Colour images of noise at DEVICE/LABEL/NUMBER.png; the label is the brightest channel."""
    random = np.random.default_rng(0)
    for device in range(30):
        for label in range(3):
            folder = root / f"device-{device}" / f"label-{label}"
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = random.integers(0, 160, (32, 32, 3), np.uint8)
                pixels[..., label] += 80
                Image.fromarray(pixels).save(folder / f"{number}.png")


def _bundle(shape: Shape, folder: Path) -> Path:
    config = _small(shape.config)
    root = None
    if config.data.name == "image-folder":
        root = folder / "images"
        _write_images(root)
    data = open_dataset(config, root)
    trained = train(config, data, None, lambda _: lambda _done, _all: None)
    save_run(trained, data.backbone_settings(), folder / "run", None)
    run, out = load_run(folder / "run"), folder / "bundle"
    wanted = tuple(Wanted("executorch-xnnpack", precision) for precision in _PRECISIONS)
    return export_bundle(run, wanted, out, lambda _: None, shape.slot_feed).path


def _table(rows: Iterable[Row]) -> Table:
    columns = ("bundle", "", "machine", "base", "prototypes", "edited", "observed", "native", "")
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(
            row.bundle,
            row.report.precision,
            row.report.machine,
            *(_figure(row.report.worst(*kinds)) for kinds in _KINDS),
            f"{row.from_native:.0e}",
            "[green]equal[/]" if row.holds else "[red]DIFFERS[/]",
        )
    return table


_KINDS = (("base",), ("prototype",), ("edited",), ("features", "posterior"))
"""The kinds of cases of a column."""


def _figure(difference: float | None) -> str:
    return "–" if difference is None else f"{difference:.0e}"


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
        for number, shape in enumerate(shapes()):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            with console.status(f"{shape.name}: training and export"):
                bundle = _bundle(shape, folder)
            with console.status(f"{shape.name}: building the runner where it is new, and running"):
                for precision in _PRECISIONS:
                    rows += compare(bundle, shape.name, precision, MACHINES[1:])
    console.print(_table(rows))
    allowed = {row.report.precision: f"{row.report.tolerance:g}" for row in rows}
    console.print(
        "Largest differences from golden vectors and (native) from this processor's outputs, "
        "relative to max(1, largest output). Allowed are "
        + ", ".join(f"{tolerance} in {precision}" for precision, tolerance in allowed.items())
        + ". arm64 is emulated: no times."
    )
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
