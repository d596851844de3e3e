"""A backbone that ranks with the item table of the cloud's ranker: who teaches it, who keeps it."""

from dataclasses import replace

import pytest
import torch

from persona.backbones import Backbone
from persona.backbones.next_item import NextItemRanker
from persona.baselines import rivals
from persona.evaluation.protocol import make_setting
from persona.runs import load_run, save_run
from persona.training.config import (
    AdapterConfig,
    BackboneConfig,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    PrototypeConfig,
    RunConfig,
)
from persona.training.pipeline import open_dataset, train

CONFIG = RunConfig(
    "table",
    DataConfig(
        "drifting-interests",
        {"users": 200, "items": 150, "session": 2, "length": 3, "candidates": 20},
    ),
    BackboneConfig(
        "sasrec", {"dim": 64, "layers": 1}, item_table="ranker", steps=40, batch=64, checks=2
    ),
    AdapterConfig(
        devices=24,
        validation_devices=10,
        latent=6,
        hidden=12,
        steps=4,
        batch=8,
        checks=2,
        encoder_steps=40,
        min_window=1,
        max_window=30,
    ),
    PrototypeConfig(count=2, steps=4, rule_steps=4),
    EvaluationConfig(larger={"layers": 2}),
)


def silent(_stage):
    return lambda _done, _all: None


def trained(config: RunConfig):
    return train(config, open_dataset(config, None), None, silent)


@pytest.fixture(scope="module")
def run():
    return trained(CONFIG)


def test_the_ranker_comes_first_and_its_table_stays_in_both(run):
    assert list(run.curves)[:2] == ["cloud ranker", "backbone"]
    assert torch.equal(run.backbone.item_embeddings(), run.adapter.encoder.ranker.items.weight)


def test_a_table_of_ones_own_teaches_the_same_ranker_another_backbone(run):
    own = trained(replace(CONFIG, backbone=replace(CONFIG.backbone, item_table="own")))
    taught = [found.adapter.encoder.ranker.state_dict() for found in (run, own)]
    assert all(torch.equal(taught[0][name], taught[1][name]) for name in taught[0])
    assert not torch.equal(own.backbone.item_embeddings(), run.backbone.item_embeddings())


@pytest.fixture(scope="module")
def setting(run, tmp_path_factory):
    """What rivals see of the run, saved and read again."""
    data, place = open_dataset(CONFIG, None), tmp_path_factory.mktemp("saved") / "run"
    save_run(run, data.backbone_settings(), place, None)
    return make_setting(load_run(place), data)


def test_a_saved_run_keeps_the_table_and_rivals_have_it_too(setting):
    table = setting.cloud_ranker.items.weight
    assert torch.equal(setting.backbone.item_embeddings(), table)
    larger, own = rivals["static-larger"](), rivals["static-own-items"]()
    for rival in (larger, own):
        assert rival.applies(setting)
        rival.fit(setting)
    assert torch.equal(larger.backbone.item_embeddings(), table)
    assert not torch.equal(own.backbone.item_embeddings(), table)
    alone = replace(setting.config, backbone=replace(setting.config.backbone, item_table="own"))
    assert not own.applies(replace(setting, config=alone)), "the static row is that already"


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("adapter", {"encoder_steps": 0}, "wants a ranker of items: set adapter.encoder_steps"),
        ("backbone", {"settings": {"dim": 8}}, r"is \[151, 8\].* is \[151, 64\]: set dim = 64"),
        ("backbone", {"weights": "w.safetensors"}, "leave one of the two out"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(part, changes, said):
    config = replace(CONFIG, **{part: replace(getattr(CONFIG, part), **changes)})
    stages = []
    with pytest.raises(ConfigError, match=said):
        train(config, open_dataset(config, None), None, stages.append)
    assert not stages


def test_a_backbone_that_takes_no_table_says_so_before_the_lesson(monkeypatch):
    monkeypatch.setattr(NextItemRanker, "take_items", Backbone.take_items)
    stages = []
    with pytest.raises(ConfigError, match="SASRec cannot take a table of items"):
        train(CONFIG, open_dataset(CONFIG, None), None, stages.append)
    assert not stages


def test_pictures_have_no_ranker():
    steps = replace(CONFIG.adapter, encoder_steps=5, min_window=3)
    pictures = replace(
        CONFIG, data=DataConfig("digits"), backbone=BackboneConfig("image-net"), adapter=steps
    )
    with pytest.raises(ConfigError, match="does classification: leave it at 0"):
        train(pictures, open_dataset(pictures, None), None, silent)


def test_items_have_no_statistics_that_familiarity_could_judge():
    judged = replace(CONFIG, adapter=replace(CONFIG.adapter, familiarity=0.99))
    with pytest.raises(ConfigError, match="judge pooled statistics, and this backbone ranks"):
        train(judged, open_dataset(judged, None), None, silent)


def test_a_larger_backbone_of_another_width_is_refused_in_words(setting):
    wider = replace(setting.config, evaluation=EvaluationConfig(larger={"dim": 96}))
    with pytest.raises(ConfigError, match=r"one to take is \[151, 64\]: set dim = 64"):
        rivals["static-larger"]().fit(replace(setting, config=wider))
