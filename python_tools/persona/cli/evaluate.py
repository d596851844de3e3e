"""`persona evaluate`: what editing gains on devices that were never trained on."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import click

from persona.cli.terminal import command, json_option, progress_stages, say_json, stdout
from persona.evaluation.results import Results


@click.command()
@click.argument("what", metavar="RUN|PRESET|CONFIG.toml")
@click.option("--data", type=click.Path(path_type=Path), help="The data to train or trained on.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Report and results.")
@click.option(
    "--devices", type=click.IntRange(2), help="Unseen devices a seed.  [default: 200, or CONFIG's]"
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    help="Draws of devices for a run, trainings of a configuration.  [default: 3, or CONFIG's]",
)
@click.option(
    "--jobs", type=click.IntRange(1), help="Trainings of a configuration at a time.  [default: 1]"
)
@click.option("--quick", is_flag=True, help="A smoke run of a configuration: figures mean nothing.")
@json_option
@command
def evaluate(
    what: str,
    data: Path | None,
    out: Path,
    devices: int | None,
    seeds: int | None,
    jobs: int | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Score static, prototype, edit, other-device control and rivals on unseen devices.

    A run folder is scored as it is. A preset or configuration is trained several times, each time
    beside every rival; that can be interrupted, and goes on where it was. Writes report.html,
    results.md and results.json to --out.
    """
    from persona.evaluation.results import summary

    is_run = Path(what).is_dir()
    if is_run and (quick or jobs):
        given = " and ".join(n for n, v in (("--quick", quick), ("--jobs", jobs)) if v)
        raise click.UsageError(
            f"{given} say how a preset or a configuration is trained; {what} is a run, which is "
            "scored as it is. Leave them out, or name a preset or a .toml file"
        )
    asked = _command(what, data, devices, seeds, quick)
    if is_run:
        results = _evaluate_run(Path(what), data, out, devices or 200, seeds or 3, asked)
    else:
        results = _study(what, data, out, devices, seeds, jobs or 1, quick, asked)
    if as_json:
        say_json(summary(results))
        return
    from persona.cli.tables import left_out_lines, scores_table

    stdout.print(scores_table(results))
    for line in (*left_out_lines(results.data_left_out), *results.mixed):
        stdout.print(line, style="yellow", markup=False, highlight=False)
    stdout.print(f"report: {out / 'report.html'}")


def _command(
    what: str, data: Path | None, devices: int | None, seeds: int | None, quick: bool
) -> str:
    """The command that makes the same results again, with names in place of paths."""
    parts = ["persona", "evaluate", Path(what).name]
    options = {"--data": data and data.name, "--devices": devices, "--seeds": seeds}
    parts += [str(x) for name, v in options.items() if v is not None for x in (name, v)]
    return shlex.join([*parts, *(["--quick"] if quick else [])])


def _evaluate_run(
    run: Path, data: Path | None, out: Path, devices: int, draws: int, asked: str
) -> Results:
    from persona.durable import staged_folder
    from persona.evaluation.protocol import evaluate as evaluate_run
    from persona.runs import load_run
    from persona.training.pipeline import open_dataset

    with staged_folder(out) as staging:
        loaded = load_run(run)
        dataset = open_dataset(loaded.record.config, data)
        with progress_stages() as stages:
            results = evaluate_run(loaded, dataset, devices, tuple(range(draws)), stages)
        results = replace(results, made_by={"command": asked, **results.made_by})
        for name, text in _documents(results).items():
            (staging / name).write_text(text, encoding="utf-8")
    return results


def _study(
    what: str,
    data: Path | None,
    out: Path,
    devices: int | None,
    trainings: int | None,
    jobs: int,
    quick: bool,
    asked: str,
) -> Results:
    from persona.durable import check_place, write_atomic
    from persona.evaluation import study
    from persona.training.config import load_config

    config, folder = load_config(what)
    if quick:
        config = study.quick(config)
    evaluation = config.evaluation
    evaluation = replace(
        evaluation,
        devices=devices or evaluation.devices,
        trainings=trainings or evaluation.trainings,
    )
    config = replace(config, evaluation=evaluation)
    if not (out / study.TRAININGS).is_dir():
        check_place(out)
    with progress_stages() as stages:
        results = study.run_study(config, data, folder, out, jobs, stages)
    results = replace(results, quick=quick, made_by={"command": asked, **results.made_by})
    for name, text in _documents(results).items():
        write_atomic(out / name, text.encode())
    return results


def _documents(results: Results) -> dict[str, str]:
    from persona.evaluation.markdown import render_markdown
    from persona.evaluation.report import render_report
    from persona.formats import schema

    return {
        "results.json": json.dumps(schema.encode(results), indent=1),
        "results.md": render_markdown(results),
        "report.html": render_report(results),
    }
