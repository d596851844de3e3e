"""`persona train`: data and a configuration become a run."""

from pathlib import Path

import click

from persona.cli.terminal import command, json_option, progress_stages, say_json, stdout


@click.command()
@click.argument("preset_or_config")
@click.option("--data", type=click.Path(path_type=Path), help="Your data: a folder or a file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of PyTorch. Small models train fastest with one; give a large one your cores.",
)
@json_option
@command
def train(preset_or_config: str, data: Path | None, out: Path, threads: int, as_json: bool) -> None:
    """Train backbone, adapter and prototypes.

    PRESET_OR_CONFIG is a preset (such as `digits`) or the path of your own TOML file. Training
    that is interrupted leaves nothing at --out.
    """
    import torch

    from persona.cli.tables import left_out_lines
    from persona.durable import check_place
    from persona.evaluation.results import LeftOut
    from persona.runs import save_run
    from persona.training.config import load_config
    from persona.training.pipeline import open_dataset
    from persona.training.pipeline import train as train_run

    torch.set_num_threads(threads)
    check_place(out)
    config, folder = load_config(preset_or_config)
    dataset = open_dataset(config, data)
    with progress_stages() as stages:
        trained = train_run(config, dataset, folder, stages)
    save_run(trained, dataset.backbone_settings(), out, folder)
    left_out = LeftOut.of(dataset)
    curves = {name: min(curve.loss) for name, curve in trained.curves.items()}
    if as_json:
        say_json(
            {
                "run": str(out),
                "loss": curves,
                "seconds": stages.seconds,
                "left_out": left_out.counts,
                "faults": left_out.faults,
            }
        )
        return
    stdout.print(
        f"[green]trained[/] {out}: " + ", ".join(f"{n} {v:.3f}" for n, v in curves.items())
    )
    for line in left_out_lines(left_out):
        stdout.print(line, style="yellow", markup=False, highlight=False)
    stdout.print(f"next: persona export {out} --target all --out BUNDLE")
