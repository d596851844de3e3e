"""The C++ runner: it agrees with Python's runtime and with PyTorch, and notices what is wrong."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from persona.backbones.image_net import ImageNet
from persona.bundles import Bundle
from persona.formats import container
from persona.formats.bundle_tensors import (
    Golden,
    Prototypes,
    encode_base,
    encode_golden,
    encode_prototypes,
)
from persona.formats.manifest import Port, Program
from persona.formats.observation import ItemsSpec
from persona.formats.schema import encode
from persona.formats.slots import SlotSpec, effective, zero_edit
from persona.method.slots import base_tensors, make_slot
from persona_export.runner import Case, MissingToolsError, Report, RunnerError, run_bundle
from persona_export.runner.build import SOURCES, build, check_ready, command
from persona_export.runner.toolchain import MACHINES, Machine, install_tools
from persona_export.targets import Source, targets
from persona_export.targets.executorch_xnnpack import ExecutorchXnnpack

TARGET = ExecutorchXnnpack()
ITEMS = ItemsSpec(kind="items", vocabulary=10, min_count=1, max_count=5)

Tensors = dict[str, np.ndarray]


def _need(machine: Machine) -> None:
    try:
        install_tools(machine)
        build(machine)
    except MissingToolsError as error:
        pytest.skip(f"RUNG NOT RUN: {error}")


@pytest.fixture(scope="module", autouse=True)
def native() -> None:
    _need("native")


@pytest.fixture
def damaged(digits_bundle: Bundle, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the digits bundle with some files or manifest fields replaced, signed by nobody."""

    def copy(files: dict[str, bytes] | None = None, **fields: object) -> Path:
        out = tmp_path / "bundle"
        shutil.copytree(digits_bundle.path, out)
        for name, data in (files or {}).items():
            (out / name).write_bytes(data)
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps(manifest | fields))
        return out

    return copy


def _tensors(bundle: Path, file: str) -> tuple[Tensors, dict[str, str]]:
    tensors, metadata = container.decode((bundle / file).read_bytes(), 2**20)
    return {name: tensor.array() for name, tensor in tensors.items()}, metadata


def _with(bundle: Path, file: str, **replaced: np.ndarray) -> bytes:
    tensors, metadata = _tensors(bundle, file)
    return container.encode(tensors | replaced, metadata)


# -- Agreement


@pytest.mark.parametrize("name", ["digits", "sasrec"])
def test_outputs_equal_those_of_the_python_runtime(name, request):
    bundle: Bundle = request.getfixturevalue(f"{name}_bundle")
    report = run_bundle(bundle.path)
    assert report.passed
    assert report.machine == "native"
    slots, nothing, golden = bundle.manifest.slots, zero_edit(bundle.manifest.slots), bundle.golden
    program = bundle.manifest.program("executorch-xnnpack")
    execute = TARGET.executor(bundle.path, program)
    pairs = {"base": (nothing, nothing), "edited": (nothing, golden.edit)}
    pairs |= {f"prototype.{k}": (c, nothing) for k, c in enumerate(bundle.prototypes.changes)}
    assert set(report.cases) == set(pairs) | (
        {"features", "posterior"} if golden.features else set()
    )
    for case, (prototype, edit) in pairs.items():
        for i, inputs in enumerate(golden.inputs):
            wanted = execute(inputs, effective(slots, bundle.base, prototype, edit))
            np.testing.assert_allclose(report.outputs[f"{case}.{i}"], wanted, rtol=0, atol=1e-6)
    if golden.features:
        observe = TARGET.features(bundle.path, program)
        for i, inputs in enumerate(golden.inputs):
            for output, wanted in zip(("features", "posterior"), observe(inputs), strict=True):
                np.testing.assert_allclose(report.outputs[f"{output}.{i}"], wanted, atol=1e-6)


def test_the_differences_it_reports_are_those_of_its_outputs(sasrec_bundle: Bundle):
    report = run_bundle(sasrec_bundle.path)
    golden = sasrec_bundle.golden
    for case, expected in (("base", golden.base), ("edited", golden.edited)):
        apart = [np.abs(report.outputs[f"{case}.{i}"] - e).max() for i, e in enumerate(expected)]
        scales = [max(1.0, np.abs(e).max()) for e in expected]
        assert report.cases[case].largest == pytest.approx(max(apart))
        relative = max(a / s for a, s in zip(apart, scales, strict=True))
        assert report.cases[case].relative == pytest.approx(relative)


def test_the_worst_of_a_kind_of_cases_is_told_and_nothing_of_a_kind_that_there_is_not():
    apart = {"base": 1e-7, "prototype.0": 2e-7, "prototype.1": 9e-7, "prototype.2": 3e-7}
    cases = {name: Case(1.0, relative) for name, relative in apart.items()}
    report = Report("native", "fp32", 1e-5, True, cases, {})
    assert report.worst("base") == 1e-7
    assert report.worst("prototype") == 9e-7
    assert report.worst("base", "prototype") == 9e-7
    assert report.worst("features", "posterior") is None
    assert report.worst("prototype.1") is None


def test_targets_that_say_they_run_in_cpp_are_those_that_its_sources_name():
    (named,) = re.findall(r'kTarget = "(.+)"', (SOURCES / "bundle.h").read_text())
    assert [name for name in targets if targets[name].run_in_cpp] == [named]


@pytest.mark.parametrize("name", ["digits", "sasrec"])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_edits_at_the_bounds_equal_eager(
    name, seed, request, tmp_path, edited_by_hand, at_the_bounds
):
    run = request.getfixturevalue(f"{name}_run")
    bundle: Bundle = request.getfixturevalue(f"{name}_bundle")
    slots, sizes = run.record.slots, (1, 20, 100, 7)
    assert len(sizes) == len(bundle.golden.inputs), "each golden input must be replaced"
    edit = at_the_bounds(slots, seed)
    edited = edited_by_hand(run.backbone, slots, edit)
    golden, metadata = _tensors(bundle.path, "golden.safetensors")
    golden |= {f"edit.{n}": v for n, v in edit.items()}
    for i, size in enumerate(sizes):
        inputs = run.backbone.example_inputs(100 * seed + i, size)
        with torch.no_grad():
            golden |= {
                f"base.{i}": run.backbone(*inputs).numpy(),
                f"edited.{i}": edited(*inputs).numpy(),
            }
            for k in range(run.bank.count):
                change = {n: v[k].detach().numpy() for n, v in run.bank.edits().items()}
                model = edited_by_hand(run.backbone, slots, change)
                golden[f"prototype.{k}.{i}"] = model(*inputs).numpy()
            if bundle.golden.features:
                features, posterior = run.backbone.features(*inputs)
                golden |= {f"features.{i}": features.numpy(), f"posterior.{i}": posterior.numpy()}
        golden |= {
            f"input.{i}.{spec.name}": x.numpy()
            for spec, x in zip(run.backbone.input_specs(), inputs, strict=True)
        }
    out = tmp_path / "bundle"
    shutil.copytree(bundle.path, out)
    (out / "golden.safetensors").write_bytes(container.encode(golden, metadata))
    report = run_bundle(out)
    assert report.passed, report.cases
    moved = np.abs(report.outputs["edited.0"] - report.outputs["base.0"]).max()
    assert moved > 0.01, "an edit at the bounds must be seen"


def _whole_bundle(
    folder: Path,
    program: Program,
    backbone: ImageNet,
    slots: tuple[SlotSpec, ...],
    prototype: Tensors,
    edit: Tensors,
    edited_by_hand: Callable,
) -> Path:
    """What the runner reads of a bundle, around a program that lies in `folder` already."""
    models = (backbone, *(edited_by_hand(backbone, slots, c) for c in (prototype, edit)))
    images = [backbone.example_inputs(seed) for seed in range(3)]
    with torch.no_grad():
        base, prototypes, edited = (tuple(m(*x).numpy() for x in images) for m in models)
    golden = Golden(
        tuple({"image": x.numpy()} for (x,) in images), base, (prototypes,), edit, edited, (), ()
    )
    ports = (Port("image", "float32", tuple(images[0][0].shape)),)
    output = Port("output", "float32", base[0].shape)
    rule = (np.ones(s, np.float32) for s in ((11,), (11,), (1, 11), (1,)))
    tensors = {n: v.numpy() for n, v in base_tensors(backbone, slots).items()}
    files = {
        "base": encode_base(slots, tensors),
        "prototypes": encode_prototypes(slots, Prototypes((prototype,), *rule)),
        "golden": encode_golden(slots, ports, output, ITEMS, golden),
    }
    for name, data in files.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    manifest = {
        "format": "persona.bundle/1",
        "model": "small",
        "inputs": encode(ports),
        "outputs": encode((output,)),
        "slots": encode(slots),
        "prototype_count": 1,
        **{name: f"{name}.safetensors" for name in files},
        "programs": encode((program,)),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _small() -> ImageNet:
    torch.manual_seed(1)
    return ImageNet(width=4, hidden=8).eval()


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory, edited_by_hand, at_the_bounds) -> dict[str, Path]:
    """Bundles with affine, low-rank and dense slots: all inputs, or the head's in its bytes."""
    backbone, bundles = _small(), {}
    slots = (
        make_slot(backbone, "trunk.second.0", "affine"),
        make_slot(backbone, "trunk.project", "low-rank", rank=3),
        make_slot(backbone, "head.0", "dense"),
        make_slot(backbone, "head.2", "low-rank", rank=2),
    )
    for feed in ("inputs", "patched"):
        folder = tmp_path_factory.mktemp(feed)
        source = Source(backbone, slots, pooled=False, slot_feed=feed)
        program = TARGET.export(source, "fp32", folder)
        assert (program.head is not None) == (feed == "patched")
        changes = (at_the_bounds(slots, 5), at_the_bounds(slots, 6))
        bundles[feed] = _whole_bundle(folder, program, backbone, slots, *changes, edited_by_hand)
    return bundles


@pytest.mark.parametrize("feed", ["inputs", "patched"])
def test_slots_of_every_kind_and_feed_equal_eager(feed, every_kind):
    report = run_bundle(every_kind[feed])
    assert report.passed, report.cases
    assert set(report.cases) == {"base", "prototype.0", "edited"}
    moved = np.abs(report.outputs["edited.0"] - report.outputs["prototype.0.0"]).max()
    assert moved > 0.01, "the edit must be seen after the prototype"


def test_a_patch_at_a_wrong_place_is_noticed_and_one_beyond_the_file_refused(every_kind, tmp_path):
    out = tmp_path / "bundle"
    shutil.copytree(every_kind["patched"], out)
    manifest = json.loads((out / "manifest.json").read_text())
    patch = next(f["patch"] for f in manifest["programs"][0]["feeds"] if f["patch"] is not None)
    patch["offset"] += 4
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert not run_bundle(out).passed
    patch["offset"] = 2**40
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunnerError, match=r"exit code 2.*within the head's \d+ bytes"):
        run_bundle(out)


# -- What is planted is noticed


def test_a_transposed_square_slot_is_noticed(damaged, digits_bundle):
    weight = digits_bundle.base["head.0.weight"]
    assert weight.shape[0] == weight.shape[1]
    turned = _with(digits_bundle.path, "base.safetensors", **{"head.0.weight": weight.T.copy()})
    report = run_bundle(damaged({"base.safetensors": turned}))
    assert not report.passed
    assert report.cases["base"].relative > 100 * report.tolerance


def test_a_skipped_edit_is_noticed(damaged, digits_bundle):
    nothing = {f"edit.{n}": np.zeros_like(v) for n, v in digits_bundle.golden.edit.items()}
    report = run_bundle(
        damaged({"golden.safetensors": _with(digits_bundle.path, "golden.safetensors", **nothing)})
    )
    assert not report.passed
    assert report.cases["edited"].relative > 100 * report.tolerance
    assert report.cases["base"].relative <= report.tolerance


def test_two_swapped_feeds_of_equal_shape_are_noticed(sasrec_bundle, tmp_path):
    out = tmp_path / "bundle"
    shutil.copytree(sasrec_bundle.path, out)
    manifest = json.loads((out / "manifest.json").read_text())
    feeds = {f["tensor"]: f for f in manifest["programs"][0]["feeds"]}
    first, second = feeds["head.user.0.weight"], feeds["head.user.2.weight"]
    first["index"], second["index"] = second["index"], first["index"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert not run_bundle(out).passed


# -- Damaged input is refused, with a reason


def _header(edit: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        edit(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return change


def _twice(data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    text = b'{"head.0.bias":1,' + data[9 : 8 + length]
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


DAMAGE = {
    "container.truncated": lambda data: data[:5],
    "container.header_too_long": lambda data: b"\xff" * 8 + data[8:],
    "container.header_invalid": lambda data: data[:8] + b"[" + data[9:],
    "container.duplicate_key": _twice,
    "container.size_mismatch": _header(lambda h: h["head.0.bias"].update(shape=[7])),
    "container.out_of_bounds": lambda data: data[:-40],
    "container.trailing_bytes": lambda data: data + b"\0",
    "container.overlap": _header(
        lambda h: h["head.0.bias"].update(
            data_offsets=[n - 4 for n in h["head.0.bias"]["data_offsets"]]
        )
    ),
    "container.hole": _header(lambda h: h.pop("head.0.bias")),
}


@pytest.mark.parametrize("code", DAMAGE)
def test_a_damaged_container_is_refused_with_the_code_of_the_format(code, damaged, digits_bundle):
    data = DAMAGE[code]((digits_bundle.path / "base.safetensors").read_bytes())
    with pytest.raises(RunnerError, match=rf"exit code 2: {code}: base\.safetensors"):
        run_bundle(damaged({"base.safetensors": data}))


def test_a_tensor_of_another_shape_is_refused(damaged, digits_bundle):
    wide = np.zeros((8, 9), np.float32)
    data = _with(digits_bundle.path, "base.safetensors", **{"head.0.weight": wide})
    with pytest.raises(RunnerError, match=r"'head.0.weight' must have shape \[8,8\], got \[8,9\]"):
        run_bundle(damaged({"base.safetensors": data}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused(value, damaged, digits_bundle):
    edit = digits_bundle.golden.edit["head.2.bias"].copy()
    edit[3] = value
    data = _with(digits_bundle.path, "golden.safetensors", **{"edit.head.2.bias": edit})
    with pytest.raises(RunnerError, match=r"exit code 2.*'edit.head.2.bias' holds NaN or infinity"):
        run_bundle(damaged({"golden.safetensors": data}))


def test_a_missing_tensor_is_named(damaged, digits_bundle):
    tensors, metadata = _tensors(digits_bundle.path, "prototypes.safetensors")
    del tensors["1.head.0.weight"]
    data = container.encode(tensors, metadata)
    with pytest.raises(RunnerError, match=r"exit code 2.*no tensor '1.head.0.weight'"):
        run_bundle(damaged({"prototypes.safetensors": data}))


def test_a_program_that_is_none_ends_with_the_code_of_the_runtime(damaged):
    with pytest.raises(RunnerError, match="exit code 3: ExecuTorch cannot load method 'forward'"):
        run_bundle(damaged({"executorch/xnnpack.pte": b"no program" * 100}))


def test_a_bundle_of_another_version_is_refused(damaged):
    with pytest.raises(RunnerError, match=r"exit code 2.*persona\.bundle/1.*persona\.bundle/2"):
        run_bundle(damaged(format="persona.bundle/2"))


def test_a_precision_that_the_bundle_lacks_is_refused(digits_bundle):
    with pytest.raises(RunnerError, match=r"no program for executorch-xnnpack int8.*--target"):
        run_bundle(digits_bundle.path, precision="int8")


def test_a_feed_that_is_left_out_is_named(damaged, digits_bundle):
    programs = json.loads((digits_bundle.path / "manifest.json").read_text())["programs"]
    left = programs[0]["feeds"].pop()
    with pytest.raises(RunnerError, match=f"no feed takes '{left['tensor']}'"):
        run_bundle(damaged(programs=programs))


@pytest.mark.parametrize(
    "words", [[], ["--speed"], ["a", "b"], ["a", "--bench"], ["a", "--bench", "0"]]
)
def test_a_command_line_that_is_not_understood_ends_with_2(words):
    done = subprocess.run([*command("native"), *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("persona-runner: ")
    assert not done.stdout


# -- The build


def test_the_runner_is_built_anew_when_a_source_changes_and_not_otherwise(tmp_path):
    from persona_export.runner.build import _fingerprint

    sources = tmp_path / "cpp"
    shutil.copytree(SOURCES, sources)
    before = _fingerprint(sources, Path("/package"))
    assert before == _fingerprint(SOURCES, Path("/package"))
    assert before != _fingerprint(SOURCES, Path("/other"))
    (sources / "slots.cpp").write_bytes((sources / "slots.cpp").read_bytes() + b"\n")
    assert before != _fingerprint(sources, Path("/package"))


def test_where_tools_are_missing_their_packages_are_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingToolsError, match="install cmake make g") as raised:
        build("cortex-a53")
    assert {"g++-aarch64-linux-gnu", "qemu-user-static"} <= set(raised.value.packages)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingToolsError, match="only root may install"):
        install_tools("native")
    with pytest.raises(MissingToolsError, match="install cmake make"):
        check_ready("cortex-a76")


def test_what_would_have_to_be_fetched_is_missing_too(monkeypatch, tmp_path):
    _need("cortex-a53")
    check_ready("cortex-a53")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    check_ready("native")
    with pytest.raises(RunnerError, match="arm64 libraries are not in"):
        check_ready("cortex-a53")
    assert not list(tmp_path.iterdir())


# -- As on an arm64 phone


@pytest.mark.parametrize("machine", MACHINES[1:])
def test_arm64_gives_what_this_processor_gives(machine, digits_bundle, sasrec_bundle, every_kind):
    _need(machine)
    for bundle in (digits_bundle.path, sasrec_bundle.path, *every_kind.values()):
        here, there = run_bundle(bundle), run_bundle(bundle, machine)
        assert there.passed, there.cases
        assert there.outputs.keys() == here.outputs.keys()
        for name, output in there.outputs.items():
            scale = max(1.0, np.abs(here.outputs[name]).max())
            assert np.abs(output - here.outputs[name]).max() <= here.tolerance * scale, name


def test_no_time_is_told_under_emulation(digits_bundle):
    _need("cortex-a53")
    line = [digits_bundle.path, "--bench", "20"]
    here = subprocess.run([*command("native"), *line], capture_output=True, text=True)
    assert json.loads(here.stdout)["median_forward_us"] > 0
    there = subprocess.run([*command("cortex-a53"), *line], capture_output=True, text=True)
    assert there.returncode == 2
    assert "times mean nothing" in there.stderr
    assert "_us" not in there.stdout
