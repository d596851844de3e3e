"""Bundles for the checks, made by Persona's own trainer and exporter, and a cloud that serves them.

Training is as short as parity allows: how well a model ranks or classifies is not looked at here.
Run as a program, it makes both samples.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "ios_demo" / "build" / "samples"

PRESETS = {"images": "digits-quick", "items": "drifting-interests"}
"""Digits for a small convolutional network, items for SASRec."""

_SOURCES = (REPOSITORY / "python_tools", REPOSITORY / "mobile_export", Path(__file__))


Making = subprocess.Popen[str]
"""A process that makes the samples."""


def start() -> Making | None:
    """Begin to make the samples, unless they are there for these sources."""
    mark = FOLDER / "key"
    if mark.is_file() and mark.read_text() == _key():
        return None
    return subprocess.Popen(
        [sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait(process: Making | None) -> None:
    """Until the samples are there. Raises RuntimeError with what went wrong."""
    if process is None:
        return
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the samples cannot be made:\n" + "\n".join(said.splitlines()[-25:]))


def _key() -> str:
    digest = hashlib.sha256()
    for place in _SOURCES:
        for file in sorted([place] if place.is_file() else place.rglob("*")):
            if file.suffix in (".py", ".toml"):
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _make() -> None:
    import torch

    torch.set_num_threads(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in PRESETS:
        _make_one(name)
    (FOLDER / "key").write_text(_key())


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
    place = FOLDER / name
    save_run(trained, data.backbone_settings(), place / "run", None)
    wanted = (Wanted("executorch-xnnpack"),)
    export_bundle(load_run(place / "run"), wanted, place / "bundle", lambda _: None)
    users = unseen_users(open_bundle(place / "bundle"), None, 2, 0)
    tensors = {
        f"{user}.{i}": np.ascontiguousarray(column)
        for user, simulated in enumerate(users)
        for i, column in enumerate(simulated.window)
    }
    (place / "windows.safetensors").write_bytes(container.encode(tensors, {"format": "windows"}))


def _config(name: str) -> Any:
    from persona.training.config import load_config

    config, _ = load_config(PRESETS[name])
    data = config.data
    if name == "items":
        data = replace(data, settings={**data.settings, "users": 400})
    return replace(
        config,
        data=data,
        backbone=replace(config.backbone, steps=300 if name == "images" else 80, checks=1),
        adapter=replace(config.adapter, devices=100, validation_devices=20, steps=60, checks=1),
        prototypes=replace(config.prototypes, count=4, steps=20, rule_steps=50),
    )


@contextmanager
def serving(name: str) -> Iterator[str]:
    """The address of a `persona serve` on a free port with an empty database."""
    place = FOLDER / name
    for file in place.glob("cloud.sqlite*"):
        file.unlink()
    line = [
        sys.executable, "-m", "persona", "serve", place / "run", "--bundle", place / "bundle",
        "--port", "0", "--database", f"sqlite:///{place / 'cloud.sqlite'}", "--json",
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
                    raise RuntimeError(f"persona serve did not start:\n{log.read_text()[-2000:]}")
                said += more
            yield str(json.loads(said)["url"])
        finally:
            process.terminate()


if __name__ == "__main__":
    _make()
