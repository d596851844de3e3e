"""`persona demo`: the whole path on this machine, in one command."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from persona.cli.terminal import (
    CheckFailedError,
    command,
    json_option,
    progress_stages,
    say_json,
    stdout,
)

WRITTEN = ("run", "bundle", "devices", "report.html", "results.json")
"""What a demo leaves in its folder; a folder with just that is an older demo."""

DEVICES, QUICK_DEVICES = 120, 24
ITERATIONS, QUICK_ITERATIONS = 4000, 1000


@click.command()
@click.option("--quick", is_flag=True, help="A smoke run: the path is whole, figures mean nothing.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("persona-demo"),
    show_default=True,
    help="Run, bundle, report and results. An older demo there is replaced.",
)
@click.option("--devices", type=click.IntRange(20), help="Unseen devices to run.  [default: 120]")
@json_option
@command
def demo(quick: bool, out: Path, devices: int | None, as_json: bool) -> None:
    """Train, export, serve, adapt unseen devices and measure: data to report, in one command.

    Uses handwritten digits that ship inside scikit-learn. Every device runs in ExecuTorch's own
    runtime and gets its edit from a real HTTP server. About 3 minutes on 2 cores; --quick 45 s.
    """
    import time

    import torch

    from persona.cli.fleet import run_fleet
    from persona.durable import staged_folder
    from persona.evaluation.report import render_report
    from persona.evaluation.results import summary
    from persona.formats import schema
    from persona.runs import load_run, remember_bundle, save_run
    from persona.training.config import load_config
    from persona.training.pipeline import open_dataset, train
    from persona_export.export import Wanted, export_bundle

    torch.set_num_threads(1)
    start = time.perf_counter()
    config, _ = load_config("digits-quick" if quick else "digits")
    count = devices or (QUICK_DEVICES if quick else DEVICES)
    with staged_folder(out, replaces=WRITTEN) as staging, progress_stages() as stages:
        data = open_dataset(config, None)
        trained = train(config, data, None, stages)
        save_run(trained, data.backbone_settings(), staging / "run", None)
        run = load_run(staging / "run")
        wanted = (Wanted("executorch-xnnpack"), Wanted("coreml"))
        exported = export_bundle(run, wanted, staging / "bundle", stages)
        remember_bundle(staging / "run", staging / "bundle")
        stages("starting the cloud adapter")
        with cloud(staging / "run", staging / "bundle") as url:
            fleet = run_fleet(
                run,
                exported,
                data,
                url,
                staging / "devices",
                count=count,
                iterations=QUICK_ITERATIONS if quick else ITERATIONS,
                progress=stages,
            )
        stages.finish()
        results = fleet.results(quick, stages.seconds, time.perf_counter() - start)
        (staging / "results.json").write_text(json.dumps(schema.encode(results), indent=1))
        (staging / "report.html").write_text(render_report(results), encoding="utf-8")
    if as_json:
        say_json(summary(results) | {"report": str(out / "report.html")})
        return
    from persona.cli.tables import demo_summary

    stdout.print(demo_summary(results))
    stdout.print(f"report: [bold]{out / 'report.html'}[/]")


@contextmanager
def cloud(run: Path, bundle: Path) -> Iterator[str]:
    """`persona serve` as a process of its own on a free port; yields its address."""
    database = f"sqlite:///{run / 'cloud.sqlite'}"
    place = ["--bundle", str(bundle), "--database", database, "--port", "0"]
    arguments = ["serve", str(run), *place, "--json"]
    log = run / "cloud.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "persona", *arguments], stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            assert process.stdout is not None
            text = b""
            while not text.rstrip().endswith(b"}"):
                line = process.stdout.readline()
                if not line:
                    raise CheckFailedError(
                        "demo.cloud", f"the cloud did not start: {log.read_text()}"
                    )
                text += line
            yield json.loads(text)["url"]
        finally:
            process.terminate()
