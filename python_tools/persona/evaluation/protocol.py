"""The protocol: unseen devices, everything in one look, the other-device control beside it."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from persona.baselines import Setting, rivals
from persona.data import DataError, Dataset, Device
from persona.evaluation.metrics import METRIC
from persona.evaluation.results import (
    SCORES,
    DeviceResult,
    PrototypeMap,
    Results,
    scores,
)
from persona.formats import schema
from persona.runs import Run, versions
from persona.training.devices import DeviceTensors, edited_part, to_tensors
from persona.training.pipeline import DEVICE_SEED, StageProgress

TEST_SEED = 5_000
"""Test devices come from seeds from here on; training never uses one of them."""


@dataclass(frozen=True)
class Evaluated:
    """What evaluation in PyTorch found, device by device."""

    devices: tuple[DeviceResult, ...]
    rivals: dict[str, list[float]]
    edit_spread: float
    prototype_map: PrototypeMap


def make_setting(run: Run, data: Dataset, test: DeviceTensors) -> Setting:
    """The run with its training devices, ready to score test devices."""
    config = run.record.config
    slots, spec = run.record.slots, run.record.observation
    seed = DEVICE_SEED + config.seed
    train = data.devices("adapter", min(config.adapter.devices, 500), seed)
    module, _ = edited_part(run.backbone, slots)
    return Setting(
        task=run.backbone.task,
        module=module,
        slots=slots,
        observation=spec,
        personaliser=run.personaliser(),
        train=to_tensors(run.backbone, slots, spec, train),
        test=test,
    )


def score_rivals(setting: Setting) -> dict[str, list[float]]:
    """Every registered rival that applies: name -> score of each test device [D]."""
    found = {name: rivals[name]() for name in rivals}
    return {
        n: rival.scores(setting).tolist() for n, rival in found.items() if rival.applies(setting)
    }


def map_prototypes(codes: Tensor, members: Tensor, centres: Tensor) -> PrototypeMap:
    """Latents [D, width] and centres [K, width] in their first two principal components."""
    plane = PCA(min(2, *codes.shape), random_state=0).fit(codes.numpy())
    return PrototypeMap(
        points=tuple(map(tuple, plane.transform(codes.numpy()).tolist())),
        members=tuple(members.tolist()),
        centres=tuple(map(tuple, plane.transform(centres.numpy()).tolist())),
        explained=float(plane.explained_variance_ratio_.sum()),
    )


def edit_spread(edit: dict[str, Tensor]) -> float:
    """Deviation of edits [D, ...] across devices, relative to their root mean square."""
    flat = torch.cat([value.flatten(1) for value in edit.values()], dim=1)
    return float(flat.std(0).square().mean().sqrt() / flat.square().mean().sqrt().clamp_min(1e-9))


def evaluate_devices(run: Run, data: Dataset, devices: list[Device]) -> Evaluated:
    """Score static, prototype, edit, other device's edit and rivals in PyTorch."""
    test = to_tensors(run.backbone, run.record.slots, run.record.observation, devices)
    setting = make_setting(run, data, test)
    personaliser = setting.personaliser
    with torch.inference_mode():
        made = personaliser(test.observations)
        own = personaliser.change(made.prototype, made.edit)
        chosen = run.rule.assign(test.vectors)
        columns = {
            "static": setting.score(setting.nothing()),
            "prototype_only": setting.score(personaliser.bank.chosen(chosen)),
            "edited": setting.score(own),
            "other_device_control": setting.score({n: v.roll(1, 0) for n, v in own.items()}),
        }
        prototype_map = map_prototypes(
            made.codes.flatten(1), made.prototype, personaliser.bank.centres
        )
    results = tuple(
        DeviceResult(
            name=device.name,
            static=float(columns["static"][i]),
            prototype_only=float(columns["prototype_only"][i]),
            edited=float(columns["edited"][i]),
            other_device_control=float(columns["other_device_control"][i]),
            prototype=int(made.prototype[i]),
        )
        for i, device in enumerate(devices)
    )
    return Evaluated(results, score_rivals(setting), edit_spread(own), prototype_map)


def evaluate(
    run: Run, data: Dataset, count: int, seeds: tuple[int, ...], progress: StageProgress
) -> Results:
    """Evaluate a run on `count` unseen devices for each seed."""
    if data.fingerprint() != run.record.data_fingerprint:
        raise DataError(
            f"the run trained on data with fingerprint {run.record.data_fingerprint[:12]}, these "
            f"have {data.fingerprint()[:12]}; pass the data that it trained on, or train again"
        )
    start = time.perf_counter()
    step = progress("evaluating on unseen devices")
    evaluated: list[Evaluated] = []
    queries = 0
    for index, seed in enumerate(seeds):
        devices = data.devices("test", count, TEST_SEED + seed)
        queries = len(devices[0].targets)
        evaluated.append(evaluate_devices(run, data, devices))
        step(index + 1, len(seeds))
    found, rival_scores = _merge(evaluated)
    seconds = time.perf_counter() - start
    return Results(
        format="persona.results/1",
        model=run.model,
        bundle=None,
        metric=METRIC[run.backbone.task],
        quick=False,
        seeds=seeds,
        window=len(devices[0].window[0]),
        queries=queries,
        **scores(found, rival_scores),
        edit_spread=float(np.mean([e.edit_spread for e in evaluated])),
        devices=found,
        prototype_map=evaluated[0].prototype_map,
        curves=schema.encode(run.record.curves),
        latency=None,
        exports=(),
        left_out={},
        stages={"evaluation": seconds},
        seconds=seconds,
        made_by=made_by(run),
    )


def _merge(
    evaluated: list[Evaluated],
) -> tuple[tuple[DeviceResult, ...], dict[str, list[float]]]:
    """Devices and rivals' scores of all draws; a device that was drawn twice counts once, with
    its mean scores.
    """
    drawn = [device for e in evaluated for device in e.devices]
    places: dict[str, list[int]] = {}
    for place, device in enumerate(drawn):
        places.setdefault(device.name, []).append(place)

    def mean(values: list[float]) -> list[float]:
        return [float(np.mean([values[i] for i in found])) for found in places.values()]

    columns: dict[str, Any] = {c: mean([getattr(device, c) for device in drawn]) for c in SCORES}
    devices = tuple(
        replace(drawn[found[0]], **{c: columns[c][i] for c in SCORES})
        for i, found in enumerate(places.values())
    )
    rival_names = evaluated[0].rivals
    return devices, {n: mean([v for e in evaluated for v in e.rivals[n]]) for n in rival_names}


def made_by(run: Run) -> dict[str, object]:
    """What made these results."""
    return {
        "config": schema.encode(run.record.config),
        "data_fingerprint": run.record.data_fingerprint,
        "trained_with": run.record.versions,
        "evaluated_with": versions(),
    }
