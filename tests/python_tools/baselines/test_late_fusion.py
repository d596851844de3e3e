"""Late fusion adds what the cloud says to what the device says, and chooses how much."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from persona.baselines.base import Setting
from persona.baselines.cloud_ranker import (
    CloudRanker,
    candidates_of,
    packed,
    train_cloud_ranker,
    training_windows,
)
from persona.baselines.late_fusion import LateFusion
from persona.data.drifting_interests import generate
from persona.evaluation.metrics import score

from .conftest import prepared, unseen


def fused(setting: Setting, weight: float) -> tuple[LateFusion, torch.Tensor]:
    rival = prepared("late-fusion", setting)
    assert isinstance(rival, LateFusion)
    rival.weight = weight
    return rival, rival.outputs(setting, unseen(setting))


def literal_user(ranker: CloudRanker, items: list[int]) -> torch.Tensor:
    """u after the last of these items, one gate at a time."""
    gru, hidden = ranker.gru, torch.zeros(ranker.gru.hidden_size)
    for item in items:
        embedded = ranker.items.weight[item]
        given = gru.weight_ih_l0 @ embedded + gru.bias_ih_l0
        kept = gru.weight_hh_l0 @ hidden + gru.bias_hh_l0
        (reset, update, new), (reset_h, update_h, new_h) = given.chunk(3), kept.chunk(3)
        update = torch.sigmoid(update + update_h)
        fresh = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
        hidden = (1 - update) * fresh + update * hidden
    return embedded + ranker.project.weight @ hidden + ranker.project.bias


def test_with_weight_0_it_is_the_static_model(rankings: Setting):
    _, found = fused(rankings, 0.0)
    assert torch.equal(found, rankings.static_outputs(unseen(rankings).tensors))


def test_the_cloud_scores_each_candidate_by_its_embedding_and_bias(rankings: Setting):
    rival, found = fused(rankings, 0.5)
    fleet, ranker = unseen(rankings), rival.ranker
    static = rankings.static_outputs(fleet.tensors)
    with torch.no_grad():
        for d, device in enumerate(fleet.devices):
            (window,) = device.window
            user = literal_user(ranker, window[-rankings.observation.max_count :].tolist())
            for q, row in enumerate(device.queries[1].tolist()):
                for place, item in enumerate(row):
                    cloud = user @ ranker.items.weight[item] + ranker.bias.weight[item, 0]
                    assert abs(found[d, q, place] - static[d, q, place] - 0.5 * cloud) < 1e-3


def test_the_cloud_alone_reads_the_window_and_not_the_session(rankings: Setting):
    rival, fleet = prepared("cloud-only", rankings), unseen(rankings)
    asked = candidates_of(fleet.devices)
    reversed_windows = fleet.tensors.observations.flip(0)
    assert torch.equal(
        rival.outputs(rankings, fleet), rival.ranker.answers(fleet.tensors.observations, asked)
    )
    assert not torch.equal(
        rival.outputs(rankings, fleet), rival.ranker.answers(reversed_windows, asked)
    )


def test_the_weight_is_the_best_on_validation_devices(rankings: Setting):
    rival = prepared("late-fusion", rankings)
    held = rankings.validation

    def value(weight: float) -> float:
        rival.weight = weight
        return float(score("ranking", rival.outputs(rankings, held), held.tensors.targets).mean())

    chosen = rival.weight
    assert value(chosen) >= max(value(w) for w in (0.0, 0.3, 1.0, 2.0))


def histories(setting: Setting, *splits: str) -> list[str]:
    """All that the users of some splits ever met, in order, as the generator drew it."""
    log = generate(200, 150, 16, 40, 2.5, 0.005, 1.0, 0)
    names = {n for split in splits for n in setting.data.split_names()[split]}
    users = [u for u, name in enumerate(log.user_names) if name in names]
    return [written(log.items[log.users == u]) for u in users]


def written(items) -> str:
    return " " + " ".join(str(int(i)) for i in items) + " "


def test_it_learns_from_everybody_who_trains_and_from_nobody_else(rankings: Setting):
    found = [written(w[w > 0]) for w in training_windows(rankings, 50)]
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


def test_training_it_twice_gives_the_same_ranker_and_one_that_knows_something(rankings: Setting):
    one, two = train_cloud_ranker(rankings), train_cloud_ranker(rankings)
    assert all(torch.equal(two.state_dict()[k], v) for k, v in one.state_dict().items())
    fleet = rankings.fleet(rankings.data.devices("test", 40, 77))
    said = one.answers(fleet.tensors.observations, candidates_of(fleet.devices))
    chance = np.mean([1 / np.log2(place + 2) if place < 10 else 0 for place in range(20)])
    assert float(score("ranking", said, fleet.tensors.targets).mean()) > chance + 0.03
