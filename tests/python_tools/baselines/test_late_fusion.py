"""Late fusion adds what the cloud says to what the device says, and chooses how much."""

import torch

from persona.baselines.base import Setting
from persona.baselines.late_fusion import LateFusion
from persona.evaluation.metrics import score
from persona.method.cloud_ranker import CloudRanker
from persona.training.ranker_lesson import candidates_of

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
