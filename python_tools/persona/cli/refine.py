"""`persona refine`: what devices have shown since the last version becomes the next one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from persona.cli.operator import database_of
from persona.cli.tables import shown
from persona.cli.terminal import (
    CheckFailedError,
    command,
    json_option,
    progress_stages,
    say_json,
    stdout,
)

if TYPE_CHECKING:
    from persona.refined import Gains
    from persona.runs import Run
    from persona.training.refinement import Stability
    from persona_cloud.signing_keys import SigningKeys

MOST_DEVICES = 200_000
"""So many settle each of eight centres to within a hundredth of a deviation."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="The version to refine.  [default: the one exported last]",
)
@click.option(
    "--database",
    envvar="DATABASE_URL",
    help="The cloud's, also from DATABASE_URL.  [default: SQLite in RUN/cloud.sqlite]",
    metavar="URL",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Labelled data as the run trained on, old or newer: group edits are fitted to its devices "
    "and judged on held-out ones. Without it group edits follow their centres.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder for the new run, its bundle and the report.",
)
@json_option
@command
def refine(
    run: Path,
    bundle: Path | None,
    database: str | None,
    data: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """Update the prototypes from the latents of edits that the cloud has made for a version.

    Writes OUT/run, OUT/bundle and OUT/refinement.json, or nothing: also where held-out devices
    would lose, beyond what chance explains. Programs and adapter stay as they are.
    """
    import torch

    from persona.bundles import open_bundle
    from persona.data import datasets
    from persona.durable import check_place
    from persona.formats import schema
    from persona.refined import refine as refine_run
    from persona.refined import save_refined
    from persona.runs import last_bundle, load_run
    from persona.training.pipeline import open_dataset
    from persona_cloud.refining import stored_latents
    from persona_cloud.signing_keys import SigningKeys
    from persona_cloud.store import Store

    torch.set_num_threads(1)
    check_place(out)
    loaded = load_run(run)
    url = database_of(run, database)
    keys = SigningKeys(Store(url), loaded.path / "keys")
    _check_bundle_key(loaded, keys)
    opened = open_bundle(bundle or last_bundle(run), keys.publishers_ever())
    config = loaded.record.config
    labelled = data is not None or not datasets[config.data.name].needs_root
    found = stored_latents(url, opened.digest, loaded.bank.centres.shape[1], MOST_DEVICES)
    with progress_stages() as stages:
        dataset = open_dataset(config, data) if labelled else None
        refined, gains = refine_run(loaded, found.latents, dataset, stages)
    if gains is not None and gains.loses:
        said = {"stability": schema.encode(refined.stability), "gains": schema.encode(gains)}
        if not as_json:
            _print(refined.stability, gains)
        raise CheckFailedError(
            "refine.loses",
            "held-out devices lose with the refined prototypes; nothing was written. Stay with "
            "this version, or pass newer labelled data with --data",
            said,
        )
    report = save_refined(loaded, opened, refined, gains, out)
    path = f"/v1/models/{report.model}/versions"
    body = {"run": f"{out.name}/run", "bundle": f"{out.name}/bundle"}
    if as_json:
        publish = {"path": path, "body": body}
        say_json(
            {"out": str(out), "edits": found.edits, "publish": publish, **schema.encode(report)}
        )
        return
    stdout.print(
        f"[green]refined[/] {out}: {opened.digest[:12]} → [bold]{report.bundle[:12]}[/], from "
        f"{refined.stability.devices} devices with {found.edits} edits"
    )
    _print(refined.stability, gains)
    next_steps = (
        f"next: persona bundle verify {out / 'bundle'}",
        f"then put {out} into the folder that servers publish from (persona serve --versions):",
        f'curl "$CLOUD{path}" -H "Authorization: Bearer $OPERATOR_KEY" '
        f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'",
    )
    for step in next_steps:
        stdout.print(step, highlight=False, markup=False, soft_wrap=True)


def _check_bundle_key(run: "Run", keys: "SigningKeys") -> None:
    """The next version must be signed here by a key that devices trust. Raises SigningKeyError."""
    from persona.signing import SigningKeyError

    path = run.path / "keys" / "bundles.pem"
    if not path.is_file():
        raise SigningKeyError(
            f"{path} is not here, and the next version must be signed with it; refine where you "
            "export, with DATABASE_URL of the cloud"
        )
    if not keys.publishers().knows(run.bundle_key().id):
        raise SigningKeyError(
            f"{path} holds {run.bundle_key().id}, which devices do not trust; copy a private key "
            f"over it that `persona operator signing-key list {run.path}` names for bundles"
        )


def _print(stability: "Stability", gains: "Gains | None") -> None:
    """What moved, then what it gains."""
    table = Table(box=None, title="what moved", title_justify="left")
    for column in ("prototype", "centre moved", "share before", "after"):
        table.add_column(column, justify="right")
    rows = zip(stability.moved, stability.share_before, stability.share_after, strict=True)
    for k, (moved, before, after) in enumerate(rows):
        table.add_row(str(k), f"{moved:.2f}", f"{100 * before:.1f} %", f"{100 * after:.1f} %")
    stdout.print(table)
    lines = {
        "nearest to another centre": f"{100 * stability.changed:.1f} % of devices",
        "drift, older to newer half": f"{stability.drift:.2f} "
        f"([dim]{stability.drift_by_chance:.2f} by chance alone[/])",
        "variance explained": f"{100 * stability.explained_before:.1f} → "
        f"{100 * stability.explained_after:.1f} %",
        "silhouette": f"{_silhouette(stability.silhouette_before)} → "
        f"{_silhouette(stability.silhouette_after)}",
    }
    for name, value in lines.items():
        stdout.print(f"{name:<28}{value}", highlight=False)
    stdout.print("[dim]distances in deviations of the latents from their mean[/]")
    if gains is None:
        stdout.print(
            "[yellow]not judged: without labelled data nothing says what devices gain; publish it "
            "to a few percent first[/]"
        )
        return
    table = Table(
        box=None,
        title=f"what it gains: {gains.metric} on {gains.devices} held-out devices",
        title_justify="left",
    )
    for column in ("", "before", "after", "paired gain"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, gain in (("prototype only", gains.prototype_only), ("edited", gains.edited)):
        means = (f"{e.mean:.3f}" for e in (gain.before, gain.after))
        table.add_row(name, *means, shown(gain.after_minus_before, gains.metric, signed=True))
    stdout.print(table)
    stdout.print(f"{100 * gains.changed:.1f} % of them are edited around another prototype")


def _silhouette(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
