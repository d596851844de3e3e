"""A study trains what is missing, gives the same table twice, and stops where data leak."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from persona.data import DataError
from persona.data.digits import Digits
from persona.evaluation import study
from persona.evaluation.ablations import ABLATIONS, with_named_slots, without
from persona.evaluation.protocol import TEST_SEED
from persona.evaluation.results import OURS, Results
from persona.formats import schema
from persona.registry import UnknownNameError
from persona.training.config import Condition, EvaluationConfig, RunConfig
from persona.training.pipeline import DEVICE_SEED, build_backbone, build_slots, open_dataset

LOW_RANK = "without dense edits, low-rank instead"


def silent(_stage: str):
    return lambda _done, _all: None


@pytest.fixture(scope="module")
def small(config: RunConfig) -> RunConfig:
    """Two trainings, one condition, one stream, two ablations, and a few steps of each."""
    return replace(
        study.quick(config),
        evaluation=EvaluationConfig(
            trainings=2,
            devices=10,
            conditions=(Condition("no habits", {"habits": 100.0}),),
            streams=("short",),
            ablations=("gate", "dense edits, low-rank instead"),
        ),
    )


@pytest.fixture(scope="module")
def done(small: RunConfig, tmp_path_factory) -> tuple[Path, Results]:
    """From a process with two threads, whose data left something out."""
    out = tmp_path_factory.mktemp("study")
    torch.set_num_threads(2)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Digits, "left_out", {"unusable rows": 2})
            patch.setattr(Digits, "faults", ("log.csv: line 3: no label", "log.csv: line 9: nan"))
            return out, study.run_study(small, None, None, out, 1, silent)
    finally:
        torch.set_num_threads(1)


def figures(results: Results) -> dict[str, object]:
    """All that does not depend on the clock."""
    tables = {"": results.table, **results.conditions}
    return {
        "devices": results.devices,
        **{
            f"{name} {way}": (row.score, row.metrics, row.gain, row.ahead, row.losers)
            for name, table in tables.items()
            for way, row in table.rows.items()
        },
    }


def test_each_seed_and_each_value_of_what_varies_is_a_training(config):
    wanted = replace(
        config,
        seed=3,
        evaluation=EvaluationConfig(trainings=2, vary={"rotation": (0.0, 90.0)}),
    )
    found = study.trainings_of(wanted)
    assert list(found) == [
        "seed-3-rotation-0.0",
        "seed-4-rotation-0.0",
        "seed-3-rotation-90.0",
        "seed-4-rotation-90.0",
    ]
    last = found["seed-4-rotation-90.0"]
    assert (last.seed, last.data.settings["rotation"]) == (4, 90.0)
    assert last.data.settings["queries"] == config.data.settings["queries"]


def test_the_table_has_every_way_in_every_condition(done):
    _, results = done
    assert (results.trainings, len(results.devices)) == (2, 20)
    assert {d.training for d in results.devices} == {0, 1}
    assert set(results.conditions) == {"no habits", "stream: short"}
    for table in (results.table, *results.conditions.values()):
        assert {*OURS, "constant-edit", "prior-correction", "without gate", LOW_RANK} <= set(
            table.rows
        )
        assert table.devices == 20


def test_conditions_that_change_nothing_but_the_age_of_edits_are_known_by_it(done):
    out, results = done
    assert results.staleness == {}
    path = next((out / "trainings").rglob("training.json"))
    training = schema.decode(study.Training, json.loads(path.read_text()), str(path))
    unseen = training.fleets[""]
    conditions = (
        Condition("fresh", {"staleness": 0}),
        Condition("older", {"staleness": 3}),
        Condition("older, all items", {"staleness": 3, "full_ranking": True}),
    )
    aged = replace(
        training,
        config=replace(
            training.config, evaluation=replace(training.config.evaluation, conditions=conditions)
        ),
        fleets={"": unseen, **{c.name: unseen for c in conditions}},
    )
    assert study.assemble({"seed-0": aged}, 1.0).staleness == {"fresh": 0, "older": 3}


def test_the_results_carry_what_every_training_found(done):
    _, results = done
    assert results.data_left_out.counts == {"unusable rows": 2}
    assert results.data_left_out.faults[0] == "log.csv: line 3: no label"
    assert [set(c) for c in results.further_curves] == [set(results.curves)]
    assert results.further_curves[0]["backbone"] != results.curves["backbone"]
    assert results.table.rows["edited"].cost.adaptation_ms > 0
    assert results.table.rows["without gate"].cost is None
    assert results.made_by["machine"]["threads"] == 1
    assert results.mixed == ()


def test_trainings_by_other_code_or_with_other_ways_are_named(done, small):
    out, results = done
    path = out / "trainings" / "seed-1" / "training.json"
    kept = path.read_text()
    changed = json.loads(kept)
    changed["made_by"]["code"] = "0123456789ab"
    for examined in changed["fleets"].values():
        del examined["scored"]["constant-edit"]
    try:
        path.write_text(json.dumps(changed))
        found = study.run_study(small, None, None, out, 1, silent)
    finally:
        path.write_text(kept)
    code, *left_out = found.mixed
    assert "Trainings differ in their code: seed-0: " in code
    assert code.endswith('; seed-1: "0123456789ab".')
    assert left_out == [
        f"Left out of the table of {name}: seed-1 lacks constant-edit."
        for name in ("unseen devices", "no habits", "stream: short")
    ]
    assert set(results.table.rows) - set(found.table.rows) == {"constant-edit"}


def test_a_training_is_scored_on_devices_of_its_own_seed(done, small):
    out, results = done
    data = open_dataset(small, None)
    for index in range(2):
        names = [d.name for d in results.devices if d.training == index]
        assert names == [d.name for d in data.devices("test", 10, TEST_SEED + index)]
        kept = json.loads((out / "trainings" / f"seed-{index}" / "training.json").read_text())
        assert [d["name"] for d in kept["fleets"][""]["devices"]] == names


def test_what_is_done_is_not_done_again(done, small, monkeypatch):
    out, results = done
    monkeypatch.setattr(study, "run_training", None)
    assert figures(study.run_study(small, None, None, out, 1, silent)) == figures(results)


def test_an_interrupted_study_goes_on_and_two_processes_give_the_same_bits(
    done, small, tmp_path, monkeypatch
):
    _, results = done
    run_training = study.run_training

    def interrupted(config, *rest):
        if config.seed == 1:
            raise KeyboardInterrupt
        return run_training(config, *rest)

    monkeypatch.setattr(study, "run_training", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.run_study(small, None, None, tmp_path, 1, silent)
    assert (tmp_path / "trainings" / "seed-0" / "training.json").is_file()
    assert not (tmp_path / "trainings" / "seed-1" / "training.json").exists()
    monkeypatch.undo()
    (tmp_path / "trainings" / "seed-0" / "training.json").unlink()
    assert figures(study.run_study(small, None, None, tmp_path, 2, silent)) == figures(results)


def test_a_training_of_another_version_is_refused_by_name(done, small):
    out, _ = done
    path = out / "trainings" / "seed-1" / "training.json"
    kept = path.read_text()
    other = json.loads(kept)
    del other["costs"]
    try:
        path.write_text(json.dumps(other))
        with pytest.raises(
            study.StudyError, match=r"training.json.costs: missing: another version"
        ):
            study.run_study(small, None, None, out, 1, silent)
    finally:
        path.write_text(kept)


def test_fewer_trainings_take_those_that_are_done(done, small, monkeypatch):
    out, _ = done
    one = replace(small, evaluation=replace(small.evaluation, trainings=1))
    monkeypatch.setattr(study, "run_training", None)
    assert study.run_study(one, None, None, out, 1, silent).trainings == 1


def test_trainings_of_another_configuration_are_refused(done, small):
    out, _ = done
    other = replace(small, adapter=replace(small.adapter, latent=4))
    with pytest.raises(study.StudyError, match="another configuration"):
        study.run_study(other, None, None, out, 1, silent)


@pytest.mark.parametrize(
    "leak", ["window in queries", "test device in training", "under a condition alone"]
)
def test_a_planted_leak_stops_the_study(small, tmp_path, monkeypatch, leak):
    kind = type(open_dataset(small, None))
    devices = kind.devices

    def leaking(self, split, count, seed):
        found = devices(self, split, count, seed)
        if split == "test" and leak == "window in queries":
            queries = found[2].queries[0].copy()
            queries[4] = found[2].window[0][1]
            found[2] = replace(found[2], queries=(queries,))
        if split == "test" and leak == "test device in training":
            (taught,) = devices(self, "adapter", 1, DEVICE_SEED)
            found[1] = replace(found[1], queries=taught.queries, targets=taught.targets)
        if split == "test" and leak == "under a condition alone" and self.shift.habits == 100.0:
            found[1] = replace(found[1], query_spans=devices(self, "adapter", 1, 0)[0].query_spans)
        return found

    monkeypatch.setattr(kind, "devices", leaking)
    with pytest.raises(DataError, match="test"):
        study.run_study(small, None, None, tmp_path, 1, silent)


def test_each_ablation_changes_the_configuration_and_nothing_of_the_data(config):
    full = replace(
        config,
        adapter=replace(
            config.adapter,
            hardening=("short",),
            familiarity=0.9,
            exposure=True,
            strength=True,
            encoder_steps=3,
        ),
        prototypes=replace(config.prototypes, joint_steps=5),
    )
    model = build_backbone(full, {"size": 8, "classes": 10}, None)
    slots = build_slots(model, full)
    full = with_named_slots(full, slots)
    assert build_slots(model, full) == slots
    for part in ABLATIONS:
        found = without(full, part)
        assert found != full, part
        assert (found.data, found.seed) == (full.data, full.seed)
        kept = replace(found.backbone, slots=full.backbone.slots)
        assert kept == full.backbone
    low_rank = build_slots(model, without(full, "dense edits, low-rank instead"))
    assert [s.kind for s in low_rank] == ["low-rank"] * len(slots)
    assert [s.kind for s in build_slots(model, without(full, "dense edits, affine instead"))] == [
        "affine"
    ] * len(slots)
    with pytest.raises(UnknownNameError, match="cross-layer transfer"):
        without(full, "luck")


def test_a_rise_in_every_score_of_one_training_moves_its_gain_alone(done):
    """The paired gain is the mean over trainings of the mean over their devices."""
    _, results = done
    gains = [
        np.mean([d.edited - d.static for d in results.devices if d.training == t]) for t in (0, 1)
    ]
    assert results.table.rows["edited"].gain.mean == pytest.approx(np.mean(gains))
    assert results.edited_minus_static.mean == pytest.approx(np.mean(gains))
