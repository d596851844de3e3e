"""A whole bundle: what the manifest says of it is what lies there, and it lies there whole."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from persona.backbones.image_net import ImageNet
from persona.bundles import open_bundle
from persona.durable import PlaceError
from persona.formats import manifest as manifest_format
from persona.formats.errors import FormatError
from persona.formats.slots import zero_edit
from persona_export.coreml_package import Package, activation_bytes
from persona_export.coreml_package.program import Feature, Named, Operation, TensorType
from persona_export.coreml_package.program import Program as CoreMLProgram
from persona_export.export import Wanted, export_bundle
from persona_export.parity import check_in_bundle
from persona_export.targets import ExportError, Source, targets

NAMES = pytest.mark.parametrize("name", ["digits", "sasrec"])
EXECUTORCH = Wanted("executorch-xnnpack")


@pytest.fixture
def made(name, request):
    return request.getfixturevalue(f"{name}_run"), request.getfixturevalue(f"{name}_bundle")


def silent(_: str) -> None:
    """No progress."""


@NAMES
def test_the_manifest_names_every_file_with_its_size_and_sha256(made):
    _, bundle = made
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    lying = {
        path.relative_to(bundle.path).as_posix(): path.read_bytes()
        for path in bundle.path.rglob("*")
        if path.is_file()
    }
    assert set(lying) - set(manifest["files"]) == {"manifest.json", "manifest.sig"}
    for path, said in manifest["files"].items():
        assert said["size"] == len(lying[path])
        assert said["sha256"] == hashlib.sha256(lying[path]).hexdigest()
    assert bundle.digest == hashlib.sha256(lying["manifest.json"]).hexdigest()


@NAMES
def test_a_bundle_is_read_by_its_own_major_version_and_refused_by_another(
    made, resigned, monkeypatch, tmp_path
):
    run, bundle = made
    assert open_bundle(bundle.path).digest == bundle.digest
    refused = r"its format is '{}', and this version reads '{}'; export the bundle again, or use"
    with pytest.raises(FormatError, match=refused.format("persona.bundle/2", "persona.bundle/1")):
        resigned(bundle, run, tmp_path / "later", {}, format="persona.bundle/2", slots=[])
    monkeypatch.setattr(manifest_format, "BUNDLE_FORMAT", "persona.bundle/2")
    with pytest.raises(FormatError, match=refused.format("persona.bundle/1", "persona.bundle/2")):
        open_bundle(bundle.path)


@NAMES
def test_golden_outputs_are_those_of_eager_pytorch_edited_by_hand(made, edited_by_hand):
    run, bundle = made
    golden, slots = bundle.golden, run.record.slots
    changes = [zero_edit(slots), *bundle.prototypes.changes, golden.edit]
    outputs = [golden.base, *golden.prototypes, golden.edited]
    for change, stored in zip(changes, outputs, strict=True):
        model = edited_by_hand(run.backbone, slots, change)
        for inputs, output in zip(golden.inputs, stored, strict=True):
            with torch.no_grad():
                expected = model(*(torch.from_numpy(x.copy()) for x in inputs.values())).numpy()
            np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_golden_features_are_those_of_eager_pytorch(digits_run, digits_bundle):
    golden = digits_bundle.golden
    rows = zip(golden.inputs, golden.features, golden.posterior, strict=True)
    for inputs, features, posterior in rows:
        with torch.no_grad():
            wanted = digits_run.backbone.features(torch.from_numpy(inputs["image"]))
        np.testing.assert_allclose(features, wanted[0].numpy(), atol=1e-6)
        np.testing.assert_allclose(posterior, wanted[1].numpy(), atol=1e-6)


def test_golden_rankings_cover_the_fewest_and_the_most_candidates(sasrec_bundle):
    sizes = {inputs["candidates"].shape[1] for inputs in sasrec_bundle.golden.inputs}
    assert {1, 20, 100} <= sizes


@NAMES
def test_prototypes_and_base_are_those_of_the_run(made):
    run, bundle = made
    for name, edits in run.bank.edits().items():
        for k, change in enumerate(bundle.prototypes.changes):
            np.testing.assert_array_equal(change[name], edits[k].detach().numpy())
    state = run.backbone.state_dict()
    for name, value in bundle.base.items():
        np.testing.assert_array_equal(value, state[name].numpy())


@NAMES
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_core_ml_gives_the_golden_outputs_within_the_stated_tolerance(made, precision, tmp_path):
    run, bundle = made
    slots, golden = run.record.slots, bundle.golden
    if precision == "fp16":
        folder, program = bundle.path, bundle.manifest.program("coreml", "fp16")
    else:
        folder, source = tmp_path, Source(run.backbone, slots, pooled=False)
        program = targets["coreml"]().export(source, "fp32", folder)
    package = Package.open(folder / program.path)
    assert program.tolerance == {"fp32": 1e-5, "fp16": 1e-2}[precision]
    named = {feed.tensor: feed.input for feed in program.feeds}

    def largest(stored, change):
        fed = {named[n]: v for n, v in change.items()}
        found = []
        for inputs, expected in zip(golden.inputs, stored, strict=True):
            given = {n: x.astype(np.int32) if x.dtype == np.int64 else x for n, x in inputs.items()}
            output = package.run({**given, **fed})["output"]
            found.append(np.abs(output - expected).max() / max(1, np.abs(expected).max()))
        return max(found)

    assert largest(golden.base, {}) <= program.tolerance, "without inputs it must be the base"
    assert largest(golden.edited, golden.edit) <= program.tolerance
    for stored, change in zip(golden.prototypes, bundle.prototypes.changes, strict=True):
        assert largest(stored, change) <= program.tolerance
    assert largest(golden.edited, {}) > program.tolerance, "the edit must be seen"


@NAMES
def test_every_program_of_a_bundle_passes_its_check_again(made):
    _, bundle = made
    manifest = bundle.manifest
    assert [p.target for p in manifest.programs] == ["executorch-xnnpack", "coreml"]
    for program in manifest.programs:
        parity = check_in_bundle(bundle, program)
        assert max(parity.base, parity.prototypes, parity.edited, parity.observed) > 0


class _FarMask(ImageNet):
    """Adds a number that binary16 does not have, so that Core ML in fp16 is refused."""

    def forward(self, *inputs: Tensor) -> Tensor:
        logits = super().forward(*inputs)
        return nn.functional.softmax(logits + (logits > 100) * -1e9, 1)


def test_of_all_targets_one_that_fails_is_left_out_with_its_reason(digits_run, tmp_path):
    run = _with_far_mask(digits_run)
    wanted = tuple(
        Wanted(name, required=False) for name in ("executorch-xnnpack", "executorch-qnn", "coreml")
    )
    exported = export_bundle(run, wanted, tmp_path / "bundle", silent)
    assert [p.target for p in open_bundle(tmp_path / "bundle").manifest.programs] == [
        "executorch-xnnpack"
    ]
    assert list(exported.left_out) == ["executorch-qnn fp16", "coreml fp16"]
    assert "Core ML fp16: the package has faults" in exported.left_out["coreml fp16"]
    assert "QNN_SDK_ROOT" in exported.left_out["executorch-qnn fp16"]
    assert not (tmp_path / "bundle/coreml/fp16/forward.mlpackage").exists()


def test_a_target_that_was_asked_for_by_name_must_succeed(digits_run, tmp_path):
    with pytest.raises(ExportError, match="Core ML fp16: the package has faults"):
        export_bundle(_with_far_mask(digits_run), (Wanted("coreml"),), tmp_path / "bundle", silent)
    assert not list(tmp_path.iterdir())


def _with_far_mask(run):
    backbone = _FarMask(**run.record.config.backbone.settings).eval()
    backbone.load_state_dict(run.backbone.state_dict())
    return replace(run, backbone=backbone)


def test_a_precision_that_a_target_lacks_is_named_with_those_it_has(digits_run, tmp_path):
    wanted = Wanted("executorch-qnn", "int8")
    with pytest.raises(ExportError, match="executorch-qnn has no int8; it has fp16: 8 bits need"):
        export_bundle(digits_run, (wanted,), tmp_path / "bundle", silent)


def test_a_bundle_without_any_program_is_not_written(digits_run, tmp_path):
    wanted = (Wanted("executorch-qnn", "int8", required=False),)
    with pytest.raises(ExportError, match=r"no program could be written.*qnn has no int8"):
        export_bundle(digits_run, wanted, tmp_path / "bundle", silent)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["exporting executorch-xnnpack", "writing the bundle"])
def test_an_interrupted_export_leaves_nothing(digits_run, tmp_path, stage):
    def interrupt(name: str) -> None:
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(digits_run, (Wanted("coreml"), EXECUTORCH), tmp_path / "bundle", interrupt)
    assert not list(tmp_path.iterdir())


def test_an_export_over_an_existing_folder_is_refused_before_work_begins(digits_run, tmp_path):
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "precious").write_text("mine")
    steps = []
    with pytest.raises(PlaceError, match="exists already; choose another place or remove it"):
        export_bundle(digits_run, (EXECUTORCH,), out, steps.append)
    assert not steps
    assert [p.name for p in tmp_path.rglob("*")] == ["bundle", "precious"]


class _BrokenConverter(targets["executorch-xnnpack"]):
    """Writes half a file, and then meets an operation that it does not know."""

    def export(self, source, precision, bundle):
        super().export(source, precision, bundle)
        (bundle / "executorch/half.pte").write_bytes(b"half")
        raise NotImplementedError("no rule for\n  'fancy_op'")


def test_an_operation_that_a_converter_does_not_know_is_a_row_and_no_crash(
    digits_run, tmp_path, monkeypatch
):
    monkeypatch.setitem(targets._entries, "coreml", _BrokenConverter)
    wanted = (Wanted("coreml", "fp32", required=False), EXECUTORCH)
    exported = export_bundle(digits_run, wanted, tmp_path / "bundle", silent)
    assert exported.left_out == {
        "coreml fp32": "coreml fp32 cannot take this model: NotImplementedError: "
        "no rule for 'fancy_op'"
    }
    assert not (tmp_path / "bundle/executorch/half.pte").exists()
    (row,) = exported.report.values()
    assert row.files == {
        "executorch/xnnpack.pte": (tmp_path / "bundle/executorch/xnnpack.pte").stat().st_size
    }
    assert row.inside > 0
    assert row.peak_bytes > 0
    assert 0 < row.largest_difference <= 1e-5
    with pytest.raises(ExportError, match="cannot take this model"):
        export_bundle(digits_run, (Wanted("coreml", "fp32"),), tmp_path / "other", silent)


# -- The report


def test_a_core_ml_row_counts_the_operations_of_all_its_packages_and_their_largest(
    digits_run, tmp_path
):
    exported = export_bundle(digits_run, (Wanted("coreml", "fp16"),), tmp_path / "b", silent)
    (row,) = exported.report.values()
    kinds, largest = [], 0
    for name in ("forward", "observe"):
        package = Package.open(tmp_path / f"b/coreml/fp16/{name}.mlpackage")
        computed = [o for o in package.program.operations if o.kind != "const"]
        kinds += [operation.kind for operation in computed]
        sizes = [math.prod(o.type.shape) for operation in computed for o in operation.outputs]
        largest = max(largest, *sizes)
    assert (row.inside, row.outside) == (len(kinds), 0)
    assert 2 * largest < row.peak_bytes < 4 * 2 * 2 * largest


def test_the_activations_of_a_package_are_what_is_alive_at_once_open_sizes_at_their_largest():
    def step(kind, name, dtype, shape, *uses):
        output = Named(name, TensorType(dtype, shape))
        return Operation(kind, {"x": uses}, (output,), {})

    x = TensorType("float32", (1, None))
    operations = (
        step("const", "w", "float32", (1000,)),
        step("cast", "a", "float16", (1, None), "x"),  # 16 bytes
        step("linear", "b", "float32", (4,), "a", "w"),  # 16, with a: 32
        step("relu", "dropped", "float32", (1,), "b"),  # 4, with a and b: 36
        step("add", "y", "float16", (1,), "a", "b"),  # 2, with a and b: 34
    )
    program = CoreMLProgram(
        8, (Feature("x", x, ((1, 1), (1, 8))),), (), "CoreML7", (Named("x", x),), operations, ("y",)
    )
    assert activation_bytes(Package(program, Path())) == 36
