"""A run trained in a second, and a bundle of it without programs: all that the cloud needs."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from persona.bundles import Bundle, open_bundle
from persona.formats.bundle_tensors import (
    Golden,
    Prototypes,
    encode_base,
    encode_golden,
    encode_prototypes,
)
from persona.formats.manifest import EditKey, File, Manifest, Port, encode_manifest
from persona.method.slots import applied, base_tensors
from persona.runs import Run, load_run, save_run
from persona.signing import encode_signature, to_text
from persona.training.config import (
    AdapterConfig,
    BackboneConfig,
    DataConfig,
    PrototypeConfig,
    RunConfig,
)
from persona.training.pipeline import open_dataset, train

CONFIG = RunConfig(
    "tiny",
    DataConfig("digits"),
    BackboneConfig("image-net", {"width": 4, "hidden": 8}, steps=40, checks=1),
    AdapterConfig(devices=24, validation_devices=8, latent=8, hidden=16, steps=40, checks=1),
    PrototypeConfig(count=3, steps=20),
)


def make_run(path: Path) -> Run:
    data = open_dataset(CONFIG, None)
    trained = train(CONFIG, data, None, lambda _: lambda _done, _all: None)
    save_run(trained, data.backbone_settings(), path, None)
    return load_run(path)


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in tensors.items()}


def make_bundle(run: Run, path: Path, edit_key: bytes | None = None) -> Bundle:
    """A bundle with golden vectors from PyTorch. edit_key: named in place of the run's own."""
    slots, spec = run.record.slots, run.record.observation
    changes = [
        {name: value[k] for name, value in run.bank.edits().items()} for k in range(run.bank.count)
    ]
    (image,) = run.backbone.example_inputs()

    def output(change: dict[str, torch.Tensor]) -> np.ndarray:
        with applied(run.backbone, slots, change), torch.no_grad():
            return run.backbone(image).numpy()

    with torch.inference_mode():
        features, posterior = run.backbone.features(image)
    zero = {name: torch.zeros_like(value) for name, value in changes[0].items()}
    golden = Golden(
        inputs=({"image": image.numpy()},),
        base=(output(zero),),
        prototypes=tuple((output(change),) for change in changes),
        edit=arrays(changes[0]),
        edited=(output(changes[0]),),
        features=(features.numpy(),),
        posterior=(posterior.numpy(),),
    )
    inputs = (Port("image", "float32", tuple(image.shape)),)
    outputs = (Port("logits", "float32", golden.base[0].shape),)
    rule = Prototypes(tuple(arrays(change) for change in changes), **arrays(vars(run.rule)))
    files = {
        "base.safetensors": encode_base(slots, arrays(base_tensors(run.backbone, slots))),
        "prototypes.safetensors": encode_prototypes(slots, rule),
        "golden.safetensors": encode_golden(slots, inputs, outputs[0], spec, golden),
    }
    public = edit_key or run.edit_key().public
    manifest = Manifest(
        format="persona.bundle/1",
        model=run.model,
        task="classification",
        created_at="2026-01-31T12:00:00Z",
        inputs=inputs,
        outputs=outputs,
        slots=slots,
        observation=spec,
        prototype_count=run.bank.count,
        base="base.safetensors",
        prototypes="prototypes.safetensors",
        golden="golden.safetensors",
        programs=(),
        edit_keys=(EditKey(hashlib.sha256(public).hexdigest()[:16], to_text(public)),),
        max_edit_bytes=65_536,
        max_observation_bytes=200_000,
        files={n: File(len(d), hashlib.sha256(d).hexdigest()) for n, d in files.items()},
        made_by={},
    )
    key, data = run.bundle_key(), encode_manifest(manifest)
    files["manifest.json"] = data
    files["manifest.sig"] = encode_signature(key.sign(data), key.public)
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return open_bundle(path)
