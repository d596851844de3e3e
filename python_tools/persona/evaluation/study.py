"""A study: one configuration trained and examined many times over, and one table made of it all.

Each training (a seed, and a value of whatever varies) is examined once on its own unseen devices
and leaves one file; a study that was interrupted goes on with those that are missing.
"""

import json
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch

from persona.backbones.base import Task
from persona.baselines import Setting
from persona.durable import write_atomic
from persona.evaluation.ablations import with_named_slots, without
from persona.evaluation.cost import costs
from persona.evaluation.metrics import METRIC
from persona.evaluation.protocol import (
    Examined,
    check_data,
    check_unseen,
    examine,
    make_setting,
    one_thread,
    pooled_calibration,
    prepare_rivals,
    unseen_devices,
)
from persona.evaluation.provenance import made_by
from persona.evaluation.results import WITHOUT, Cost, LeftOut, Results, Scored, scores, table
from persona.formats import schema
from persona.method.personalise import Personaliser
from persona.runs import Run, RunError, load_run, save_run
from persona.training.config import RunConfig
from persona.training.devices import Fleet
from persona.training.pipeline import (
    StageProgress,
    build_slots,
    open_dataset,
    train,
    train_editing,
)

TRAININGS = "trainings"
"""The folder of a study that holds a folder for each training."""


class StudyError(ValueError):
    """A study that cannot go on; the message says what is in the way."""


@dataclass(frozen=True)
class Training:
    """What one training of a study left: its configuration and what was found on each fleet.

    fleets: "" for unseen devices, else a condition's or a stream's name. costs: of the ways that
    were measured. curves: of the run's stages, and of rivals' backbones.
    """

    format: Literal["persona.training/1"]
    model: str
    config: RunConfig
    fleets: dict[str, Examined]
    costs: dict[str, Cost]
    window: int
    queries: int
    curves: dict[str, Any]
    left_out: LeftOut
    made_by: dict[str, Any]
    seconds: float


def trainings_of(config: RunConfig) -> dict[str, RunConfig]:
    """Name -> configuration of every training: each value of what varies, with each seed."""
    e = config.evaluation
    alone = replace(config, evaluation=replace(e, trainings=1, vary={}))
    found = {}
    for values in product(*e.vary.values()):
        varied = dict(zip(e.vary, values, strict=True))
        for seed in range(config.seed, config.seed + e.trainings):
            name = "-".join(["seed", str(seed), *(f"{k}-{v}" for k, v in varied.items())])
            changed = alone.with_data(config.data.settings | varied)
            found[name] = replace(changed, seed=seed)
    return found


def quick(config: RunConfig) -> RunConfig:
    """A smoke run of a study: every part runs, and its figures mean nothing."""
    b, a, p, e = config.backbone, config.adapter, config.prototypes, config.evaluation
    return replace(
        config,
        backbone=replace(b, steps=min(b.steps, 60), checks=2),
        adapter=replace(
            a,
            devices=min(a.devices, 96),
            validation_devices=min(a.validation_devices, 24),
            steps=min(a.steps, 40),
            encoder_steps=min(a.encoder_steps, 20),
            checks=2,
        ),
        prototypes=replace(
            p, steps=min(p.steps, 10), rule_steps=30, joint_steps=min(p.joint_steps, 4)
        ),
        evaluation=replace(
            e,
            trainings=min(e.trainings, 2),
            devices=min(e.devices, 24),
            vary={name: values[:1] for name, values in e.vary.items()},
        ),
    )


def run_training(
    config: RunConfig, root: Path | None, folder: Path | None, place: Path, progress: StageProgress
) -> Training:
    """Train, or go on from the run at `place`, and examine it on devices it never saw."""
    start = time.perf_counter()
    data = open_dataset(config, root)
    if not (place / "run.json").is_file():
        save_run(train(config, data, folder, progress), data.backbone_settings(), place, folder)
    run = load_run(place)
    check_data(run, data)
    setting = make_setting(run, data, progress)
    unseen = unseen_devices(config, data, root, config.evaluation.devices, config.seed)
    check_unseen(setting, unseen.values())
    fleets = {name: setting.fleet(devices) for name, devices in unseen.items()}
    prepared = prepare_rivals(setting, with_training=True, progress=progress)
    found = {}
    for name, fleet in fleets.items():
        progress(f"examining {name or 'unseen devices'}")
        found[name] = examine(setting, run.rule, fleet, prepared)
    for part in config.evaluation.ablations:
        rows = _without(part, setting, fleets, progress)
        found = {
            name: replace(examined, scored={**examined.scored, **rows[name]})
            for name, examined in found.items()
        }
    progress("measuring what each way costs")
    cost = costs(setting, run.rule, unseen[""], prepared)
    return Training(
        format="persona.training/1",
        model=run.model,
        config=config,
        fleets=found,
        costs=cost,
        window=len(unseen[""][0].window[0]),
        queries=len(unseen[""][0].targets),
        curves=schema.encode(
            run.record.curves
            | {n: r.backbone_curve for n, r in prepared.items() if r.backbone_curve is not None}
        ),
        left_out=LeftOut.of(data),
        made_by=made_by(run),
        seconds=time.perf_counter() - start,
    )


def _without(
    part: str, setting: Setting, fleets: dict[str, Fleet], progress: StageProgress
) -> dict[str, Scored]:
    """Fleet -> rows of the edit, and of the prototype alone, with one part switched off."""
    config = without(with_named_slots(setting.config, setting.slots), part)
    slots = build_slots(setting.backbone, config)
    observed = setting.observed
    if not config.adapter.hardening:
        observed = replace(observed, hardened=(), held_hardened=())
    torch.manual_seed(config.seed)
    editing = train_editing(
        config,
        setting.backbone,
        slots,
        setting.observation,
        observed,
        setting.taught_ranker,
        lambda stage: progress(f"{WITHOUT}{part}: {stage}"),
    )
    personaliser = Personaliser(editing.adapter, editing.bank).eval()
    other = replace(setting, slots=slots, personaliser=personaliser)
    rows = {}
    for name, fleet in fleets.items():
        scored = examine(other, editing.rule, fleet, {}).scored
        rows[name] = {
            f"{WITHOUT}{part}": scored["edited"],
            f"{WITHOUT}{part}, prototype only": scored["prototype_only"],
        }
    return rows


def run_study(
    config: RunConfig,
    root: Path | None,
    folder: Path | None,
    out: Path,
    jobs: int,
    progress: StageProgress,
) -> Results:
    """Run every training that `out/trainings` does not hold yet, and put them together.

    jobs: trainings at the same time, a process each. Raises StudyError where `out` holds trainings
    of another configuration.
    """
    start = time.perf_counter()
    wanted = trainings_of(config)
    places = {name: out / TRAININGS / name for name in wanted}
    missing = [name for name in wanted if _read(places[name], wanted[name]) is None]
    if jobs == 1 or len(missing) < 2:
        for name in missing:
            named = _prefixed(f"{name}: ", progress)
            _run_and_write(wanted[name], root, folder, places[name], named)
    else:
        _in_parallel({n: wanted[n] for n in missing}, root, folder, places, jobs, progress)
    found = {name: _read(places[name], wanted[name]) for name in wanted}
    done = {name: training for name, training in found.items() if training is not None}
    return assemble(done, time.perf_counter() - start)


def _prefixed(prefix: str, progress: StageProgress) -> StageProgress:
    return lambda stage: progress(f"{prefix}{stage}")


def _in_parallel(
    wanted: dict[str, RunConfig],
    root: Path | None,
    folder: Path | None,
    places: dict[str, Path],
    jobs: int,
    progress: StageProgress,
) -> None:
    step = progress(f"{len(wanted)} trainings, {jobs} at a time")
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = [
            pool.submit(_in_process, config, root, folder, places[name])
            for name, config in wanted.items()
        ]
        try:
            for done, finished in enumerate(as_completed(running), start=1):
                finished.result()
                step(done, len(wanted))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_process(config: RunConfig, root: Path | None, folder: Path | None, place: Path) -> None:
    _run_and_write(config, root, folder, place, lambda _stage: lambda _done, _all: None)


@one_thread()
def _run_and_write(
    config: RunConfig, root: Path | None, folder: Path | None, place: Path, progress: StageProgress
) -> None:
    training = run_training(config, root, folder, place / "run", progress)
    write_atomic(place / "training.json", json.dumps(schema.encode(training)).encode())


def _read(place: Path, config: RunConfig) -> Training | None:
    """The training at `place`, or None where it has not been done."""
    path = place / "training.json"
    if not path.is_file():
        if (place / "run" / "run.json").is_file() and _run_at(place).record.config != config:
            raise _other_configuration(place)
        return None
    try:
        training = schema.decode(Training, json.loads(path.read_text()), str(path))
    except schema.SchemaError as error:
        raise StudyError(
            f"{error}: another version of Persona wrote it; remove that file to examine its run "
            "again, or give another --out"
        ) from None
    if training.config != config:
        raise _other_configuration(place)
    return training


def _run_at(place: Path) -> Run:
    try:
        return load_run(place / "run")
    except RunError as error:
        raise StudyError(
            f"{error}\nRemove {place} to train it again, or give another --out"
        ) from None


def _other_configuration(place: Path) -> StudyError:
    return StudyError(
        f"{place} holds a training of another configuration; give another --out, "
        "or remove that folder to train again"
    )


def mixed(trainings: Mapping[str, Training]) -> tuple[str, ...]:
    """What differs between trainings that should not: code, software, machine, ways to serve.

    Figures of a study that went on after any of it changed still stand, each for what made it.
    """
    said = []
    for part in ("code", "evaluated_with", "machine"):
        made: dict[str, list[str]] = {}
        for name, training in trainings.items():
            made.setdefault(json.dumps(training.made_by[part]), []).append(name)
        if len(made) > 1:
            each = "; ".join(f"{', '.join(names)}: {value}" for value, names in made.items())
            said.append(f"Trainings differ in {_PARTS[part]}: {each}.")
    for fleet in next(iter(trainings.values())).fleets:
        tried = {name: set(training.fleets[fleet].scored) for name, training in trainings.items()}
        every = set().union(*tried.values())
        lacking = {name: sorted(every - ways) for name, ways in tried.items() if every - ways}
        if lacking:
            each = "; ".join(f"{name} lacks {', '.join(ways)}" for name, ways in lacking.items())
            said.append(f"Left out of the table of {fleet or 'unseen devices'}: {each}.")
    return tuple(said)


_PARTS = {"code": "their code", "evaluated_with": "their software", "machine": "their machine"}


def assemble(named: Mapping[str, Training], seconds: float) -> Results:
    """One results document of all trainings, by name; the map is the first one's."""
    trainings = list(named.values())
    first = trainings[0]
    unseen = [t.fleets[""] for t in trainings]
    devices = tuple(
        replace(device, training=index)
        for index, examined in enumerate(unseen)
        for device in examined.devices
    )
    ways = [n for n in unseen[0].rivals if all(n in e.rivals for e in unseen)]
    return Results(
        format="persona.results/1",
        model=first.model.rsplit("-", 1)[0],
        bundle=None,
        metric=METRIC[_task(first)],
        quick=False,
        seeds=tuple(dict.fromkeys(t.config.seed for t in trainings)),
        trainings=len(trainings),
        window=first.window,
        queries=first.queries,
        **scores(devices, {n: [v for e in unseen for v in e.rivals[n]] for n in ways}),
        table=table(unseen, [t.costs for t in trainings]),
        conditions={
            name: table([t.fleets[name] for t in trainings]) for name in first.fleets if name
        },
        staleness={
            c.name: c.settings["staleness"]
            for c in first.config.evaluation.conditions
            if set(c.settings) == {"staleness"}
        },
        calibration=pooled_calibration(unseen),
        edit_spread=sum(e.edit_spread for e in unseen) / len(unseen),
        devices=devices,
        prototype_map=unseen[0].prototype_map,
        curves=first.curves,
        latency=None,
        exports=(),
        left_out={},
        stages={"trainings": sum(t.seconds for t in trainings)},
        seconds=seconds,
        made_by=first.made_by,
        further_curves=tuple(t.curves for t in trainings[1:]),
        data_left_out=LeftOut.most([t.left_out for t in trainings]),
        mixed=mixed(named),
    )


def _task(training: Training) -> Task:
    judged = next(iter(training.fleets[""].scored["static"]))
    return next(task for task, metric in METRIC.items() if metric == judged)
