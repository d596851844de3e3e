"""Observations: pooling against plain arithmetic, a known class mix found again, both forms."""

import json
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from persona.formats.observation import (
    Envelope,
    ItemsObservation,
    ItemsSpec,
    PooledObservation,
    PooledSpec,
    check_observation,
    from_json,
    from_safetensors,
    observation_vector,
    parse_json,
    pool,
    to_json,
    to_safetensors,
)

POOLED = PooledSpec("pooled", 3, 2, 2, 5000, (0.5, 0.5))
ITEMS = ItemsSpec("items", 9, 1, 4)
BUNDLE = "ab" * 32


def window(count: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    features = random.normal(100, 3, (count, 3)).astype(np.float32)
    posterior = random.dirichlet((1, 1), count).astype(np.float32)
    return features, posterior


def pooled() -> Envelope:
    return Envelope(BUNDLE, pool(POOLED, *window()))


def test_means_and_deviations_are_those_of_the_standard_library():
    features, posterior = window()
    found = pool(POOLED, features, posterior)
    for f in range(3):
        column = features[:, f].tolist()
        assert found.mean[f] == pytest.approx(statistics.fmean(column), rel=1e-6)
        assert found.deviation[f] == pytest.approx(statistics.pstdev(column), rel=1e-6)
    for c in range(2):
        assert found.class_mass[c] == pytest.approx(statistics.fmean(posterior[:, c].tolist()))
        weights = posterior[:, c].astype(float)
        np.testing.assert_allclose(
            found.class_mean[c], np.average(features, axis=0, weights=weights), rtol=1e-6
        )


def test_a_small_deviation_on_a_large_mean_is_not_lost():
    features = np.array([[4096.0], [4096.25], [4096.5]], np.float32)
    spec = PooledSpec("pooled", 1, 1, 1, 5, (1.0,))
    found = pool(spec, features, np.ones((3, 1), np.float32))
    assert found.deviation[0] == pytest.approx(0.25 * math.sqrt(2 / 3), rel=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.8, 0.95])
def test_a_known_class_mix_is_found_in_posteriors_of_a_model_trained_on_another(share):
    random = np.random.default_rng(1)
    trained = np.array([0.7, 0.3])
    labels = (random.random(4000) < share).astype(int)
    signal = random.normal(2.0 * labels - 1.0)
    likelihood = np.exp(-0.5 * (signal[:, None] - np.array([-1.0, 1.0])) ** 2)
    posterior = trained * likelihood
    posterior = (posterior / posterior.sum(axis=1, keepdims=True)).astype(np.float32)
    spec = replace(POOLED, training_mass=tuple(trained.tolist()))
    found = pool(spec, np.zeros((4000, 3), np.float32), posterior)
    assert found.class_prior[1] == pytest.approx(share, abs=0.04)
    naive = abs(found.class_mass[1] - share)
    assert abs(found.class_prior[1] - share) < max(naive, 0.04)


def test_the_class_mix_never_reaches_zero():
    sure = np.tile(np.array([1.0, 0.0], np.float32), (20, 1))
    found = pool(POOLED, np.zeros((20, 3), np.float32), sure)
    assert 0 < found.class_prior[1] < 2e-4
    assert found.class_prior.sum() == pytest.approx(1)


def test_the_order_of_samples_does_not_matter():
    features, posterior = window()
    turned = pool(POOLED, features[::-1], posterior[::-1])
    np.testing.assert_allclose(pool(POOLED, features, posterior).vector(), turned.vector(), 1e-6)


def test_both_forms_say_the_same():
    envelope = pooled()
    text = json.dumps(to_json(envelope)).encode()
    for found in (parse_json(POOLED, text), from_safetensors(POOLED, to_safetensors(envelope))):
        assert found.bundle == BUNDLE
        assert isinstance(found.observation, PooledObservation)
        assert found.observation.count == 20
        np.testing.assert_array_equal(found.observation.vector(), envelope.observation.vector())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_both_forms_of_items_say_the_same(items):
    envelope = Envelope(BUNDLE, ItemsObservation(np.array(items, np.int64)))
    text = json.dumps(to_json(envelope)).encode()
    for found in (parse_json(ITEMS, text), from_safetensors(ITEMS, to_safetensors(envelope))):
        assert found.observation.items.tolist() == items
        shares = observation_vector(ITEMS, found.observation)
        assert shares.tolist() == [np.float32(items.count(v) / len(items)) for v in range(10)]


def test_the_safetensors_form_opens_with_the_official_library():
    found = safetensors.numpy.load(to_safetensors(pooled()))
    assert found["class_mean"].shape == (2, 3)


def test_the_vector_is_as_wide_as_the_bundle_says():
    assert pooled().observation.vector().shape == (POOLED.width,) == (2 * 3 + 2 * 2 + 6,)
    assert ITEMS.width == 10


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"count": 1}, "observation.empty", "at least 2"),
        ({"count": 5001}, "observation.too_long", "send the newest"),
        ({"mean": [1.0]}, "observation.width", r"mean must have shape \[3\], got \[1\]"),
        ({"class_mean": [[1.0], [1.0, 2.0]]}, "observation.width", "equally long"),
        ({"deviation": [1e39, 0, 0]}, "observation.not_finite", "deviation holds NaN"),
        ({"deviation": [float("nan"), 0, 0]}, "observation.invalid", r"deviation\[0\]"),
        ({"format": "persona.observation/2"}, "observation.invalid", "observation/1"),
        ({"kind": "raw"}, "observation.invalid", "kind: expected one of"),
        ({"kind": ["pooled"]}, "observation.invalid", "kind: expected one of"),
        ({"mean": [10**400, 0, 0]}, "observation.invalid", r"mean\[0\]"),
        ({"samples": []}, "observation.invalid", "samples: unknown field"),
        ({"count": True}, "observation.invalid", "count: expected int"),
    ],
)
def test_a_bad_document_is_refused_with_its_field(code_of, changes, code, said):
    document = to_json(pooled()) | changes
    assert code_of(from_json, POOLED, document) == code
    with pytest.raises(ValueError, match=said):
        from_json(POOLED, document)


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([], "observation.empty"),
        ([1] * 5, "observation.too_long"),
        ([0], "observation.invalid"),
        ([10], "observation.invalid"),
        ([2**70], "observation.invalid"),
        ([1.0], "observation.invalid"),
    ],
)
def test_bad_items_are_refused(code_of, items, code):
    document = {"format": "persona.observation/1", "bundle": BUNDLE, "kind": "items"}
    assert code_of(from_json, ITEMS, document | {"items": items}) == code


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_wherever_they_stand(code_of, value):
    for name in ("mean", "deviation", "class_mass", "class_prior", "class_mean"):
        observation = pooled().observation
        getattr(observation, name).reshape(-1)[-1] = value
        assert code_of(check_observation, POOLED, observation) == "observation.not_finite"
        data = to_safetensors(Envelope(BUNDLE, observation))
        assert code_of(from_safetensors, POOLED, data) == "observation.not_finite"


def test_one_kind_is_not_taken_for_the_other(code_of):
    items = ItemsObservation(np.array([1, 2]))
    assert code_of(check_observation, POOLED, items) == "observation.invalid"
    assert code_of(check_observation, ITEMS, pooled().observation) == "observation.invalid"


@pytest.mark.parametrize(
    ("features", "posterior", "code"),
    [
        (np.ones((1, 3)), np.ones((1, 2)), "observation.empty"),
        (np.ones((0, 3)), np.ones((0, 2)), "observation.empty"),
        (np.ones((5001, 3)), np.ones((5001, 2)), "observation.too_long"),
        (np.ones((5, 2)), np.ones((5, 2)), "observation.width"),
        (np.ones((5, 3)), np.ones((4, 2)), "observation.width"),
        (np.ones((5, 3, 1)), np.ones((5, 2)), "observation.width"),
        (np.full((5, 3), np.nan), np.ones((5, 2)), "observation.not_finite"),
        (np.ones((5, 3)), np.full((5, 2), np.inf), "observation.not_finite"),
        (np.ones((5, 3)), np.zeros((5, 2)), "observation.invalid"),
        (np.ones((5, 3)), np.tile([2.0, -1.0], (5, 1)), "observation.invalid"),
    ],
)
def test_a_bad_window_is_refused_before_it_is_pooled(code_of, features, posterior, code):
    arrays = features.astype(np.float32), posterior.astype(np.float32)
    assert code_of(pool, POOLED, *arrays) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"features": 0},
        {"classes": 0},
        {"min_count": 0},
        {"max_count": 1},
        {"training_mass": (1.0,)},
        {"training_mass": (1.0, 0.0)},
    ],
)
def test_a_bundle_cannot_ask_for_what_no_device_can_give(changes):
    with pytest.raises(ValueError, match=r"must be|expected"):
        replace(POOLED, **changes)
