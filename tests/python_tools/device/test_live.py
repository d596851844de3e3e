"""The live model: swapped as a whole, proven by the probe, taken back bit for bit."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from persona.device.live import LiveModel, OnBase, OnEdit, OnPrototype
from persona.formats.bundle_tensors import encode_golden
from persona.formats.errors import Code, FormatError


@pytest.fixture
def live(digits_bundle):
    return LiveModel(digits_bundle)


@pytest.fixture
def image():
    return np.random.default_rng(5).normal(size=(1, 1, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("prototype", [None, 1])
def test_an_edit_runs_as_eager_pytorch_edited_by_hand(live, issue, image, prototype):
    live.use_edit(issue.verified(prototype=prototype))
    assert isinstance(live.state, OnEdit)
    expected = issue.output(issue.change(), {"image": image}, prototype)
    np.testing.assert_allclose(live.predict([image]), expected, atol=1e-5)


def test_rankings_are_edited_too(sasrec_bundle, sasrec_issue, sasrec_run):
    live = LiveModel(sasrec_bundle)
    inputs = sasrec_run.backbone.example_inputs(4, 33)
    named = dict(zip(("history", "candidates"), (x.numpy() for x in inputs), strict=True))
    before = live.predict(list(named.values()))
    live.use_edit(sasrec_issue.verified(prototype=0))
    edited = live.predict(list(named.values()))
    expected = sasrec_issue.output(sasrec_issue.change(), named, 0)
    np.testing.assert_allclose(edited, expected, atol=1e-5)
    assert np.abs(edited - before).max() > 1e-3


def test_going_back_to_the_base_restores_it_bit_for_bit(live, issue, image):
    before = live.predict([image])
    for seed in range(3):
        live.use_edit(issue.verified(change=issue.change(seed)))
        assert not np.array_equal(live.predict([image]), before)
        live.resume(OnBase())
        assert isinstance(live.state, OnBase)
        np.testing.assert_array_equal(live.predict([image]), before)


def test_a_prototype_runs_as_it_was_shipped(live, issue, image):
    live.use_prototype(2)
    nothing = {name: np.zeros_like(value) for name, value in issue.change().items()}
    assert live.state == OnPrototype(2)
    np.testing.assert_allclose(
        live.predict([image]), issue.output(nothing, {"image": image}, 2), atol=1e-5
    )


@pytest.mark.parametrize("before", ["base", "prototype", "edit"])
def test_a_probe_that_does_not_match_takes_the_edit_back(live, issue, image, before):
    if before == "prototype":
        live.use_prototype(1)
    elif before == "edit":
        live.use_edit(issue.verified(change=issue.change(8)))
    state, output = live.state, live.predict([image])
    good = issue.verified()
    wrong = replace(good, probe=good.probe + np.float32(1e-3) * max(1, np.abs(good.probe).max()))
    with pytest.raises(FormatError, match="taken back") as caught:
        live.use_edit(wrong)
    assert caught.value.code == Code.PROBE_MISMATCH
    assert live.state is state
    np.testing.assert_array_equal(live.predict([image]), output)


def test_one_value_of_an_edit_that_went_astray_is_noticed_by_the_probe(live, issue, digits_bundle):
    """Of each tensor the value that moves the golden output most, as eager PyTorch tells."""
    good = issue.verified()

    def astray(name: str, place: int) -> dict[str, np.ndarray]:
        tensors = {**good.tensors, name: good.tensors[name].copy()}
        tensors[name].flat[place] += 0.05
        return tensors

    def effect(name: str, place: int) -> float:
        output = issue.output(astray(name, place), *_first(digits_bundle))
        return float(np.abs(output - good.probe).max())

    for name, values in good.tensors.items():
        place = max(range(values.size), key=lambda place, name=name: effect(name, place))
        tensors = astray(name, place)
        with pytest.raises(FormatError, match="away from what the cloud computed"):
            live.use_edit(replace(good, tensors=tensors))


def test_two_swapped_square_slots_are_noticed_by_the_probe(sasrec_bundle, sasrec_issue):
    live, good = LiveModel(sasrec_bundle), sasrec_issue.verified()
    other = {"0": "2", "2": "0"}
    swapped = {
        f"head.user.{other[name.split('.')[2]]}.{name.split('.')[3]}": value
        for name, value in good.tensors.items()
    }
    assert {n: v.shape for n, v in swapped.items()} == {n: v.shape for n, v in good.tensors.items()}
    with pytest.raises(FormatError) as caught:
        live.use_edit(replace(good, tensors=swapped))
    assert caught.value.code == Code.PROBE_MISMATCH


def test_an_edit_without_effect_is_refused_unless_it_is_zero(live, issue, digits_bundle):
    """A change below the resolution of the base's weights: nothing moves, though it is not zero."""
    base = issue.output({n: 0 * v for n, v in issue.change().items()}, *_first(digits_bundle))
    tiny = {name: np.full_like(value, 1e-30) for name, value in issue.change().items()}
    zero = {name: np.zeros_like(value) for name, value in tiny.items()}
    with pytest.raises(FormatError) as caught:
        live.use_edit(issue.verified(change=tiny, probe=base))
    assert caught.value.code == Code.PROBE_NO_EFFECT
    live.use_edit(issue.verified(change=zero, probe=base))
    assert isinstance(live.state, OnEdit)


def _first(bundle):
    return bundle.golden.inputs[0], None


def test_a_bundle_whose_golden_vectors_do_not_hold_here_does_not_start(
    digits_bundle, digits_run, resigned, tmp_path
):
    golden, manifest = digits_bundle.golden, digits_bundle.manifest
    shifted = tuple(output + np.float32(0.01) for output in golden.base)
    data = encode_golden(
        manifest.slots,
        manifest.inputs,
        manifest.outputs[0],
        manifest.observation,
        replace(golden, base=(golden.base[0], *shifted[1:])),
    )
    bundle = resigned(digits_bundle, digits_run, tmp_path / "b", {"golden.safetensors": data})
    with pytest.raises(FormatError, match=r"golden output 1 is 0\.01 away") as caught:
        LiveModel(bundle)
    assert caught.value.code == Code.BUNDLE_GOLDEN


def test_another_thread_sees_one_edit_or_the_other_never_a_mixture(live, issue, image):
    edits = [issue.verified(change=issue.change(seed)) for seed in (1, 2)]
    allowed = set()
    for edit in edits:
        live.use_edit(edit)
        allowed.add(live.predict([image]).tobytes())
    assert len(allowed) == 2
    seen, stop = [], threading.Event()

    def predict() -> None:
        while not stop.is_set():
            seen.append(live.predict([image]).tobytes())

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(1000):
            live.use_edit(edits[turn % 2])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(seen) == allowed, "both edits, and nothing between, not even the probe's input"
