"""How slots reach a program: as inputs, or patched into the bytes of a head of its own."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from persona.backbones import Backbone
from persona.backbones.base import InputSpec
from persona.bundles import open_bundle
from persona.device.live import LiveModel
from persona.formats.bundle_tensors import decode_base
from persona.formats.slots import effective, zero_edit
from persona.method.slots import base_tensors, make_slot
from persona_export.export import Wanted, export_bundle
from persona_export.targets import ExportError, NotRunnableError, Source, targets
from persona_export.targets.executorch_xnnpack import SMALL

XNNPACK = "executorch-xnnpack"


class _Wide(Backbone):
    """A small trunk before a head whose first layer is larger than what inputs are for."""

    task = "classification"

    def __init__(self, width: int = 160) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.trunk = nn.Sequential(nn.Linear(12, width), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 5))

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("x", "float32", (1, 12)),)


def _inputs(backbone: Backbone, seed: int) -> dict[str, np.ndarray]:
    tensors = backbone.example_inputs(seed)
    return {s.name: t.numpy() for s, t in zip(backbone.input_specs(), tensors, strict=True)}


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """A wide head with slots of each kind, patched, and one slot of the trunk as an input."""
    backbone = _Wide().eval()
    slots = (
        make_slot(backbone, "trunk.0", "affine"),
        make_slot(backbone, "head.0", "dense"),
        make_slot(backbone, "head.2", "low-rank", rank=2),
    )
    folder = tmp_path_factory.mktemp("patched")
    target = targets[XNNPACK]()
    program = target.export(Source(backbone, slots, False, "patched"), "fp32", folder)
    return backbone, slots, folder, program, target.executor(folder, program)


def test_a_patched_head_equals_eager_for_slots_of_every_kind(
    patched, edited_by_hand, at_the_bounds
):
    backbone, slots, _, _, execute = patched
    base = {name: value.numpy() for name, value in base_tensors(backbone, slots).items()}
    outputs = []
    for seed in range(3):
        prototype, edit = at_the_bounds(slots, seed), at_the_bounds(slots, seed + 10)
        inputs = _inputs(backbone, seed)
        model = edited_by_hand(backbone, slots, prototype, edit)
        with torch.no_grad():
            expected = model(torch.from_numpy(inputs["x"])).numpy()
        output = execute(inputs, effective(slots, base, prototype, edit))
        assert np.abs(output - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
        outputs.append(output)
    still = execute(inputs, base)
    assert np.abs(outputs[-1] - still).max() > 0.01, "an edit at the bounds must be seen"


def test_the_manifest_says_where_each_tensor_lies_and_there_lies_the_base(patched):
    backbone, slots, folder, program, _ = patched
    base = base_tensors(backbone, slots)
    head = (folder / program.head.path).read_bytes()
    places = {feed.tensor: feed.patch for feed in program.feeds if feed.patch is not None}
    assert set(places) == {n for n in base if n.startswith("head.")}
    for name, patch in places.items():
        stored = np.frombuffer(head, "<f4", patch.length // 4, patch.offset)
        np.testing.assert_array_equal(stored, base[name].numpy().ravel())
    assert {f.tensor: f.index for f in program.feeds if f.patch is None} == {
        "trunk.0.scale": 1,
        "trunk.0.shift": 2,
    }


def test_one_patched_byte_run_at_the_wrong_place_is_noticed(patched, at_the_bounds):
    """The negative control: the same values four bytes further give another output."""
    from dataclasses import replace

    backbone, slots, folder, program, execute = patched
    base = {name: value.numpy() for name, value in base_tensors(backbone, slots).items()}
    moved = tuple(
        replace(f, patch=replace(f.patch, offset=f.patch.offset - 4))
        if f.tensor == "head.0.weight"
        else f
        for f in program.feeds
    )
    values = effective(slots, base, zero_edit(slots), at_the_bounds(slots, 1))
    wrong = targets[XNNPACK]().executor(folder, replace(program, feeds=moved))
    inputs = _inputs(backbone, 0)
    assert np.abs(wrong(inputs, values) - execute(inputs, values)).max() > 1e-3


def test_the_exporter_measures_both_ways_for_a_large_slot_and_says_what_it_found(tmp_path):
    backbone = _Wide().eval()
    assert backbone.head[0].weight.numel() > SMALL
    slots = (make_slot(backbone, "head.0"),)
    program = targets[XNNPACK]().export(Source(backbone, slots, False), "fp32", tmp_path)
    said = program.slot_feed
    assert set(said["ratio_to_baked"]) == {"inputs", "patched"}
    assert said["chosen"] == ("inputs" if program.head is None else "patched")
    assert "head.0 has more than 16384 weights" in said["why"]


def test_a_weight_of_a_mebibyte_as_an_input_is_read_in_place_and_equals_eager(
    tmp_path, edited_by_hand, at_the_bounds
):
    """Where it is the left factor of its product, the vector that comes out is turned by a view."""
    views = []
    for width in (256, 512):
        backbone = _Wide(width).eval()
        slots = (make_slot(backbone, "head.0"),)
        target = targets[XNNPACK]()
        program = target.export(Source(backbone, slots, False, "inputs"), "fp32", tmp_path)
        views.append(program.delegation["forward"]["inside"].get("aten.view_copy.default", 0))
        base = {n: value.numpy() for n, value in base_tensors(backbone, slots).items()}
        change, inputs = at_the_bounds(slots, 2), _inputs(backbone, 2)
        model = edited_by_hand(backbone, slots, change)
        with torch.no_grad():
            expected = model(torch.from_numpy(inputs["x"])).numpy()
        values = effective(slots, base, zero_edit(slots), change)
        output = target.executor(tmp_path, program)(inputs, values)
        assert np.abs(output - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
    assert views == [0, 1]


def test_small_slots_are_inputs_without_measuring(tmp_path):
    backbone = _Wide(width=16).eval()
    slots = (make_slot(backbone, "head.0"),)
    program = targets[XNNPACK]().export(Source(backbone, slots, False), "fp32", tmp_path)
    assert program.head is None
    assert program.slot_feed["chosen"] == "inputs"
    assert "ratio_to_baked" not in program.slot_feed


def test_a_backbone_without_a_head_cannot_be_patched(tmp_path):
    backbone = _Wide(width=16).eval()
    slots = (make_slot(backbone, "trunk.0"),)
    with pytest.raises(ExportError, match="cannot patch these slots: no slot lies in the head"):
        targets[XNNPACK]().export(Source(backbone, slots, False, "patched"), "fp32", tmp_path)


def test_a_target_without_patches_says_so(digits_run, tmp_path):
    with pytest.raises(ExportError, match=r"executorch-vulkan cannot feed slots as 'patched'"):
        export_bundle(
            digits_run, (Wanted("executorch-vulkan"),), tmp_path / "b", lambda _: None, "patched"
        )


def test_the_device_runs_a_patched_bundle_with_prototypes_and_goes_back(digits_run, tmp_path):
    path = tmp_path / "bundle"
    export_bundle(digits_run, (Wanted(XNNPACK),), path, lambda _: None, "patched")
    bundle = open_bundle(path)
    program = bundle.manifest.program(XNNPACK)
    assert program.head is not None
    before = (path / program.head.path).read_bytes()
    live = LiveModel(bundle)
    inputs = [bundle.golden.inputs[0]["image"]]
    base = live.predict(inputs)
    live.use_prototype(1)
    np.testing.assert_allclose(live.predict(inputs), bundle.golden.prototypes[1][0], atol=1e-5)
    np.testing.assert_allclose(live.engine.predict_baked(inputs), base, atol=1e-6)
    live.resume(type(live.state)(0))
    np.testing.assert_allclose(live.predict(inputs), bundle.golden.prototypes[0][0], atol=1e-5)
    assert (path / program.head.path).read_bytes() == before, "the bundle stays as it was signed"
    stored = decode_base(bundle.manifest.slots, (path / "base.safetensors").read_bytes())
    for feed in program.feeds:
        place = np.frombuffer(before, "<f4", feed.patch.length // 4, feed.patch.offset)
        np.testing.assert_array_equal(place, stored[feed.tensor].ravel())


# -- Precisions and targets without a runtime


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 1e-2), ("int8", 5e-2)])
def test_a_backbone_in_fewer_bits_is_smaller_and_still_right(
    precision, tolerance, tmp_path, edited_by_hand, at_the_bounds
):
    backbone = _Wide(width=64).eval()
    slots = (make_slot(backbone, "head.0", "low-rank", rank=2), make_slot(backbone, "head.2"))
    target, files = targets[XNNPACK](), []
    for width in ("fp32", precision):
        program = target.export(Source(backbone, slots, False), width, tmp_path)
        files.append((tmp_path / program.path).stat().st_size)
    assert program.precision == precision
    assert program.tolerance == tolerance
    assert files[1] < files[0]
    base = {name: value.numpy() for name, value in base_tensors(backbone, slots).items()}
    change, inputs = at_the_bounds(slots, 3), _inputs(backbone, 3)
    with torch.no_grad():
        expected = edited_by_hand(backbone, slots, change)(torch.from_numpy(inputs["x"])).numpy()
    output = target.executor(tmp_path, program)(
        inputs, effective(slots, base, zero_edit(slots), change)
    )
    difference = np.abs(output - expected).max() / max(1, np.abs(expected).max())
    assert 1e-6 < difference <= tolerance


class _OnlySlots(Backbone):
    """Nothing but one dense slot."""

    task = "classification"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("x", "float32", (1, 6)),)

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.layer(inputs[0])
        return result


def test_int8_without_a_layer_to_quantise_is_refused(tmp_path):
    backbone = _OnlySlots().eval()
    source = Source(backbone, (make_slot(backbone, "layer"),), False)
    with pytest.raises(ExportError, match="int8 found no convolution or linear layer"):
        targets[XNNPACK]().export(source, "int8", tmp_path)


@pytest.mark.parametrize("name", ["executorch-vulkan"])
def test_a_program_that_nothing_here_runs_is_proven_by_the_graph_that_went_into_it(
    name, tmp_path, edited_by_hand, at_the_bounds
):
    backbone = _Wide(width=16).eval()
    slots = (
        make_slot(backbone, "trunk.0", "affine"),
        make_slot(backbone, "head.0", "low-rank", rank=2),
        make_slot(backbone, "head.2", "dense"),
    )
    target = targets[name]()
    program = target.export(Source(backbone, slots, False), "fp32", tmp_path)
    assert program.verified == "lowered"
    assert program.delegation["forward"]["delegates"] == 1
    assert not program.delegation["forward"]["outside"]
    base = {n: value.numpy() for n, value in base_tensors(backbone, slots).items()}
    change, inputs = at_the_bounds(slots, 3), _inputs(backbone, 3)
    with torch.no_grad():
        expected = edited_by_hand(backbone, slots, change)(torch.from_numpy(inputs["x"])).numpy()
    run = target.executor(tmp_path, program)
    output = run(inputs, effective(slots, base, zero_edit(slots), change))
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(NotRunnableError, match=f"no runtime on this machine executes {name}"):
        targets[name]().executor(tmp_path, program)


def test_qnn_without_its_sdk_says_at_once_how_to_get_it(tmp_path, monkeypatch):
    import sys

    monkeypatch.delenv("QNN_SDK_ROOT", raising=False)
    backbone = _Wide(width=16).eval()
    source = Source(backbone, (make_slot(backbone, "head.0"),), False)
    with pytest.raises(ExportError, match=r"download Qualcomm AI Engine Direct.*QNN_SDK_ROOT"):
        targets["executorch-qnn"]().export(source, "fp16", tmp_path)
    assert not [name for name in sys.modules if name.startswith("executorch.backends.qualcomm")]
    assert not list(tmp_path.iterdir())
