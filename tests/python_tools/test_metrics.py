"""Scores agree with values worked out by hand and with scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, ndcg_score
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_normalized_dcg

from persona.evaluation.metrics import (
    METRIC,
    accuracy,
    auc,
    calibration,
    chance_of_losing,
    hit_rate,
    ndcg,
    pooled,
    query_scores,
    rank,
    score,
)

SCORES = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.6, 0.2]])


def test_ranks_worked_out_by_hand():
    assert rank(SCORES, torch.tensor([0, 0, 3])).tolist() == [0, 3, 2]


@pytest.mark.parametrize(
    ("cut", "expected"),
    [(1, 1 / 3), (3, (1 + 0 + 1 / 2) / 3), (10, (1 + 1 / math.log2(5) + 1 / 2) / 3)],
)
def test_ndcg_worked_out_by_hand(cut, expected):
    """Ranks 1, 4 and 3 earn 1, 1 / log2(5) and 1 / log2(4), those below the cut nothing."""
    found = ndcg(SCORES, torch.tensor([0, 0, 3]), cut)
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("cut", "expected"), [(1, 1 / 3), (2, 1 / 3), (3, 2 / 3), (4, 1)])
def test_hit_rate_worked_out_by_hand(cut, expected):
    assert hit_rate(SCORES, torch.tensor([0, 0, 3]), cut).item() == pytest.approx(expected)


@pytest.mark.parametrize("cut", [1, 5, 10])
def test_ndcg_is_that_of_scikit_learn(cut):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 9, 30, generator=generator)
    targets = torch.randint(0, 30, (6, 9), generator=generator)
    relevant = torch.nn.functional.one_hot(targets, 30)
    for device in range(6):
        expected = ndcg_score(relevant[device].numpy(), outputs[device].numpy(), k=cut)
        assert ndcg(outputs, targets, cut)[device].item() == pytest.approx(expected, rel=1e-5)


def test_accuracy_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(4, 50, 3, generator=generator)
    targets = torch.randint(0, 3, (4, 50), generator=generator)
    expected = [
        accuracy_score(t, o.argmax(1)) for o, t in zip(outputs.numpy(), targets, strict=True)
    ]
    np.testing.assert_allclose(accuracy(outputs, targets), expected, rtol=1e-6)


def test_equal_scores_for_all_candidates_earn_nothing():
    outputs, targets = torch.zeros(2, 3, 100), torch.zeros(2, 3, dtype=torch.long)
    assert ndcg(outputs, targets).tolist() == [0, 0]
    assert hit_rate(outputs, targets).tolist() == [0, 0]
    assert rank(outputs, targets).eq(99).all()


@pytest.mark.parametrize("where", ["target", "others", "all"])
def test_scores_that_are_no_numbers_earn_nothing(where):
    outputs = torch.zeros(1, 1, 100)
    outputs[..., 0] = 1
    if where in ("target", "all"):
        outputs[..., 0] = float("nan")
    if where in ("others", "all"):
        outputs[..., 1:] = float("nan")
    target = torch.zeros(1, 1, dtype=torch.long)
    assert ndcg(outputs, target).item() == 0
    assert hit_rate(outputs, target).item() == 0


def test_each_task_has_the_metric_that_its_name_says():
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(3, 5, 40, generator=generator)
    targets = torch.randint(0, 40, (3, 5), generator=generator)
    assert torch.equal(score("classification", outputs, targets), accuracy(outputs, targets))
    assert torch.equal(score("ranking", outputs, targets), ndcg(outputs, targets, 10))
    assert METRIC == {"classification": "accuracy", "ranking": "ndcg@10"}


def random_ranking() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    outputs = torch.randn(4, 6, 25, generator=generator)
    return outputs, torch.randint(0, 25, (4, 6), generator=generator)


def test_ranking_metrics_are_those_of_torchmetrics():
    outputs, targets = random_ranking()
    relevant = torch.nn.functional.one_hot(targets, 25)
    found = query_scores("ranking", outputs, targets)
    for device in range(4):
        for query in range(6):
            row, hit = outputs[device, query], relevant[device, query]
            place = (device, query)
            expected = {
                "ndcg@10": retrieval_normalized_dcg(row, hit, top_k=10),
                "hr@10": retrieval_hit_rate(row, hit, top_k=10),
                "uauc": binary_auroc(row, hit),
            }
            for name, value in expected.items():
                assert found[name][place].item() == pytest.approx(value.item(), rel=1e-5), name


def test_calibration_error_and_likelihood_are_those_of_torchmetrics():
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(7, 40, 5, generator=generator)
    targets = torch.randint(0, 5, (7, 40), generator=generator)
    expected = multiclass_calibration_error(
        logits.flatten(0, 1).softmax(1), targets.flatten(), 5, n_bins=10, norm="l1"
    )
    assert calibration(logits, targets).error == pytest.approx(expected.item(), abs=1e-6)
    nll = query_scores("classification", logits, targets)["nll"]
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    )
    torch.testing.assert_close(nll.flatten(), expected)


def test_calibration_over_trainings_is_that_of_all_their_queries():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 600, 5, generator=generator) * torch.tensor([1, 2, 9])[:, None, None]
    targets = torch.randint(0, 5, (3, 600), generator=generator)
    found = pooled([calibration(*one) for one in zip(logits, targets, strict=True)])
    expected = calibration(logits, targets)
    for name in ("confidence", "accuracy", "share"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-9), name
    assert found.error == pytest.approx(expected.error, abs=1e-9)


def test_auc_counts_ties_half():
    outputs = torch.tensor([[0.5, 0.5, 0.1, 0.9]])
    assert auc(outputs, torch.tensor([0])).item() == pytest.approx((1 + 0.5) / 3)


def test_absent_candidates_are_nobody_s_rivals():
    """A row padded with high scores earns what the same row earns without them."""
    outputs, targets = random_ranking()
    padded = torch.cat([outputs, torch.full((4, 6, 5), 9.0)], -1)
    absent = torch.zeros(padded.shape, dtype=torch.bool)
    absent[..., 25:] = True
    plain, masked = (
        query_scores("ranking", outputs, targets),
        query_scores("ranking", padded, targets, absent),
    )
    for name, values in plain.items():
        torch.testing.assert_close(masked[name], values)


def test_losing_by_chance_is_that_of_the_binomial_distribution():
    """Twelve of twenty answers changed: it loses when 7 or more of the 12 coins fall wrong."""
    change = torch.zeros(1, 20)
    change[0, :12] = torch.tensor([1.0, -1.0] * 6)
    found = chance_of_losing(change, 0.05).item()
    expected = sum(math.comb(12, wrong) for wrong in range(7, 13)) / 2**12
    assert found == pytest.approx(expected, abs=0.06)
    assert chance_of_losing(torch.zeros(3, 20), 0.05).tolist() == [0, 0, 0]
