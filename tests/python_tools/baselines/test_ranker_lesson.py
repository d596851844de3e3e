"""The cloud's ranker: its loss, whom it learns from, and who reads histories with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from persona.baselines.base import Setting
from persona.data.drifting_interests import generate
from persona.evaluation.metrics import score
from persona.method.cloud_ranker import CloudRanker, packed
from persona.method.encoders import ItemsEncoder, RankerEncoder
from persona.method.personalise import Personaliser
from persona.runs import load_run, save_run
from persona.training.pipeline import train
from persona.training.ranker_lesson import candidates_of, teach_ranker, training_windows
from persona.training.stages import TrainingError

from .test_late_fusion import literal_user


def histories(setting: Setting, *splits: str) -> list[str]:
    """All that the users of some splits ever met, in order, as the generator drew it."""
    log = generate(200, 150, 16, 40, 2.5, 0.005, 1.0, 0)
    names = {n for split in splits for n in setting.data.split_names()[split]}
    users = [u for u, name in enumerate(log.user_names) if name in names]
    return [written(log.items[log.users == u]) for u in users]


def written(items) -> str:
    return " " + " ".join(str(int(i)) for i in items) + " "


def test_it_learns_from_everybody_who_trains_and_from_nobody_else(rankings: Setting):
    found = [
        written(w[w > 0])
        for w in training_windows(
            rankings.data, rankings.observation, rankings.train.observations, 50, rankings.seed
        )
    ]
    assert len(found) == 50 + len(rankings.train)
    teachers, others = (
        histories(rankings, "backbone", "adapter"),
        histories(rankings, "validation", "test"),
    )
    assert all(any(window in whole for whole in teachers) for window in found)
    long = [window for window in found if window.count(" ") > 4]
    assert not any(window in whole for window in long for whole in others)
    backbone = histories(rankings, "backbone")
    assert sum(any(window in whole for whole in backbone) for window in found) >= 50


def test_the_loss_is_of_each_next_item_among_what_the_window_lacks():
    torch.manual_seed(2)
    ranker = CloudRanker(9).eval()
    rows = torch.tensor([[3, 1, 4, 0, 0], [5, 9, 2, 6, 8]])
    negatives = torch.tensor([1, 7, 2, 7])
    expected = []
    with torch.no_grad():
        for row in rows.tolist():
            items = [i for i in row if i]
            allowed = [n for n in negatives.tolist() if n not in items]
            for place in range(1, len(items)):
                user = literal_user(ranker, items[:place])
                scores = [
                    user @ ranker.items.weight[i] + ranker.bias.weight[i, 0]
                    for i in (items[place], *allowed)
                ]
                expected.append(-F.log_softmax(torch.stack(scores), 0)[0])
        found = ranker.loss(rows, negatives)
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_windows_are_shifted_to_begin_in_the_first_column():
    rows = torch.tensor([[0, 0, 7, 2], [1, 2, 3, 4]])
    assert packed(rows).tolist() == [[7, 2, 0, 0], [1, 2, 3, 4]]


def taught(setting: Setting, steps: int = 150) -> CloudRanker:
    ranker, _ = teach_ranker(
        setting.data,
        setting.observation,
        setting.devices("adapter"),
        setting.validation.devices,
        steps,
        setting.seed,
        lambda _done, _all: None,
    )
    return ranker


def test_taught_twice_it_is_the_same_ranker_and_one_that_knows_something(rankings: Setting):
    one, two = taught(rankings), taught(rankings)
    assert all(torch.equal(two.state_dict()[k], v) for k, v in one.state_dict().items())
    fleet = rankings.fleet(rankings.data.devices("test", 40, 77))
    said = one.answers(fleet.tensors.observations, candidates_of(fleet.devices))
    chance = np.mean([1 / np.log2(place + 2) if place < 10 else 0 for place in range(20)])
    assert float(score("ranking", said, fleet.tensors.targets).mean()) > chance + 0.03


def test_what_it_is_taught_holds_no_window_of_who_chooses_its_state(rankings: Setting, monkeypatch):
    seen, loss = set(), CloudRanker.loss

    def watched(ranker, histories, negatives):
        seen.update(written(row[row > 0]) for row in histories)
        return loss(ranker, histories, negatives)

    monkeypatch.setattr(CloudRanker, "loss", watched)
    taught(rankings, 40)
    teachers = histories(rankings, "backbone", "adapter")
    assert len(seen) > len(rankings.train)
    assert all(any(window in whole for whole in teachers) for window in seen)


def test_images_have_no_histories_to_learn_from(images: Setting, rankings: Setting):
    with pytest.raises(TrainingError, match=r"Digits does not have; set adapter\.encoder_steps"):
        training_windows(images.data, rankings.observation, rankings.train.observations, 5, 0)


@pytest.fixture(scope="module")
def trained(rankings: Setting) -> tuple[Setting, Setting]:
    """The whole training with a lesson, and the setting that rivals of that run see."""
    adapter = replace(rankings.config.adapter, encoder_steps=40, steps=10)
    config = replace(rankings.config, adapter=adapter)
    run = train(config, rankings.data, None, lambda _stage: lambda _done, _all: None)
    personaliser = Personaliser(run.adapter, run.bank).eval().requires_grad_(False)
    setting = replace(
        rankings,
        config=config,
        backbone=run.backbone,
        slots=run.slots,
        observation=run.observation,
        personaliser=personaliser,
    )
    return run, setting


def test_a_run_with_a_lesson_reads_histories_with_the_ranker_that_late_fusion_asks(trained):
    run, setting = trained
    assert isinstance(run.adapter.encoder, RankerEncoder)
    assert setting.cloud_ranker is run.adapter.encoder.ranker
    assert len(run.curves["cloud ranker"].steps) > 1
    taught_alone = taught(setting, 40).state_dict()
    kept = run.adapter.encoder.ranker.state_dict()
    assert all(torch.equal(taught_alone[n], kept[n]) for n in kept), "edits taught it something"


def test_rivals_begin_with_the_adapters_ranker_and_a_projection_of_their_own(trained):
    run, setting = trained
    begun = setting.window_encoder
    assert begun.ranker is run.adapter.encoder.ranker
    assert not torch.equal(begun.project[2].weight, run.adapter.encoder.project[2].weight)


def test_a_run_without_a_lesson_learns_to_read_from_edits_alone(rankings: Setting):
    assert isinstance(rankings.personaliser.adapter.encoder, ItemsEncoder)
    assert isinstance(rankings.window_encoder, ItemsEncoder)
    assert rankings.taught_ranker is None


def test_a_saved_run_reads_histories_as_before(trained, tmp_path):
    run, setting = trained
    save_run(run, setting.data.backbone_settings(), tmp_path / "run", None)
    windows = setting.validation.tensors.observations
    again = load_run(tmp_path / "run").adapter.eval()
    with torch.no_grad():
        before, after = (found(windows)[0] for found in (run.adapter.eval(), again))
    assert all(torch.equal(before[name], after[name]) for name in before)
