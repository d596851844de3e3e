"""`persona edit`: make, show and verify edit files by hand."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from persona.cli.bundle import open_trusted, trust_option
from persona.cli.terminal import command, json_option, say_json, stdout, unseen_device_options


@click.group()
def edit() -> None:
    """Make, show or verify the file that changes a device's slots."""


def _named(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("a device has a name: the id that the cloud enrolled it under")
    return value


@edit.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@unseen_device_options
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="A .json file."
)
@trust_option
@json_option
@command
def observe(
    bundle: Path, data: Path | None, seed: int, out: Path, trust: Path | None, as_json: bool
) -> None:
    """Write the observation that one unseen device would upload, for `edit make`."""
    from persona.cli.simulated import unseen_users
    from persona.device.device import Device
    from persona.durable import write_atomic
    from persona.formats.observation import Envelope, to_json

    opened = open_trusted(bundle, trust)
    (user,) = unseen_users(opened, data, 1, seed)
    with tempfile.TemporaryDirectory() as folder:
        observation = Device(opened, Path(folder)).observe(user.window)
    document = to_json(Envelope(opened.digest, observation))
    write_atomic(out, json.dumps(document).encode())
    if as_json:
        say_json({"observation": str(out), "device": user.name})
        return
    stdout.print(f"[green]observed[/] {out}: what device {user.name} would upload")


@edit.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    "bundle_path",
    type=click.Path(path_type=Path),
    required=True,
    help="The bundle that the edit is for.",
)
@click.option(
    "--observation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="A persona.observation/1 file: .json or .safetensors.",
)
@click.option("--device", required=True, callback=_named, help="For which device.")
@click.option(
    "--sequence",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Its sequence number.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Where to write it.",
)
@json_option
@command
def make(
    run: Path,
    bundle_path: Path,
    observation: Path,
    device: str,
    sequence: int,
    out: Path,
    as_json: bool,
) -> None:
    """Turn an observation into a signed edit, as the cloud does. Writes OUT and OUT.sig."""
    from persona.durable import write_atomic
    from persona.formats.errors import Code, FormatError
    from persona.formats.observation import from_safetensors, parse_json
    from persona.issuing import Issuer, Request
    from persona.runs import load_run
    from persona.signing import encode_signature

    opened = open_trusted(bundle_path, None)
    spec, data = opened.manifest.observation, observation.read_bytes()
    read = parse_json if observation.suffix == ".json" else from_safetensors
    envelope = read(spec, data)
    if envelope.bundle != opened.digest:
        raise FormatError(
            Code.OBSERVATION_OTHER_BASE,
            f"the observation was made with bundle {envelope.bundle[:12]}, this is "
            f"{opened.digest[:12]}; observe again with this bundle",
        )
    request = Request(device, sequence, envelope.observation)
    (issued,) = Issuer(load_run(run), opened).issue([request])
    write_atomic(out.with_name(f"{out.name}.sig"), encode_signature(issued.signature))
    write_atomic(out, issued.data)
    if as_json:
        say_json({"edit": str(out), "bytes": len(issued.data), "prototype": issued.info.prototype})
        return
    stdout.print(
        f"[green]made[/] {out}: {len(issued.data)} bytes around prototype {issued.info.prototype}"
    )


@edit.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@command
def show(path: Path, as_json: bool) -> None:
    """Say what an edit file holds. Nothing is verified: use `verify` for that."""
    import numpy as np

    from persona.formats import container

    tensors, metadata = container.decode(path.read_bytes())
    described: dict[str, Any] = {
        "metadata": metadata,
        "tensors": {
            name: {
                "dtype": t.dtype,
                "shape": list(t.shape),
                "largest": float(np.abs(t.array().astype(np.float64)).max(initial=0.0)),
            }
            for name, t in tensors.items()
        },
        "bytes": path.stat().st_size,
    }
    if as_json:
        say_json(described)
        return
    stdout.print_json(json.dumps(described))


@edit.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--bundle",
    "bundle_path",
    type=click.Path(path_type=Path),
    required=True,
    help="The bundle that the edit is for.",
)
@click.option("--device", required=True, help="The device that it should be for.")
@click.option(
    "--sequence",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The newest the device has had.",
)
@trust_option
@json_option
@command
def verify(
    path: Path, bundle_path: Path, device: str, sequence: int, trust: Path | None, as_json: bool
) -> None:
    """Check an edit as a device does: signature, addressee, time, shapes, bounds, probe."""
    from persona.device.live import LiveModel
    from persona.formats.errors import Code, FormatError
    from persona.formats.verify import verify_edit
    from persona.signing import decode_signature

    opened = open_trusted(bundle_path, trust)
    signature_path = path.with_name(f"{path.name}.sig")
    if not signature_path.is_file():
        raise FormatError(Code.BAD_SIGNATURE, f"expected the signature at {signature_path}")
    try:
        signature = decode_signature(signature_path.read_bytes())
    except ValueError as error:
        raise FormatError(
            Code.BAD_SIGNATURE, f"{signature_path} cannot be read ({error}); ask for the edit again"
        ) from None
    expected = opened.expectation(device, sequence)
    verified = verify_edit(
        path.read_bytes(), signature, opened.edit_keys(), expected, datetime.now(UTC)
    )
    LiveModel(opened).use_edit(verified)
    if as_json:
        say_json({"verdict": "ok", "sequence": verified.info.sequence})
        return
    stdout.print(f"[green]ok[/] {path}: sequence {verified.info.sequence}, probe passed")
