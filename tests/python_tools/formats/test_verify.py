"""Verification as a device sees it: what is accepted, what the first fault is, and the probe."""

import random
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.formats.edit import quantise
from persona.formats.errors import FormatError
from persona.formats.slots import SlotKind, effective, sum_changes, zero_edit
from persona.formats.verify import Signature, changes_nothing, check_probe


@pytest.mark.parametrize("prototype", [None, 0, 2])
def test_a_good_edit_comes_out_as_it_was_put_in(device, prototype):
    change = device.change(seed=4)
    edit = device.verify(device.edit(change, prototype=prototype))
    assert edit.info == device.info(prototype=prototype)
    assert set(edit.tensors) == set(change)
    for name, values in change.items():
        np.testing.assert_array_equal(edit.tensors[name], values)
    np.testing.assert_array_equal(edit.probe, np.linspace(-1, 1, 5, dtype=np.float32)[None])


def test_a_quantised_edit_comes_out_in_binary32(device):
    change = quantise(device.slots, device.change())
    edit = device.verify(device.edit(change))
    for name, values in change.items():
        assert edit.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(edit.tensors[name], values.astype(np.float64))


@pytest.mark.parametrize(
    ("info", "code"),
    [
        ({"model": "other"}, "edit.other_base"),
        ({"bundle": "cd" * 32}, "edit.other_base"),
        ({"device": "tablet"}, "edit.other_device"),
        ({"sequence": 7}, "edit.replayed"),
        ({"prototype": 3}, "edit.unknown_prototype"),
    ],
)
def test_an_edit_for_others_is_refused(device, code_of, info, code):
    assert code_of(device.verify, device.edit(**info)) == code


def test_an_edit_is_taken_from_five_minutes_before_it_was_issued_until_it_expires(device):
    expires = 3600
    data = device.edit(issued_at=device.now, expires_at=device.now + timedelta(seconds=expires))
    signature = device.key.sign(data)
    for seconds in (-90_000, -301, -300, -299, 0, 1800, 3599, 3599.999, 3600, 3601, 90_000):
        later = replace(device, now=device.now + timedelta(seconds=seconds))
        try:
            later.verify(data, signature)
            code = "ok"
        except FormatError as error:
            code = error.code.value
        wanted = "edit.from_future" if seconds < -300 else "ok"
        assert code == ("edit.expired" if seconds >= expires else wanted), seconds


def test_size_is_looked_at_first_and_may_be_the_limit_itself(device, code_of):
    data = device.edit()
    exact = replace(device, expectation=replace(device.expectation, max_bytes=len(data)))
    assert exact.verify(data)
    assert code_of(exact.verify, data + b"\0", Signature("nobody", b"")) == "edit.too_large"


def test_any_turned_bit_of_a_signed_file_is_a_bad_signature(device, code_of):
    data = device.edit()
    signature = device.key.sign(data)
    chance = random.Random(3)
    for _ in range(300):
        turned = bytearray(data)
        turned[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        assert code_of(device.verify, bytes(turned), signature) == "edit.bad_signature"


def test_a_cloud_that_signs_nonsense_is_refused_with_a_code(device):
    data = device.edit()
    chance = random.Random(5)
    refused = 0
    for _ in range(1500):
        turned = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            turned[chance.randrange(len(data))] = chance.choice(b'\x00\xff"\\{}[],:0159-eEnF')
        try:
            device.verify(bytes(turned))
        except FormatError:
            refused += 1
    assert refused > 500


def test_one_value_beyond_any_bound_is_enough(device, code_of):
    for slot in device.slots:
        for suffix, limit in slot.limits().items():
            change = device.change()
            values = change[f"{slot.name}.{suffix}"]
            values.reshape(-1)[-1] = -limit
            assert device.verify(device.edit(change))
            values.reshape(-1)[-1] = np.nextafter(np.float32(-limit), np.float32(-100))
            assert code_of(device.verify, device.edit(change)) == "value.beyond_bound"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_enough(device, code_of, value):
    for name in device.change():
        change = device.change()
        change[name].reshape(-1)[0] = value
        assert code_of(device.verify, device.edit(change)) == "value.not_finite"


def test_a_missing_a_misnamed_and_a_transposed_tensor_have_their_codes(device, code_of):
    change = device.change()
    moved = {n.replace("head.0.", "head.1."): v for n, v in change.items()}
    assert code_of(device.verify, device.edit(moved)) == "slot.missing"
    more = {**change, "head.1.weight": change["head.0.weight"]}
    assert code_of(device.verify, device.edit(more)) == "slot.unknown"
    turned = {**change, "head.0.weight": change["head.0.weight"].T}
    assert code_of(device.verify, device.edit(turned)) == "slot.shape"


def program(slots, values, x):
    """A plain NumPy reading of what slots mean: dense, low-rank over a constant base, affine."""
    dense, thin, _ = slots
    constant = np.linspace(-1, 1, thin.out * thin.in_).reshape(thin.out, thin.in_)
    x = values["head.0.weight"].astype(float) @ x + values["head.0.bias"]
    weight = constant + values["head.2.b"].astype(float) @ values["head.2.a"]
    y = weight @ x + values["head.2.bias"]
    assert dense.kind is SlotKind.DENSE
    return y[:4] * values["norm.scale"] + values["norm.shift"]


def test_effective_weights_compute_the_sum_of_base_prototype_and_edit(device):
    slots, prototype, edit = device.slots, device.change(seed=1), device.change(seed=2)
    random_base = {n: v for n, v in device.change(seed=3).items() if n.startswith("head")}
    base = {
        **random_base,
        "norm.scale": np.ones(4, np.float32),
        "norm.shift": np.zeros(4, np.float32),
    }
    found = program(slots, effective(slots, base, prototype, edit), np.arange(4.0))
    summed = {n: base[n].astype(float) + prototype[n] + edit[n] for n in base}
    products = [part["head.2.b"].astype(float) @ part["head.2.a"] for part in (prototype, edit)]
    summed["head.2.b"], summed["head.2.a"] = sum(products), np.eye(3)
    expected = program(slots, summed, np.arange(4.0))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_no_prototype_is_a_prototype_of_zeros(device):
    edit = device.change()
    change = sum_changes(device.slots, zero_edit(device.slots), edit)
    np.testing.assert_array_equal(change["head.0.weight"], edit["head.0.weight"])
    np.testing.assert_array_equal(change["head.2.a"][2:], edit["head.2.a"])
    assert not change["head.2.a"][:2].any()
    assert change["head.2.b"].shape == (5, 4)


def test_an_edit_changes_nothing_only_if_the_program_computes_what_the_base_does(device):
    slots, zero = device.slots, zero_edit(device.slots)
    assert changes_nothing(slots, zero, zero)
    for name in zero:
        one = {**zero, name: np.full_like(zero[name], 0.1)}
        factor = name.endswith((".a", ".b"))
        assert changes_nothing(slots, zero, one) == factor
        assert changes_nothing(slots, one, zero) == factor
    product = {n: np.full_like(v, 0.1) if n[-2:] in (".a", ".b") else v for n, v in zero.items()}
    assert not changes_nothing(slots, zero, product)
    assert not changes_nothing(slots, product, zero)
    opposite = {n: -v for n, v in device.change().items() if not n.startswith("head.2")}
    cancelled = {**zero, **opposite}
    assert changes_nothing(slots, {n: -v for n, v in cancelled.items()}, cancelled)


OUTPUT = np.array([[0.5, -2.0, 1.0]], np.float32)


def test_the_probe_passes_within_the_tolerance_of_the_largest_magnitude():
    check_probe(OUTPUT, OUTPUT + np.float32(0.015625), OUTPUT * 0, 0.0078125, zero=False)


@given(st.floats(1e-4, 10))
def test_the_probe_fails_beyond_the_tolerance(beyond):
    with pytest.raises(FormatError, match="taken back"):
        check_probe(OUTPUT, OUTPUT + np.float32(0.02 + beyond), OUTPUT * 0, 0.01, zero=False)


def test_the_probe_fails_where_the_program_still_answers_as_the_base(code_of):
    assert code_of(check_probe, OUTPUT, OUTPUT, OUTPUT, 0.01, False) == "probe.no_effect"
    check_probe(OUTPUT, OUTPUT, OUTPUT, 0.01, zero=True)


@pytest.mark.parametrize("shape", [(3,), (1, 1), (3, 1), (1, 4), ()])
def test_the_probe_fails_where_the_program_answers_with_another_shape(code_of, shape):
    output = np.ones(shape, np.float32)
    expected = np.ones((1, 3), np.float32)
    assert code_of(check_probe, expected, output, output, 0.1, False) == "probe.mismatch"


def test_the_probe_fails_where_the_program_answers_nan(code_of):
    output = OUTPUT.copy()
    output[0, 1] = np.nan
    assert code_of(check_probe, OUTPUT, output, OUTPUT, 1e9, False) == "probe.mismatch"
