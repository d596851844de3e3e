"""`persona device`: a phone on this machine, over the real runtime, against a real cloud."""

import tempfile
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from persona.cli.bundle import open_trusted, trust_option
from persona.cli.terminal import command, json_option, say_json, stdout, unseen_device_options


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--cloud",
    help="Address of the cloud adapter.  [default: none, as without network]",
    metavar="URL",
)
@unseen_device_options
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where it keeps its identity and edit.  [default: a temporary folder]",
)
@trust_option
@json_option
@command
def device(
    bundle: Path,
    cloud: str | None,
    data: Path | None,
    seed: int,
    folder: Path | None,
    trust: Path | None,
    as_json: bool,
) -> None:
    """Be one unseen device: check the bundle, observe, ask for an edit, swap, predict.

    Says how its predictions changed, and on what it runs now. Without the cloud it falls back to
    its last edit, then to a prototype, then to the base; that is not an error.
    """
    from persona.cli.simulated import query_score, unseen_users
    from persona.device.client import CloudClient
    from persona.device.device import Device, Personalisation
    from persona.signing import read_public_key

    opened = open_trusted(bundle, trust)
    pinned = None if trust is None else [read_public_key(trust)]
    (user,) = unseen_users(opened, data, 1, seed)
    with tempfile.TemporaryDirectory() as temporary:
        phone = Device(opened, folder or Path(temporary), pinned)
        before = query_score(phone, user)
        if cloud is None:
            phone.fall_back(phone.observe(user.window))
            came = Personalisation(phone.live.state, "no --cloud was named", None, None, None)
        else:
            with CloudClient(cloud, opened.manifest.model) as client:
                came = phone.personalise(client, user.window)
        found: dict[str, Any] = {
            "device": phone.store.state.device,
            "state": type(came.state).__name__,
            "problem": came.problem,
            "before": before,
            "after": query_score(phone, user),
            "edit_bytes": came.edit_bytes,
            "edit_to_active_ms": came.edit_to_active_ms,
            "round_trip_ms": came.round_trip_ms,
        }
    if as_json:
        say_json(found)
        return
    stdout.print(f"[bold]{found['state']}[/]  score {found['before']:.3f} → {found['after']:.3f}")
    if came.problem is not None:
        stdout.print(f"[yellow]no new edit:[/] {escape(came.problem)}")
    else:
        stdout.print(
            f"edit of {came.edit_bytes} bytes, active {came.edit_to_active_ms:.2f} ms after it came"
        )
