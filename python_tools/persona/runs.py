"""The run folder `persona.run/1`: what `persona train` leaves and every later command reads.

run.json                what made it: configuration, slots, curves, versions, file digests
backbone.safetensors    the frozen backbone
adapter.safetensors     the neural adapter; never leaves the cloud
prototypes.safetensors  prototype bank and the device's rule
NAME.py                 the user's own backbone, where there is one
keys/                   private keys, made on first use
last-bundle             path of the bundle exported last
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

import persona
from persona.backbones import Backbone
from persona.durable import sha256_of, staged_folder, write_atomic
from persona.formats import schema
from persona.formats.observation import ObservationSpec
from persona.formats.slots import SlotSpec
from persona.method.adapter import Adapter
from persona.method.personalise import Personaliser
from persona.method.prototypes import PrototypeBank
from persona.method.slots import SlotError
from persona.signing import SigningKey
from persona.training.backbone_files import backbone_file
from persona.training.config import RunConfig
from persona.training.pipeline import Trained, build_adapter, build_backbone, build_slots
from persona.training.stages import Curve, DeviceRule

RUN_FORMAT = "persona.run/1"
RECORD = "run.json"
LAST_BUNDLE = "last-bundle"


class RunError(ValueError):
    """A folder that is not a run, is damaged, or was made by another version."""


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` holds."""

    format: str
    config: RunConfig
    backbone_settings: dict[str, Any]
    slots: tuple[SlotSpec, ...]
    observation: ObservationSpec
    curves: dict[str, Curve]
    data_fingerprint: str
    versions: dict[str, str]
    files: dict[str, str]
    left_out: str


@dataclass(frozen=True)
class Run:
    """A trained run, loaded and checked."""

    path: Path
    record: RunRecord
    backbone: Backbone
    adapter: Adapter
    bank: PrototypeBank
    rule: DeviceRule

    @property
    def model(self) -> str:
        """The model's name in edits and bundles: the run's name and its backbone's digest."""
        return f"{self.record.config.name}-{self.record.files['backbone.safetensors'][:8]}"

    def personaliser(self) -> Personaliser:
        """Adapter and bank, ready to answer."""
        return Personaliser(self.adapter, self.bank).eval()

    def edit_key(self) -> SigningKey:
        """The key that signs edits; made on first use."""
        return SigningKey.load_or_create(self.path / "keys" / "edits.pem")

    def bundle_key(self) -> SigningKey:
        """The key that signs bundles; made on first use."""
        return SigningKey.load_or_create(self.path / "keys" / "bundles.pem")


def versions() -> dict[str, str]:
    """What software made an artefact."""
    packages = ("torch", "executorch", "coremltools", "numpy")
    found = {name: metadata.version(name) for name in packages}
    return {"persona": persona.__version__, "python": platform.python_version(), **found}


def save_run(
    trained: Trained, data_settings: dict[str, Any], out: Path, folder: Path | None
) -> None:
    """Write a run folder, whole or not at all."""
    tensors: dict[str, dict[str, Tensor]] = {
        "backbone.safetensors": trained.backbone.state_dict(),
        "adapter.safetensors": trained.adapter.state_dict(),
        "prototypes.safetensors": {
            **{f"bank.{name}": value for name, value in trained.bank.state_dict().items()},
            **{f"rule.{name}": value for name, value in vars(trained.rule).items()},
        },
    }
    config = trained.config
    with staged_folder(out) as staging:
        for name, state in tensors.items():
            contiguous = {key: value.contiguous().clone() for key, value in state.items()}
            safetensors.torch.save_file(contiguous, staging / name)
        own = backbone_file(config.backbone, folder)
        if own is not None:
            (staging / own.name).write_bytes(own.read_bytes())
            config = replace(config, backbone=replace(config.backbone, file=own.name))
        record = RunRecord(
            format=RUN_FORMAT,
            config=config,
            backbone_settings=data_settings,
            slots=trained.slots,
            observation=trained.observation,
            curves=trained.curves,
            data_fingerprint=trained.data_fingerprint,
            versions=versions(),
            left_out=trained.left_out,
            files={path.name: sha256_of(path) for path in sorted(staging.iterdir())},
        )
        text = json.dumps(schema.encode(record), indent=1) + "\n"
        (staging / RECORD).write_text(text, encoding="utf-8")


def load_run(path: Path) -> Run:
    """Read a run folder. Raises RunError saying what is wrong with it and what to do."""
    record = _read_record(path)
    for name, digest in record.files.items():
        if not (path / name).is_file():
            raise RunError(f"{path / name} is missing; train again or restore the file")
        if sha256_of(path / name) != digest:
            raise RunError(f"{path / name} was changed since training; train again or restore it")
    config = record.config
    backbone = build_backbone(config, record.backbone_settings, path)
    _check_slots(backbone, record, path)
    _fill(backbone, safetensors.torch.load_file(path / "backbone.safetensors"), path)
    adapter = build_adapter(backbone, record.slots, record.observation, config.adapter)
    bank = PrototypeBank(
        record.slots, config.prototypes.count, len(record.slots) * config.adapter.latent
    )
    stored = safetensors.torch.load_file(path / "prototypes.safetensors")
    _fill(adapter, safetensors.torch.load_file(path / "adapter.safetensors"), path)
    _fill(bank, _under("bank.", stored), path)
    rule = DeviceRule(**_under("rule.", stored))
    return Run(path, record, backbone, adapter, bank, rule)


def remember_bundle(path: Path, bundle: Path) -> None:
    """Note which bundle was exported last from the run at `path`, so that `serve` finds it."""
    relative = os.path.relpath(bundle, path)
    write_atomic(path / LAST_BUNDLE, f"{relative}\n".encode())


def last_bundle(path: Path) -> Path:
    """The bundle exported last from a run. Raises RunError where there is none."""
    note = path / LAST_BUNDLE
    if not note.is_file():
        raise RunError(f"{path} has no bundle yet: `persona export {path} --out BUNDLE` makes one")
    return path / note.read_text(encoding="utf-8").strip()


def _read_record(path: Path) -> RunRecord:
    file = path / RECORD
    if not file.is_file():
        raise RunError(f"{path} is not a run: it has no {RECORD}; make one with `persona train`")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file} is not JSON: {error}") from None
    found = value.get("format") if isinstance(value, dict) else None
    if found != RUN_FORMAT:
        software = value.get("versions") if isinstance(value, dict) else None
        made_by = software.get("persona", "?") if isinstance(software, dict) else "?"
        raise RunError(
            f"{path} has format {found!r}, made by version {made_by}; this version "
            f"({persona.__version__}) reads {RUN_FORMAT!r}: train again, or use that version"
        )
    try:
        return schema.decode(RunRecord, value, RECORD)
    except schema.SchemaError as error:
        raise RunError(f"{file}: {error}") from None


def _check_slots(backbone: Backbone, record: RunRecord, path: Path) -> None:
    try:
        slots = build_slots(backbone, record.config)
    except SlotError as error:
        raise RunError(f"{path / RECORD}: {error}") from None
    if slots != record.slots:
        raise RunError(f"{path / RECORD}: the slots are not those of the configuration")


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(
            f"{path} does not fit this version's {type(module).__name__}, which another version "
            f"made of other parts: train again, or use the version that made the run.\n{error}"
        ) from None
    module.eval().requires_grad_(False)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
