"""Two tiny trained runs with their exported bundles, made once, and edits applied by hand.

`digits_*` classifies images and pools its observation; `sasrec_*` ranks and observes item ids.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from persona.bundles import Bundle, open_bundle
from persona.formats.slots import SlotSpec
from persona.runs import Run, load_run, save_run
from persona.signing import encode_signature
from persona.training.config import (
    AdapterConfig,
    BackboneConfig,
    DataConfig,
    PrototypeConfig,
    RunConfig,
)
from persona.training.pipeline import open_dataset, train
from persona_export.export import Wanted, export_bundle

Change = Mapping[str, np.ndarray]

DIGITS = RunConfig(
    "tiny-digits",
    DataConfig("digits"),
    BackboneConfig("image-net", {"width": 4, "hidden": 8}, steps=40, checks=1),
    AdapterConfig(devices=24, validation_devices=8, latent=8, hidden=16, steps=40, checks=1),
    PrototypeConfig(count=3, steps=20),
)
SASREC = RunConfig(
    "tiny-sasrec",
    DataConfig(
        "drifting-interests",
        {"users": 240, "items": 160, "clusters": 8, "events": 30, "session": 3, "length": 3},
    ),
    BackboneConfig("sasrec", {"dim": 8, "layers": 1}, steps=30, batch=64, checks=1),
    AdapterConfig(
        devices=32,
        validation_devices=16,
        latent=8,
        hidden=16,
        steps=20,
        batch=16,
        checks=1,
        min_window=1,
        max_window=100,
    ),
    PrototypeConfig(count=2, steps=10),
)


@pytest.fixture(autouse=True, scope="session")
def single_thread() -> None:
    torch.set_num_threads(1)


def _run(config: RunConfig, path: Path) -> Run:
    data = open_dataset(config, None)
    trained = train(config, data, None, lambda _: lambda _done, _all: None)
    save_run(trained, data.backbone_settings(), path, None)
    return load_run(path)


def _bundle(run: Run, path: Path) -> Bundle:
    wanted = (Wanted("executorch-xnnpack"), Wanted("coreml", "fp16"))
    export_bundle(run, wanted, path, lambda _: None)
    return open_bundle(path)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _run(DIGITS, tmp_path_factory.mktemp("digits") / "run")


@pytest.fixture(scope="session")
def digits_bundle(digits_run: Run) -> Bundle:
    return _bundle(digits_run, digits_run.path.parent / "bundle")


@pytest.fixture(scope="session")
def sasrec_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _run(SASREC, tmp_path_factory.mktemp("sasrec") / "run")


@pytest.fixture(scope="session")
def sasrec_bundle(sasrec_run: Run) -> Bundle:
    return _bundle(sasrec_run, sasrec_run.path.parent / "bundle")


@pytest.fixture(scope="session")
def edited_by_hand() -> Callable[..., nn.Module]:
    """A copy of a model whose parameters were changed one by one, without the product's code."""

    def edit(model: nn.Module, slots: tuple[SlotSpec, ...], *changes: Change) -> nn.Module:
        edited = copy.deepcopy(model).eval()
        for slot in slots:
            layer = edited.get_submodule(slot.name)
            given = [
                {
                    suffix: torch.from_numpy(np.array(change[f"{slot.name}.{suffix}"], np.float32))
                    for suffix in slot.tensors()
                }
                for change in changes
            ]
            with torch.no_grad():
                scale = 1 + sum(c.get("scale", torch.zeros(())) for c in given)
                layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.dim() - 1)))
                if layer.bias is not None:
                    layer.bias.mul_(scale)
                for change in given:
                    if "weight" in change:
                        layer.weight.add_(change["weight"])
                    if "a" in change:
                        layer.weight.add_(change["b"] @ change["a"])
                    for name in ("bias", "shift"):
                        if name in change:
                            layer.bias.add_(change[name])
        return edited

    return edit


@pytest.fixture(scope="session")
def at_the_bounds() -> Callable[[tuple[SlotSpec, ...], int], dict[str, np.ndarray]]:
    """A change with every element at its slot's bound, signs at random."""

    def change(slots: tuple[SlotSpec, ...], seed: int) -> dict[str, np.ndarray]:
        signs = np.random.default_rng(seed)
        return {
            f"{slot.name}.{suffix}": np.float32(slot.limits()[suffix])
            * signs.choice(np.array([-1, 1], np.float32), shape)
            for slot in slots
            for suffix, shape in slot.tensors().items()
        }

    return change


@pytest.fixture(scope="session")
def resigned() -> Callable[..., Bundle]:
    """A copy of a bundle with files or manifest fields replaced, signed anew by its publisher."""

    def copy_of(
        bundle: Bundle, run: Run, out: Path, files: Mapping[str, bytes], **fields: Any
    ) -> Bundle:
        shutil.copytree(bundle.path, out)
        manifest = json.loads((out / "manifest.json").read_text())
        for name, data in files.items():
            (out / name).write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
            manifest["files"][name] = {"size": len(data), "sha256": sha256}
        data = json.dumps(manifest | fields).encode()
        key = run.bundle_key()
        (out / "manifest.json").write_bytes(data)
        (out / "manifest.sig").write_bytes(encode_signature(key.sign(data), key.public))
        return open_bundle(out)

    return copy_of
