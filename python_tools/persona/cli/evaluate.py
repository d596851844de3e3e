"""`persona evaluate`: what editing gains on devices that were never trained on."""

import json
from pathlib import Path

import click

from persona.cli.terminal import command, json_option, progress_stages, say_json, stdout


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="The data that the run trained on.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Report and results.")
@click.option(
    "--devices",
    type=click.IntRange(2),
    default=200,
    show_default=True,
    help="Unseen devices a seed.",
)
@click.option(
    "--seeds", type=click.IntRange(1), default=3, show_default=True, help="Draws of devices."
)
@json_option
@command
def evaluate(
    run: Path, data: Path | None, out: Path, devices: int, seeds: int, as_json: bool
) -> None:
    """Score static, prototype, edit, other-device control and rivals on unseen devices.

    Writes report.html and results.json to --out.
    """
    from persona.durable import staged_folder
    from persona.evaluation.protocol import evaluate as evaluate_run
    from persona.evaluation.report import render_report
    from persona.evaluation.results import summary
    from persona.formats import schema
    from persona.runs import load_run
    from persona.training.pipeline import open_dataset

    with staged_folder(out) as staging:
        loaded = load_run(run)
        dataset = open_dataset(loaded.record.config, data)
        with progress_stages() as stages:
            results = evaluate_run(loaded, dataset, devices, tuple(range(seeds)), stages)
        (staging / "results.json").write_text(json.dumps(schema.encode(results), indent=1))
        (staging / "report.html").write_text(render_report(results), encoding="utf-8")
    if as_json:
        say_json(summary(results))
        return
    from persona.cli.tables import scores_table

    stdout.print(scores_table(results))
    stdout.print(f"report: {out / 'report.html'}")
