"""The engine over ExecuTorch's own runtime, against eager PyTorch."""

import gc
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from persona.device.engine import Engine, EngineError
from persona.device.live import LiveModel
from persona.formats.slots import effective, zero_edit


@pytest.fixture
def engine(digits_bundle):
    made = Engine(digits_bundle)
    made.bind(digits_bundle.base)
    return made


def images(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(9)
    return [generator.normal(size=(1, 1, 8, 8)).astype(np.float32) for _ in range(count)]


def eager(run, *inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return run.backbone(*(torch.from_numpy(x) for x in inputs)).numpy()


def test_the_baked_method_is_the_base(engine, digits_run):
    for image in images(5):
        baked = engine.predict_baked([image])
        np.testing.assert_allclose(baked, engine.predict([image]), rtol=0, atol=1e-6)
        np.testing.assert_allclose(baked, eager(digits_run, image), rtol=0, atol=1e-5)


def test_bound_values_change_forward_and_leave_the_baked_method(engine, digits_bundle, issue):
    (image,) = images(1)
    before = engine.predict([image]), engine.predict_baked([image])
    slots, change = issue.slots, issue.change(3)
    engine.bind(effective(slots, digits_bundle.base, zero_edit(slots), change))
    expected = issue.output(change, {"image": image}, None)
    np.testing.assert_allclose(engine.predict([image]), expected, atol=1e-5)
    assert np.abs(expected - before[0]).max() > 0.01
    np.testing.assert_array_equal(engine.predict_baked([image]), before[1])
    engine.bind(digits_bundle.base)
    np.testing.assert_array_equal(engine.predict([image]), before[0])


def test_bound_values_are_the_engines_own(engine, digits_bundle):
    """Arrays that a caller changes or drops after binding make no difference."""
    (image,) = images(1)
    before = engine.predict([image])
    values = {name: value.copy() for name, value in digits_bundle.base.items()}
    engine.bind(values)
    for value in values.values():
        value.fill(7)
    del values
    gc.collect()
    scratch = [np.full((10, 8), 1e9, np.float32) for _ in range(1000)]
    np.testing.assert_array_equal(engine.predict([image]), before)
    assert len(scratch) == 1000


def test_an_output_stays_as_it_was_after_the_next_call(engine):
    first, second = images(2)
    output = engine.predict([first])
    kept = output.copy()
    engine.predict([second])
    np.testing.assert_array_equal(output, kept)


def test_the_number_of_candidates_changes_from_call_to_call(sasrec_run, sasrec_bundle):
    engine = LiveModel(sasrec_bundle).engine
    for seed, candidates in enumerate((20, 1, 100, 1, 7, 7, 20)):
        inputs = [x.numpy() for x in sasrec_run.backbone.example_inputs(seed, candidates)]
        output, expected = engine.predict(inputs), eager(sasrec_run, *inputs)
        assert output.shape == (1, candidates)
        np.testing.assert_allclose(output, expected, atol=1e-5)


def test_inputs_that_lie_otherwise_in_memory_give_the_same(engine):
    (image,) = images(1)
    expected = engine.predict([image])
    flipped = np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]
    wide = np.ascontiguousarray(image.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    frozen = image.copy()
    frozen.flags.writeable = False
    for other in (flipped, wide, frozen):
        engine.predict([images(2)[1]])
        np.testing.assert_array_equal(engine.predict([other]), expected)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [np.zeros((1, 1, 8, 8))],
        [np.zeros((2, 1, 8, 8), np.float32)],
        [np.zeros((1, 1, 8, 9), np.float32)],
        [np.zeros((1, 1, 8, 8), np.int64)],
        [np.zeros((1, 1, 8, 8), np.float32)] * 2,
    ],
    ids=["none", "float64", "batch", "width", "int64", "too-many"],
)
def test_wrong_inputs_are_refused_and_the_next_right_ones_give_what_they_should(
    engine, digits_run, wrong, first
):
    (image,) = images(1)
    if not first:
        engine.predict([image])
    for _ in range(2):
        with pytest.raises(EngineError, match=r"does not take inputs of .*the manifest says"):
            engine.predict(wrong)
    np.testing.assert_allclose(engine.predict([image]), eager(digits_run, image), atol=1e-5)


def test_observing_goes_sample_by_sample_and_equals_eager(engine, digits_run, windows):
    features, posterior = engine.observe(windows[0])
    with torch.no_grad():
        wanted = digits_run.backbone.features(torch.from_numpy(windows[0][0]))
    np.testing.assert_allclose(features, wanted[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(posterior, wanted[1].numpy(), atol=1e-5)


def test_observing_nothing_gives_no_rows(engine, digits_run):
    features, posterior = engine.observe([np.zeros((0, 1, 8, 8), np.float32)])
    spec = digits_run.record.observation
    assert (features.shape, posterior.shape) == ((0, spec.features), (0, spec.classes))


def test_a_bundle_of_item_ids_has_nothing_to_observe(sasrec_bundle):
    with pytest.raises(EngineError, match="observes item ids"):
        Engine(sasrec_bundle).observe([np.zeros((1, 3), np.int64)])


def test_a_bundle_without_our_program_says_which_it_has(digits_bundle):
    core_ml = (digits_bundle.manifest.program("coreml"),)
    other = replace(digits_bundle, manifest=replace(digits_bundle.manifest, programs=core_ml))
    with pytest.raises(EngineError, match=r"coreml fp16.*--target executorch-xnnpack"):
        Engine(other)


def test_a_program_that_cannot_be_loaded_is_named(digits_bundle, tmp_path):
    broken = tmp_path / digits_bundle.manifest.program("executorch-xnnpack").path
    broken.parent.mkdir()
    broken.write_bytes(b"\0" * 4096)
    with pytest.raises(EngineError, match=re.escape(str(broken))):
        Engine(replace(digits_bundle, path=tmp_path))


def test_feeds_are_bound_by_index_whatever_their_order_in_the_manifest(digits_bundle):
    manifest = digits_bundle.manifest
    program = manifest.program("executorch-xnnpack")
    backwards = replace(program, feeds=program.feeds[::-1])
    bundle = replace(digits_bundle, manifest=replace(manifest, programs=(backwards,)))
    other, engine = Engine(bundle), Engine(digits_bundle)
    for each in (other, engine):
        each.bind(digits_bundle.base)
    (image,) = images(1)
    np.testing.assert_array_equal(other.predict([image]), engine.predict([image]))
