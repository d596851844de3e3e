"""The protocol: unseen devices, everything in one look, the other-device control beside it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from persona.baselines import Rival, Setting, rivals
from persona.data import DataError, Dataset, Device
from persona.data.leaks import Known
from persona.data.streams import streams
from persona.evaluation.cost import costs
from persona.evaluation.metrics import (
    METRIC,
    Calibration,
    calibration,
    chance_of_losing,
    pooled,
    query_scores,
)
from persona.evaluation.provenance import made_by
from persona.evaluation.results import (
    LOSS_POINTS,
    OURS,
    WITHOUT,
    DeviceResult,
    LeftOut,
    PrototypeMap,
    Results,
    Scored,
    scores,
    table,
)
from persona.formats import schema
from persona.method.slots import Edit
from persona.runs import Run
from persona.training.config import RunConfig
from persona.training.devices import Fleet
from persona.training.pipeline import StageProgress, observe_devices, open_dataset
from persona.training.stages import DeviceRule

TEST_SEED = 5_000
"""Test devices come from seeds from here on; training never uses one of them."""


@dataclass(frozen=True)
class Examined:
    """What one trained system scored on one fleet.

    scored: way to serve the devices -> metric -> each device's score. chance: how likely each
    device would lose under its edit by chance alone. upper_bounds: ways that read labels.
    """

    devices: tuple[DeviceResult, ...]
    scored: Scored
    chance: tuple[float, ...]
    upper_bounds: tuple[str, ...]
    calibration: dict[str, Calibration]
    edit_spread: float
    prototype_map: PrototypeMap

    @property
    def rivals(self) -> dict[str, list[float]]:
        """Rival -> each device's score in the task's own metric."""
        return {
            name: list(next(iter(found.values())))
            for name, found in self.scored.items()
            if name not in OURS and not name.startswith(WITHOUT)
        }


def make_setting(run: Run, data: Dataset, progress: StageProgress | None = None) -> Setting:
    """The run with its training devices drawn again: what rivals prepare themselves with."""
    record = run.record
    return Setting(
        config=record.config,
        data=data,
        backbone=run.backbone,
        slots=record.slots,
        observation=record.observation,
        personaliser=run.personaliser(),
        observed=observe_devices(
            record.config, data, run.backbone, record.slots, record.observation, progress or _silent
        ),
    )


def prepare_rivals(
    setting: Setting, *, with_training: bool, progress: StageProgress
) -> dict[str, Rival]:
    """Every registered rival that applies, prepared; those that train anew only if asked for."""
    found = {name: rivals[name]() for name in rivals}
    chosen = {
        name: rival
        for name, rival in found.items()
        if rival.applies(setting) and (with_training or not rival.trains)
    }
    for name, rival in chosen.items():
        progress(f"preparing {name}")
        rival.fit(setting)
    return chosen


def map_prototypes(codes: Tensor, members: Tensor, centres: Tensor) -> PrototypeMap:
    """Latents [D, width] and centres [K, width] in their first two principal components."""
    plane = PCA(min(2, *codes.shape), random_state=0).fit(codes.numpy())
    return PrototypeMap(
        points=tuple(map(tuple, plane.transform(codes.numpy()).tolist())),
        members=tuple(members.tolist()),
        centres=tuple(map(tuple, plane.transform(centres.numpy()).tolist())),
        explained=float(plane.explained_variance_ratio_.sum()),
    )


def edit_spread(edit: Edit) -> float:
    """Deviation of edits [D, ...] across devices, relative to their root mean square."""
    flat = torch.cat([value.flatten(1) for value in edit.values()], dim=1)
    return float(flat.std(0).square().mean().sqrt() / flat.square().mean().sqrt().clamp_min(1e-9))


def examine(
    setting: Setting, rule: DeviceRule, fleet: Fleet, prepared: Mapping[str, Rival]
) -> Examined:
    """Score every way to serve the fleet: static, prototype, edit, control and rivals."""
    tensors, personaliser = fleet.tensors, setting.personaliser
    outputs: dict[str, Tensor] = {}
    with torch.inference_mode():
        outputs["static"] = setting.static_outputs(tensors)
        made = personaliser(tensors.observations)
        own = personaliser.change(made.prototype, made.edit)
        outputs["edited"] = setting.outputs(own, tensors)
        group = personaliser.bank.chosen(rule.assign(tensors.vectors))
        outputs["prototype_only"] = setting.outputs(group, tensors)
        other = {name: value.roll(1, 0) for name, value in own.items()}
        outputs["other_device_control"] = setting.outputs(other, tensors)
    for name, rival in prepared.items():
        if rival.uses_window_labels and not _labelled(setting, fleet):
            continue
        outputs[name] = rival.outputs(setting, fleet).detach()
    each = {
        name: query_scores(setting.task, found, tensors.targets, tensors.absent)
        for name, found in outputs.items()
    }
    scored = {
        name: {metric: tuple(values.mean(-1).tolist()) for metric, values in found.items()}
        for name, found in each.items()
    }
    metric = METRIC[setting.task]
    change = each["edited"][metric] - each["static"][metric]
    classes = setting.task == "classification"
    return Examined(
        devices=tuple(
            _device(device.name, scored, metric, i, int(made.prototype[i]))
            for i, device in enumerate(fleet.devices)
        ),
        scored=scored,
        chance=tuple(chance_of_losing(change, LOSS_POINTS).tolist()),
        upper_bounds=tuple(n for n, rival in prepared.items() if rival.uses_labels),
        calibration={
            name: calibration(found, tensors.targets) for name, found in outputs.items() if classes
        },
        edit_spread=edit_spread(own),
        prototype_map=map_prototypes(
            made.codes.flatten(1), made.prototype, personaliser.bank.centres
        ),
    )


def _labelled(setting: Setting, fleet: Fleet) -> bool:
    """Whether the windows' labels are known: always for rankings, where a window holds its own."""
    return setting.task == "ranking" or all(d.window_targets is not None for d in fleet.devices)


def _device(name: str, scored: Scored, metric: str, index: int, prototype: int) -> DeviceResult:
    static, prototype_only, edited, other = (scored[way][metric][index] for way in OURS)
    return DeviceResult(name, static, prototype_only, edited, other, prototype)


def evaluate_devices(run: Run, data: Dataset, devices: list[Device]) -> Examined:
    """Examine a run on given devices, beside the rivals that need no training of their own."""
    setting = make_setting(run, data)
    prepared = prepare_rivals(setting, with_training=False, progress=_silent)
    return examine(setting, run.rule, setting.fleet(devices), prepared)


def _silent(_stage: str) -> Callable[[int, int], None]:
    return lambda _done, _all: None


def unseen_devices(
    config: RunConfig, data: Dataset, root: Path | None, count: int, seed: int
) -> dict[str, list[Device]]:
    """Test devices, then those of every condition and stream of the configuration, by name.

    Conditions draw devices from the same data under other settings; streams spoil the first ones.
    """
    found = {"": data.devices("test", count, TEST_SEED + seed)}
    for condition in config.evaluation.conditions:
        settings = config.data.settings | condition.settings
        other = open_dataset(config.with_data(settings), root)
        found[condition.name] = other.devices("test", count, TEST_SEED + seed)
    for index, name in enumerate(config.evaluation.streams):
        rng = np.random.default_rng([TEST_SEED + seed, index])
        found[f"stream: {name}"] = streams[name]().spoil(found[""], rng)
    return found


def check_unseen(setting: Setting, devices: Iterable[Sequence[Device]]) -> None:
    """Raises DataError where test devices share an owner or a sample with anything that was
    trained on or chosen by, or one has an answer in its window.
    """
    known = Known.of(
        {"training": setting.devices("adapter"), "validation": setting.devices("validation")},
        setting.data.backbone_sources(),
    )
    for fleet in devices:
        known.check_unseen(fleet)


def check_data(run: Run, data: Dataset) -> None:
    """Raises DataError where the run trained on other data."""
    if data.fingerprint() != run.record.data_fingerprint:
        raise DataError(
            f"the run trained on data with fingerprint {run.record.data_fingerprint[:12]}, these "
            f"have {data.fingerprint()[:12]}; pass the data that it trained on, or train again"
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: sums are bit-equal whatever runs beside, and times compare."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def evaluate(
    run: Run, data: Dataset, count: int, seeds: tuple[int, ...], progress: StageProgress
) -> Results:
    """Evaluate one run on `count` unseen devices for each seed of devices."""
    check_data(run, data)
    start = time.perf_counter()
    setting = make_setting(run, data, progress)
    prepared = prepare_rivals(setting, with_training=False, progress=progress)
    step = progress("evaluating on unseen devices")
    examined: list[Examined] = []
    drawn = [data.devices("test", count, TEST_SEED + seed) for seed in seeds]
    check_unseen(setting, drawn)
    for index, devices in enumerate(drawn):
        fleet = setting.fleet(devices)
        examined.append(examine(setting, run.rule, fleet, prepared))
        step(index + 1, len(seeds))
    one = without_repeats(examined)
    seconds = time.perf_counter() - start
    return Results(
        format="persona.results/1",
        model=run.model,
        bundle=None,
        metric=METRIC[run.backbone.task],
        quick=False,
        seeds=seeds,
        trainings=1,
        window=len(fleet.devices[0].window[0]),
        queries=len(fleet.devices[0].targets),
        **scores(one.devices, one.rivals),
        table=table([one], [costs(setting, run.rule, drawn[0], prepared)]),
        conditions={},
        calibration=one.calibration,
        edit_spread=float(np.mean([e.edit_spread for e in examined])),
        devices=one.devices,
        prototype_map=one.prototype_map,
        curves=schema.encode(run.record.curves),
        latency=None,
        exports=(),
        left_out={},
        stages={"evaluation": seconds},
        seconds=seconds,
        made_by=made_by(run),
        data_left_out=LeftOut.of(data),
    )


def pooled_calibration(examined: Sequence[Examined]) -> dict[str, Calibration]:
    """Of every way that was examined each time."""
    every = [e.calibration for e in examined]
    return {n: pooled([c[n] for c in every]) for n in every[0] if all(n in c for c in every)}


def without_repeats(examined: Sequence[Examined]) -> Examined:
    """Several draws of devices as one fleet: one that was drawn twice counts once, with its means.

    The first draw's map stands for all.
    """
    drawn = [device for e in examined for device in e.devices]
    places: dict[str, list[int]] = {}
    for place, device in enumerate(drawn):
        places.setdefault(device.name, []).append(place)

    def mean(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(float(np.mean([values[i] for i in found])) for found in places.values())

    first = examined[0]
    scored = {
        name: {
            metric: mean([v for e in examined for v in e.scored[name][metric]]) for metric in found
        }
        for name, found in first.scored.items()
    }
    judged = next(iter(scored["static"]))
    return Examined(
        devices=tuple(
            _device(name, scored, judged, i, drawn[found[0]].prototype)
            for i, (name, found) in enumerate(places.items())
        ),
        scored=scored,
        chance=mean([c for e in examined for c in e.chance]),
        upper_bounds=first.upper_bounds,
        calibration=pooled_calibration(examined),
        edit_spread=first.edit_spread,
        prototype_map=first.prototype_map,
    )
