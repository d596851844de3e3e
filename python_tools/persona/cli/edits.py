"""`persona edits`: edits for a whole file of observations, as files to be served."""

import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from persona.cli.terminal import command, json_option, progress_stages, say_json, stdout

if TYPE_CHECKING:
    from persona.signing import SigningKey


@click.command()
@click.argument("observations", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), required=True, help="The trained run.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    required=True,
    help="The bundle that the observations were made with, and the edits are for.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder; one that was begun and interrupted is completed.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Compute on a Ray cluster, or with `local` on all processors of this machine.",
)
@click.option(
    "--valid-days",
    type=click.IntRange(1),
    default=7,
    show_default=True,
    help="How long an edit is valid.",
)
@click.option(
    "--database",
    envvar="DATABASE_URL",
    help="The cloud's, also from DATABASE_URL: the key that signs there signs here. Needed once "
    "keys were added or revoked.  [default: the run's first key signs]",
    metavar="URL",
)
@json_option
@command
def edits(
    observations: Path,
    run: Path,
    bundle: Path,
    out: Path,
    ray: str | None,
    valid_days: int,
    database: str | None,
    as_json: bool,
) -> None:
    """Compute signed edits for a file of observations.

    OBSERVATIONS is a .csv or .parquet file with the columns device, sequence (the number that the
    edit shall have) and observation. Observations that are no good are listed in OUT/index beside
    the others, and stop nothing.
    """
    import torch

    from persona.offline_edits import PartMaker, finish, plan_edits, unfinished
    from persona.offline_ray import import_ray, make_on_ray

    torch.set_num_threads(1)
    if ray is not None:
        import_ray()
    with progress_stages() as stages:
        stages("reading the observations")
        key = None if database is None else _signing_at(database, run)
        plan = plan_edits(observations, run, bundle, out, timedelta(days=valid_days), key=key)
        parts = unfinished(plan, out)
        advance, done = stages("making edits"), Counter({"parts": plan.parts - len(parts)})
        advance(done["parts"], max(1, plan.parts))
        start = time.perf_counter()

        def made(edits: int, refused: int) -> None:
            done.update(parts=1, rows=edits + refused)
            advance(done["parts"], plan.parts)

        if parts and ray is not None:
            make_on_ray(parts, run, bundle, out, ray, made)
        elif parts:
            maker = PartMaker(run, bundle, out)
            for number in parts:
                part = maker.make(number)
                made(part.edits, sum(part.problems.values()))
        seconds = time.perf_counter() - start
        manifest = finish(plan, out)
    problems: Counter[str] = Counter()
    for finished in manifest.parts:
        problems.update(finished.problems)
    count = sum(part.edits for part in manifest.parts)
    if as_json:
        say_json(
            {
                "out": str(out),
                "edits": count,
                "refused": dict(problems),
                "parts": plan.parts,
                "parts_made_now": len(parts),
                "rows_made_now": done["rows"],
                "seconds": round(seconds, 1),
            }
        )
        return
    stdout.print(f"[green]made[/] {out}: {count:,} edits in {plan.parts} parts")
    if parts:
        stdout.print(f"{done['rows']:,} now, in {seconds:.1f} s", highlight=False)
    for code, refused in problems.most_common():
        stdout.print(f"[yellow]{refused:,} refused[/]: {code}", highlight=False)


def _signing_at(database: str, run: Path) -> "SigningKey":
    """The key that signs in the cloud with this database. Raises SigningKeyError, StoreError."""
    from persona.signing import SigningKeyError
    from persona_cloud.problems import Problem
    from persona_cloud.signing_keys import SigningKeys
    from persona_cloud.store import Store

    try:
        return SigningKeys(Store(database), run / "keys").current()
    except Problem:
        raise SigningKeyError(
            f"{run / 'keys'} holds no private key that devices trust to sign edits; copy there one "
            f"that `persona operator signing-key list {run}` names"
        ) from None
