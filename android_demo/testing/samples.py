"""Bundles for the checks, made by Persona's own trainer and exporter, and PyTorch's answers.

Run as a program, it trains and exports both; training is as short as parity allows. The answers
come from eager PyTorch with the edit in its parameters: nothing of the device's code is in them.
"""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from toolchain import BUILD, REPOSITORY, BrokenError, fingerprint, fresh

NAMES = ("images", "items")
"""Digits for a small convolutional network, items for SASRec."""

_FOLDER = BUILD / "samples"
_SOURCES = (REPOSITORY / "python_tools", REPOSITORY / "mobile_export")


def folder(name: str) -> Path:
    """Where a sample's `run`, `bundle` and `window.safetensors` are."""
    return _FOLDER / name


def start() -> "subprocess.Popen[str] | None":
    """Begin to make the samples, unless they are there for these very sources."""
    mark = _FOLDER / "key"
    if mark.is_file() and mark.read_text() == _key():
        return None
    return subprocess.Popen(
        [sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait(process: "subprocess.Popen[str] | None") -> str:
    """Until the samples are there. Raises BrokenError with what went wrong."""
    if process is None:
        return "there from before"
    said, _ = process.communicate()
    if process.returncode:
        raise BrokenError("the samples cannot be made:\n" + "\n".join(said.splitlines()[-25:]))
    return "trained and exported"


def _key() -> str:
    files = [
        file for place in _SOURCES for file in place.rglob("*") if file.suffix in (".py", ".toml")
    ]
    made = inspect.getsource(_make_one) + inspect.getsource(_config)
    return fingerprint({"made": made}, files)


def _make() -> None:
    torch.set_num_threads(1)
    fresh(_FOLDER)
    for name in NAMES:
        _make_one(name)
    (_FOLDER / "key").write_text(_key())


def _make_one(name: str) -> None:
    from persona.bundles import open_bundle
    from persona.cli.simulated import unseen_users
    from persona.formats import container
    from persona.runs import load_run, save_run
    from persona.training.pipeline import open_dataset, train
    from persona_export.export import Wanted, export_bundle

    config = _config(name)
    data = open_dataset(config, None)
    trained = train(config, data, None, lambda _: lambda _done, _all: None)
    place = folder(name)
    save_run(trained, data.backbone_settings(), place / "run", None)
    wanted = (Wanted("executorch-xnnpack"),)
    export_bundle(load_run(place / "run"), wanted, place / "bundle", lambda _: None)
    opened = open_bundle(place / "bundle")
    (user,) = unseen_users(opened, None, 1, 0)
    tensors = {f"window.{i}": np.ascontiguousarray(x) for i, x in enumerate(user.window)}
    for i, column in enumerate(user.queries):
        for q in range(min(len(column), 20)):
            tensors[f"query.{q}.{i}"] = np.ascontiguousarray(column[q : q + 1])
    (place / "window.safetensors").write_bytes(container.encode(tensors, {"user": user.name}))


def _config(name: str) -> Any:
    from persona.training.config import load_config

    config, _ = load_config({"images": "digits-quick", "items": "drifting-interests"}[name])
    if name == "images":
        return replace(
            config,
            backbone=replace(config.backbone, steps=300, checks=1),
            adapter=replace(config.adapter, devices=200, validation_devices=20, steps=80, checks=1),
            prototypes=replace(config.prototypes, count=4, steps=20, rule_steps=100),
        )
    settings = {**config.data.settings, "users": 400}
    return replace(
        config,
        data=replace(config.data, settings=settings),
        backbone=replace(config.backbone, steps=80, checks=1),
        adapter=replace(config.adapter, devices=100, validation_devices=10, steps=40, checks=1),
        prototypes=replace(config.prototypes, count=4, steps=20, rule_steps=50),
    )


@contextmanager
def serving(name: str, host: str = "127.0.0.1") -> Iterator[str]:
    """`persona serve` as a process of its own on a free port, with an empty database."""
    place = folder(name)
    database = place / "cloud.sqlite"
    for file in place.glob("cloud.sqlite*"):
        file.unlink()
    line = [
        sys.executable, "-m", "persona", "serve", place / "run", "--bundle", place / "bundle",
        "--host", host, "--port", "0", "--database", f"sqlite:///{database}", "--json",
    ]  # fmt: skip
    log = place / "cloud.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            list(map(str, line)), stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = ""
            while not said.rstrip().endswith("}"):
                more = process.stdout.readline()
                if not more:
                    raise BrokenError(f"persona serve did not start:\n{log.read_text()[-2000:]}")
                said += more
            yield json.loads(said)["url"]
        finally:
            process.terminate()


def publisher_key(name: str) -> str:
    """The public key that signed the bundle (DER, base64), as an app pins it."""
    stored = json.loads((folder(name) / "bundle" / "manifest.sig").read_text())
    return str(stored["public_key"])


def answers(name: str, edit: bytes | None) -> dict[int, NDArray[np.float32]]:
    """Query number -> what eager PyTorch makes of it with this edit, or with none."""
    from persona.bundles import open_bundle
    from persona.formats import container
    from persona.formats.edit import parse_info
    from persona.method.slots import applied, compose
    from persona.runs import load_run

    run, bundle = load_run(folder(name) / "run"), open_bundle(folder(name) / "bundle")
    slots = bundle.manifest.slots
    names = [f"{s.name}.{suffix}" for s in slots for suffix in s.tensors()]
    changes: list[Mapping[str, NDArray[np.float32]]] = []
    if edit is not None:
        tensors, metadata = container.decode(edit)
        group = parse_info(metadata).prototype
        changes = [] if group is None else [bundle.prototypes.changes[group]]
        changes.append({n: tensors[n].array() for n in names})
    backbone = run.backbone.eval()
    given, _ = container.decode((folder(name) / "window.safetensors").read_bytes())
    torch_changes = [{n: torch.from_numpy(c[n].astype(np.float32)) for n in names} for c in changes]

    def answer(query: int) -> NDArray[np.float32]:
        columns = sorted(n for n in given if n.startswith(f"query.{query}."))
        inputs = [torch.from_numpy(given[n].array().copy()) for n in columns]
        with torch.no_grad():
            output: NDArray[np.float32] = backbone(*inputs).numpy()
        return output.copy()

    count = 1 + max(int(n.split(".")[1]) for n in given if n.startswith("query."))
    if not torch_changes:
        return {query: answer(query) for query in range(count)}
    with applied(backbone, slots, compose(slots, *torch_changes)):
        return {query: answer(query) for query in range(count)}


def compared(name: str, outputs: bytes, edit: bytes, allowed: float) -> str:
    """Hold what the phone gave against PyTorch's answers. Raises BrokenError where they differ."""
    from persona.formats import container
    from persona_export.parity import difference

    found, _ = container.decode(outputs)
    worst = {}
    for state, given in (("base", None), ("edited", edit)):
        expected = answers(name, given)
        worst[state] = max(
            difference(output, found[f"{state}.{query}"].array())
            for query, output in expected.items()
        )
        if not worst[state] <= allowed:
            raise BrokenError(
                f"{state} outputs are {worst[state]:.1e} from PyTorch's, {allowed:g} is allowed"
            )
    moved = max(
        difference(found[f"base.{q}"].array(), found[f"edited.{q}"].array()) for q in expected
    )
    if not moved > 10 * allowed:
        raise BrokenError(f"the edit moved outputs by {moved:.1e} only: it has no effect")
    figures = ", ".join(f"{state} {apart:.1e}" for state, apart in worst.items())
    return (
        f"{figures} from PyTorch over {len(expected)} queries; the edit moves them by {moved:.2g}"
    )


if __name__ == "__main__":
    _make()
