"""Scores agree with values worked out by hand and with scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, ndcg_score

from persona.evaluation.metrics import METRIC, accuracy, hit_rate, ndcg, rank, score

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
