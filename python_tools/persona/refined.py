"""A run and a bundle whose prototypes were refined: everything else in them stays, byte for byte.

Backbone, adapter, programs, base slots and keys are those of the version before. So phones fetch
two small files, and an edit costs what it did. New are prototypes, the device's rule, and what the
golden vectors say of them; the manifest is signed anew, and its digest names the new version.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from persona.baselines import Setting
from persona.bundles import Bundle
from persona.data import Dataset
from persona.durable import staged_folder
from persona.evaluation.metrics import METRIC, score
from persona.evaluation.protocol import TEST_SEED, make_setting
from persona.evaluation.results import Estimate
from persona.formats import schema
from persona.formats.bundle_tensors import Prototypes, encode_golden, encode_prototypes
from persona.formats.edit import format_time
from persona.formats.manifest import MANIFEST, SIGNATURE, File, encode_manifest
from persona.formats.slots import Array
from persona.method.personalise import Personaliser
from persona.method.prototypes import PrototypeBank
from persona.method.slots import edited_forward
from persona.runs import LAST_BUNDLE, RECORD, Run
from persona.signing import encode_signature
from persona.training.devices import Fleet, edited_part
from persona.training.pipeline import StageProgress
from persona.training.refinement import Latents, Refined, Stability, refine_from_latents, refit
from persona.training.stages import DeviceRule

REPORT = "refinement.json"
REPORT_FORMAT = "persona.refinement/1"

_DEVICES_PER_PROTOTYPE = 10


class RefinementError(ValueError):
    """Latents that prototypes cannot be refined from; the message says why and what to do."""


@dataclass(frozen=True)
class Gain:
    """What a way to serve held-out devices scores under the prototypes before and after."""

    before: Estimate
    after: Estimate
    after_minus_before: Estimate


@dataclass(frozen=True)
class Gains:
    """On labelled devices that nothing was fitted to.

    changed: share of them whose edit is made around another prototype than before.
    """

    metric: str
    devices: int
    prototype_only: Gain
    edited: Gain
    changed: float

    @property
    def loses(self) -> bool:
        """Whether either way is worse than before, beyond what chance explains."""
        return any(g.after_minus_before.high < 0 for g in (self.prototype_only, self.edited))


@dataclass(frozen=True)
class Report:
    """What a refinement did. gains: None where there were no labelled devices.

    refined_from, bundle: digests of the version before and of the new one.
    """

    format: str
    model: str
    refined_from: str
    bundle: str
    stability: Stability
    gains: Gains | None


def refine(
    run: Run, latents: Latents, data: Dataset | None, progress: StageProgress
) -> tuple[Refined, Gains | None]:
    """Refine a run's prototypes from latents [D, width], the oldest device's first.

    data: labelled devices to fit and judge them on. Raises RefinementError.
    """
    config = run.record.config
    least = _DEVICES_PER_PROTOTYPE * run.bank.count
    if len(latents) < least or not np.ptp(latents, axis=0).any():
        raise RefinementError(
            f"expected latents of {least} devices or more that differ ({_DEVICES_PER_PROTOTYPE} a "
            f"prototype), got {len(latents)}; wait until more devices have asked for an edit"
        )
    progress("following the latents")
    weight = config.adapter.devices / run.bank.count
    refined = refine_from_latents(run.bank, run.adapter, run.rule, latents, weight, config.seed)
    if data is None:
        return refined, None
    setting = make_setting(run, data, progress)
    module, _ = edited_part(run.backbone, run.record.slots)
    refined = refit(
        refined,
        run.adapter,
        module,
        setting.train,
        setting.validation.tensors,
        config.prototypes,
        config.seed,
        progress,
    )
    held_out = data.devices("test", config.evaluation.devices, TEST_SEED + config.seed)
    progress("judging on held-out devices")
    return refined, judge(run, refined, setting, setting.fleet(held_out))


def judge(run: Run, refined: Refined, setting: Setting, fleet: Fleet) -> Gains:
    """Score both banks on the same devices, each alone and under individual edits."""
    tensors, task = fleet.tensors, setting.task

    def scores(bank: PrototypeBank, rule: DeviceRule) -> tuple[Array, Array, torch.Tensor]:
        personaliser = Personaliser(run.adapter, bank).eval()
        with torch.inference_mode():
            made = personaliser(tensors.observations)
            group = bank.chosen(rule.assign(tensors.vectors))
            own = personaliser.change(made.prototype, made.edit)
        grouped, edited = (
            score(task, setting.outputs(change, tensors), tensors.targets, tensors.absent).numpy()
            for change in (group, own)
        )
        return grouped, edited, made.prototype

    *before, was = scores(run.bank, run.rule)
    *after, now = scores(refined.bank, refined.rule)
    prototype_only, edited = (
        Gain(Estimate.of(b), Estimate.of(a), Estimate.of(a - b))
        for b, a in zip(before, after, strict=True)
    )
    changed = float((was != now).float().mean())
    return Gains(METRIC[task], len(fleet.devices), prototype_only, edited, changed)


def save_refined(
    run: Run, bundle: Bundle, refined: Refined, gains: Gains | None, out: Path
) -> Report:
    """Write `out`, whole or not at all: `run`, `bundle` and `refinement.json`."""
    with staged_folder(out) as staging:
        _write_run(run, refined, staging / "run")
        digest = _write_bundle(run, bundle, refined, staging / "bundle")
        (staging / "run" / LAST_BUNDLE).write_text("../bundle\n", encoding="utf-8")
        report = Report(
            format=REPORT_FORMAT,
            model=run.model,
            refined_from=bundle.digest,
            bundle=digest,
            stability=refined.stability,
            gains=gains,
        )
        text = json.dumps(schema.encode(report), indent=1) + "\n"
        (staging / REPORT).write_text(text, encoding="utf-8")
    return report


def _write_run(run: Run, refined: Refined, out: Path) -> None:
    """The run with another bank and rule, and with the same keys."""
    out.mkdir()
    for name in run.record.files:
        shutil.copy2(run.path / name, out / name)
    shutil.copytree(run.path / "keys", out / "keys")
    tensors = {
        **{f"bank.{name}": value for name, value in refined.bank.state_dict().items()},
        **{f"rule.{name}": value for name, value in vars(refined.rule).items()},
    }
    contiguous = {name: value.contiguous().clone() for name, value in tensors.items()}
    safetensors.torch.save_file(contiguous, out / "prototypes.safetensors")
    prototypes = _file(out / "prototypes.safetensors").sha256
    curves = run.record.curves
    if refined.curve is not None:
        curves = curves | {"refinement": refined.curve}
    record = replace(
        run.record, curves=curves, files=run.record.files | {"prototypes.safetensors": prototypes}
    )
    text = json.dumps(schema.encode(record), indent=1) + "\n"
    (out / RECORD).write_text(text, encoding="utf-8")


def _write_bundle(run: Run, bundle: Bundle, refined: Refined, out: Path) -> str:
    """The bundle with other prototypes; returns its digest."""
    shutil.copytree(bundle.path, out)
    manifest, golden = bundle.manifest, bundle.golden
    bank = {name: value.detach().numpy() for name, value in refined.bank.edits().items()}
    changes = tuple(
        {name: value[k] for name, value in bank.items()} for k in range(refined.bank.count)
    )
    rule = {name: value.numpy() for name, value in vars(refined.rule).items()}
    inputs = [tuple(x[port.name] for port in manifest.inputs) for x in golden.inputs]
    said = tuple(tuple(_eager(run, change, x) for x in inputs) for change in changes)
    files = {
        manifest.prototypes: encode_prototypes(manifest.slots, Prototypes(changes, **rule)),
        manifest.golden: encode_golden(
            manifest.slots,
            manifest.inputs,
            manifest.outputs[0],
            manifest.observation,
            replace(golden, prototypes=said),
        ),
    }
    for name, data in files.items():
        (out / name).write_bytes(data)
    written = encode_manifest(
        replace(
            manifest,
            created_at=format_time(datetime.now(UTC)),
            prototype_count=refined.bank.count,
            files=manifest.files | {name: _file(out / name) for name in files},
            made_by=manifest.made_by
            | {"refined_from": bundle.digest, "refinement": schema.encode(refined.stability)},
        )
    )
    key = run.bundle_key()
    (out / MANIFEST).write_bytes(written)
    (out / SIGNATURE).write_bytes(encode_signature(key.sign(written), key.public))
    return hashlib.sha256(written).hexdigest()


def _eager(run: Run, change: Mapping[str, Array], inputs: tuple[Any, ...]) -> Array:
    """What PyTorch makes of one input with a change."""
    one = {name: torch.from_numpy(value)[None] for name, value in change.items()}
    tensors = tuple(torch.from_numpy(x.copy())[None] for x in inputs)
    with torch.inference_mode():
        output: Array = edited_forward(run.backbone, run.record.slots, one, tensors)[0].numpy()
    return output


def _file(path: Path) -> File:
    data = path.read_bytes()
    return File(len(data), hashlib.sha256(data).hexdigest())
