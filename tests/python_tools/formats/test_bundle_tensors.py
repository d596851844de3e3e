"""A bundle's tensor files: they come back as they were, and what does not fit is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.formats import container
from persona.formats.bundle_tensors import (
    Golden,
    Prototypes,
    decode_base,
    decode_golden,
    decode_prototypes,
    encode_base,
    encode_golden,
    encode_prototypes,
)
from persona.formats.manifest import Dimension, Port
from persona.formats.observation import ItemsSpec, PooledSpec

INPUTS = (
    Port("x", "float32", (1, 3)),
    Port("candidates", "int64", (1, -1), (Dimension("n", 1, 9),)),
)
OUTPUT = Port("scores", "float32", (1, -1), (Dimension("n", 1, 9),))
POOLED = PooledSpec("pooled", 4, 2, 1, 9, (0.5, 0.5))
ITEMS = ItemsSpec("items", 9, 1, 4)


def bank(device, count=3, width=4) -> Prototypes:
    random = np.random.default_rng(2)
    return Prototypes(
        changes=tuple(device.change(seed=k) for k in range(count)),
        mean=random.normal(size=width).astype(np.float32),
        deviation=random.uniform(0.5, 2, width).astype(np.float32),
        weight=random.normal(size=(count, width)).astype(np.float32),
        bias=random.normal(size=count).astype(np.float32),
    )


def vectors(device, count=3) -> Golden:
    outputs = tuple(np.full((1, n), 0.5 * n, np.float32) for n in (4, 2))
    return Golden(
        inputs=tuple(
            {"x": np.ones((1, 3), np.float32), "candidates": np.arange(n, dtype=np.int64)[None]}
            for n in (4, 2)
        ),
        base=outputs,
        prototypes=tuple(tuple(o + k for o in outputs) for k in range(count)),
        edit=device.change(),
        edited=tuple(-o for o in outputs),
        features=tuple(np.full((1, 4), i, np.float32) for i in range(2)),
        posterior=tuple(np.array([[0.25, 0.75]], np.float32) for _ in range(2)),
    )


def same(a, b) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def test_the_base_comes_back_with_the_shapes_that_programs_take(device):
    base = {
        f"{s.name}.{x}": np.full(shape, 0.25, np.float32)
        for s in device.slots
        for x, shape in s.feeds().items()
    }
    assert base["head.2.a"].shape == (4, 3)
    assert same(decode_base(device.slots, encode_base(device.slots, base)), base)


def test_prototypes_come_back(device):
    prototypes = bank(device)
    found = decode_prototypes(device.slots, 3, 4, encode_prototypes(device.slots, prototypes))
    assert all(same(a, b) for a, b in zip(found.changes, prototypes.changes, strict=True))
    for name in ("mean", "deviation", "weight", "bias"):
        np.testing.assert_array_equal(getattr(found, name), getattr(prototypes, name))


def test_prototypes_that_f16_holds_are_stored_in_f16(device):
    prototypes = bank(device)
    halved = tuple(
        {n: v.astype(np.float16).astype(np.float32) for n, v in change.items()}
        for change in prototypes.changes
    )
    data = encode_prototypes(device.slots, replace(prototypes, changes=halved))
    tensors, _ = container.decode(data)
    assert {t.dtype for n, t in tensors.items() if n[0].isdigit()} == {"F16"}
    found = decode_prototypes(device.slots, 3, 4, data)
    assert all(same(a, b) for a, b in zip(found.changes, halved, strict=True))


def test_a_bundle_may_have_no_prototypes(device):
    none = bank(device, count=0)
    found = decode_prototypes(device.slots, 0, 4, encode_prototypes(device.slots, none))
    assert found.changes == ()
    with pytest.raises(ValueError, match="no prototypes"):
        found.assign(np.zeros(4, np.float32))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4))
def test_the_prototype_with_the_highest_score_is_chosen(values):
    random = np.random.default_rng(9)
    weight, bias = random.normal(size=(5, 4)), random.normal(size=5)
    rule = [a.astype(np.float32) for a in (np.arange(4), np.arange(1, 5), weight, bias)]
    prototypes = Prototypes(({},) * 5, *rule)
    scores = []
    for k in range(5):
        score = float(rule[3][k])
        for j in range(4):
            standard = (values[j] - float(rule[0][j])) / float(rule[1][j])
            score += float(rule[2][k][j]) * max(-6.0, min(6.0, standard))
        scores.append(score)
    chosen = prototypes.assign(np.array(values, np.float32))
    assert scores[chosen] == pytest.approx(max(scores), abs=1e-9)


def test_the_lowest_of_equal_prototypes_is_chosen():
    equal = Prototypes(
        ({},) * 3, np.zeros(2), np.ones(2), np.zeros((3, 2)), np.array([1.0, 2.0, 2.0])
    )
    assert equal.assign(np.array([5, -5], np.float32)) == 1


def test_one_wild_value_counts_six_deviations_at_most():
    rule = Prototypes(
        ({},) * 2,
        np.zeros(2),
        np.ones(2),
        np.array([[1.0, 0.0], [0.0, 2.0]]),
        np.zeros(2),
    )
    assert rule.assign(np.array([1e30, 3.5], np.float32)) == 1


def test_a_vector_of_another_width_is_refused(device):
    with pytest.raises(ValueError, match=r"shape \[4\], got \[5\]"):
        bank(device).assign(np.zeros(5, np.float32))


def test_golden_vectors_come_back(device):
    golden = vectors(device)
    data = encode_golden(device.slots, INPUTS, OUTPUT, POOLED, golden)
    found = decode_golden(device.slots, 3, INPUTS, OUTPUT, POOLED, data)
    assert all(same(a, b) for a, b in zip(found.inputs, golden.inputs, strict=True))
    assert found.inputs[0]["candidates"].dtype == np.int64
    assert same(found.edit, golden.edit)
    for name in ("base", "edited", "features", "posterior"):
        for a, b in zip(getattr(found, name), getattr(golden, name), strict=True):
            np.testing.assert_array_equal(a, b)
    assert [[o.tolist() for o in k] for k in found.prototypes] == [
        [o.tolist() for o in k] for k in golden.prototypes
    ]


def test_golden_features_are_there_if_and_only_if_a_window_is_pooled(device, code_of):
    pooled = vectors(device)
    plain = replace(pooled, features=(), posterior=())
    data = encode_golden(device.slots, INPUTS, OUTPUT, ITEMS, plain)
    found = decode_golden(device.slots, 3, INPUTS, OUTPUT, ITEMS, data)
    assert (found.features, found.posterior) == ((), ())
    invalid = "bundle.tensors_invalid"
    assert code_of(decode_golden, device.slots, 3, INPUTS, OUTPUT, POOLED, data) == invalid
    assert code_of(encode_golden, device.slots, INPUTS, OUTPUT, POOLED, plain) == invalid
    data = encode_golden(device.slots, INPUTS, OUTPUT, POOLED, pooled)
    assert code_of(decode_golden, device.slots, 3, INPUTS, OUTPUT, ITEMS, data) == invalid
    short = replace(pooled, features=pooled.features[:1])
    assert code_of(encode_golden, device.slots, INPUTS, OUTPUT, POOLED, short) == invalid


def test_golden_features_have_the_widths_that_the_bundle_pools(device, code_of):
    data = encode_golden(device.slots, INPUTS, OUTPUT, POOLED, vectors(device))
    for spec in (
        replace(POOLED, features=5),
        replace(POOLED, classes=3, training_mass=(0.2, 0.3, 0.5)),
    ):
        code = code_of(decode_golden, device.slots, 3, INPUTS, OUTPUT, spec, data)
        assert code == "bundle.tensors_invalid"


def test_a_prototype_obeys_the_bounds_of_its_slots(device, code_of):
    limits = {f"{s.name}.{x}": limit for s in device.slots for x, limit in s.limits().items()}
    for name, limit in limits.items():
        for sign in (1, -1):
            prototypes = bank(device)
            prototypes.changes[1][name].flat[-1] = sign * np.float32(limit)
            encode_prototypes(device.slots, prototypes)
            over = sign * np.nextafter(np.float32(limit), np.float32(np.inf))
            prototypes.changes[1][name].flat[-1] = over
            code = code_of(encode_prototypes, device.slots, prototypes)
            assert code == "bundle.tensors_invalid"
            with pytest.raises(ValueError, match=f"'1.{name}' reaches"):
                encode_prototypes(device.slots, prototypes)


def test_what_cannot_be_read_is_not_written(device, code_of):
    golden = vectors(device)
    short = replace(golden, edited=(golden.edited[0][:, :3], golden.edited[1]))
    invalid = "bundle.tensors_invalid"
    assert code_of(encode_golden, device.slots, INPUTS, OUTPUT, POOLED, short) == invalid
    broken = replace(bank(device), deviation=np.zeros(4, np.float32))
    assert code_of(encode_prototypes, device.slots, broken) == invalid
    nan = bank(device)
    nan.changes[1]["norm.scale"][0] = np.nan
    assert code_of(encode_prototypes, device.slots, nan) == invalid


def test_another_number_of_prototypes_or_another_width_is_refused(device, code_of):
    data = encode_prototypes(device.slots, bank(device))
    for count, width in ((2, 4), (4, 4), (0, 4), (3, 5)):
        code = code_of(decode_prototypes, device.slots, count, width, data)
        assert code == "bundle.tensors_invalid"


def test_a_file_of_another_kind_is_refused(device, code_of):
    data = encode_prototypes(device.slots, bank(device))
    assert code_of(decode_base, device.slots, data) == "bundle.tensors_invalid"
    assert code_of(decode_base, device.slots, data[:-1]) == "container.out_of_bounds"
