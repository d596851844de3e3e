"""`persona bundle verify` looks into packages: a fault in one fails it although all is signed."""

import copy
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from persona.bundles import Bundle, open_bundle
from persona.quiet import quietly
from persona.runs import Run
from persona_export.export import Wanted, export_bundle
from persona_export.runner import MACHINES
from persona_export.runner.build import check_ready
from persona_export.runner.toolchain import RunnerError

DONE, CHECK_FAILED = 0, 1
FORWARD = "coreml/fp16/forward.mlpackage"
MODEL = f"{FORWARD}/Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = f"{FORWARD}/Data/com.apple.CoreML/weights/weight.bin"
DELEGATE = "executorch/coreml-fp32.pte"

Files = dict[str, bytes]


def model(edit: Callable[[Any], object]) -> Callable[[Path], Files]:
    """The package with its description and program changed."""

    def change(bundle: Path) -> Files:
        with quietly():
            from coremltools.proto import Model_pb2
        message = Model_pb2.Model()
        message.ParseFromString((bundle / MODEL).read_bytes())
        edit(message)
        return {MODEL: message.SerializeToString()}

    return change


def weights(edit: Callable[[bytes], bytes]) -> Callable[[Path], Files]:
    return lambda bundle: {WEIGHTS: edit((bundle / WEIGHTS).read_bytes())}


def rename_input(message: Any) -> None:
    message.description.input[1].name = "head_9_weight"


def reshape_input(message: Any) -> None:
    message.description.input[1].type.multiArrayType.shape[0] = 7


def forget_default(message: Any) -> None:
    message.description.input[1].type.multiArrayType.ClearField("floatDefaultValue")


def ask_for_ios_18(message: Any) -> None:
    message.specificationVersion = 9


def detach_first_slot(message: Any) -> None:
    """No output depends on the edit of the first slot's weight any more."""
    function = message.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    (reader,) = [
        o
        for o in block.operations
        if any(a.name == "head_0_weight" for i in o.inputs.values() for a in i.arguments)
    ]
    for binding in reader.inputs.values():
        for argument in binding.arguments:
            if argument.name == "head_0_weight":
                argument.name = "head_0_bias"


def core_ml(bundle: Bundle) -> list[dict[str, Any]]:
    """The bundle's Core ML programs alone, which need no C++ runner."""
    programs = json.loads((bundle.path / "manifest.json").read_text())["programs"]
    return [program for program in programs if program["target"] == "coreml"]


FAULTS: dict[str, tuple[Callable[[Path], Files], str]] = {
    "description of another name": (model(rename_input), "head_9_weight"),
    "description of another shape": (
        model(reshape_input),
        "described as float32[7, 8], the program has float32[8, 8]",
    ),
    "optional input without default": (model(forget_default), "optional and has no default"),
    "slot without effect": (model(detach_first_slot), "no output depends on input 'head_0_weight'"),
    "deployment target": (model(ask_for_ios_18), "needs iOS 18, expected to load on iOS 16"),
    "no model": (lambda _: {MODEL: b"\xff" * 40}, "is not a Core ML model"),
    "truncated blobs": (weights(lambda data: data[:-64]), "beyond the file's"),
    "blob without its mark": (
        weights(lambda data: data[:64] + bytes(4) + data[68:]),
        "not a blob's 0xdeadbeef",
    ),
    "blob off its alignment": (
        weights(lambda data: data[:80] + struct.pack("<Q", 130) + data[88:]),
        "expected a multiple of 64",
    ),
    "bytes of no blob": (weights(lambda data: data + bytes(128)), "belong to no blob"),
    "stray file": (
        lambda _: {f"{FORWARD}/Data/notes.txt": b"left behind"},
        "Data/notes.txt is in the package and not of it",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_signed_package_fails_verify_which_names_it(
    fault, persona, digits_bundle, digits_run, resigned, tmp_path
):
    change, said_of_it = FAULTS[fault]
    files, programs = change(digits_bundle.path), core_ml(digits_bundle)
    resigned(digits_bundle, digits_run, tmp_path / "bundle", files, programs=programs)
    code, said = persona("bundle", "verify", tmp_path / "bundle")
    assert code == CHECK_FAILED
    assert said["error"]["code"] == "bundle.package_faulty"
    row = said["programs"]["coreml fp16, package"]
    assert row["passed"] is False
    assert any(finding.startswith(f"{FORWARD}: ") for finding in row["faults"])
    assert any(said_of_it in finding for finding in row["faults"]), row["faults"]
    assert said_of_it in said["error"]["message"]


def test_a_package_of_another_precision_than_the_manifest_says_is_a_fault(
    refused, digits_bundle, digits_run, resigned, tmp_path
):
    programs = [program | {"precision": "fp32"} for program in core_ml(digits_bundle)]
    resigned(digits_bundle, digits_run, tmp_path / "bundle", {}, programs=programs)
    message = refused(
        CHECK_FAILED, "bundle.package_faulty", "bundle", "verify", tmp_path / "bundle"
    )
    assert "results are float16, expected float32" in message


def test_the_observe_package_is_looked_into_as_well(
    refused, digits_bundle, digits_run, resigned, tmp_path
):
    stray = "coreml/fp16/observe.mlpackage/Data/notes.txt"
    files, programs = {stray: b"left behind"}, core_ml(digits_bundle)
    resigned(digits_bundle, digits_run, tmp_path / "bundle", files, programs=programs)
    message = refused(
        CHECK_FAILED, "bundle.package_faulty", "bundle", "verify", tmp_path / "bundle"
    )
    assert "coreml/fp16/observe.mlpackage: Data/notes.txt is in the package" in message


def test_a_package_changed_after_signing_is_refused_before_it_is_looked_into(
    refused, digits_bundle, tmp_path
):
    path = Path(shutil.copytree(digits_bundle.path, tmp_path / "bundle"))
    (path / MODEL).write_bytes(model(rename_input)(path)[MODEL])
    message = refused(CHECK_FAILED, "bundle.file_changed", "bundle", "verify", path)
    assert MODEL in message


# -- The package inside ExecuTorch's delegate


@pytest.fixture(scope="module")
def delegated(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("delegated") / "bundle"
    wanted = (Wanted("executorch-coreml", "fp32"),)
    export_bundle(digits_run, wanted, path, lambda _: None)
    return open_bundle(path)


def test_a_sound_package_inside_the_delegate_passes(persona, delegated):
    code, said = persona("bundle", "verify", delegated.path)
    assert code == DONE
    assert said["programs"]["executorch-coreml fp32, package"] == {"passed": True, "faults": []}
    assert said["programs"]["executorch-coreml fp32"]["verified"] == "interpreted"


INPUTS = b'{"inputNames": ["args_0", "args_1"'
SWAPPED = b'{"inputNames": ["args_1", "args_0"'


def miscount(program: bytes) -> bytes:
    """The first weight file in the program says that it has 99 blobs."""
    first_blob = program.index(struct.pack("<I", 0xDEADBEEF))
    return program[: first_blob - 64] + struct.pack("<I", 99) + program[first_blob - 60 :]


DELEGATED_FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "inputs in another order": (
        lambda program: program.replace(INPUTS, SWAPPED),
        "'args_1' is float32[1, 1, 8, 8] in the program",
    ),
    "an input of another name": (
        lambda program: program.replace(INPUTS, INPUTS.replace(b"args_1", b"args_9")),
        "metadata names inputs ['args_0', 'args_9'",
    ),
    "metadata without inputs": (
        lambda program: program.replace(b'"inputNames"', b'"inputName_"'),
        "metadata.json is not understood",
    ),
    "another delegate": (
        lambda program: program.replace(b"CoreMLBackend", b"CoreMLBackenc"),
        "calls CoreMLBackenc, expected CoreMLBackend",
    ),
    "blob count": (miscount, "says it has 99 blobs"),
    "no program": (lambda _: b"no program" * 10, "this is no ExecuTorch program"),
}


@pytest.mark.parametrize("fault", DELEGATED_FAULTS)
def test_a_fault_of_a_signed_delegate_fails_verify_which_names_it(
    fault, refused, delegated, digits_run, resigned, tmp_path
):
    change, said_of_it = DELEGATED_FAULTS[fault]
    program = (delegated.path / DELEGATE).read_bytes()
    changed = change(program)
    assert changed != program
    resigned(delegated, digits_run, tmp_path / "bundle", {DELEGATE: changed})
    message = refused(
        CHECK_FAILED, "bundle.package_faulty", "bundle", "verify", tmp_path / "bundle"
    )
    assert f"{DELEGATE}, method 'forward': " in message
    assert said_of_it in message


class Remainder(nn.Module):
    """An operator that Core ML's delegate leaves to ExecuTorch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fmod(x, 0.3)


@pytest.fixture(scope="module")
def in_parts(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The delegate holds what is before that operator and what is after it."""
    backbone = copy.deepcopy(digits_run.backbone)
    backbone.trunk.project = nn.Sequential(backbone.trunk.project, Remainder())
    path = tmp_path_factory.mktemp("in-parts") / "bundle"
    wanted = (Wanted("executorch-coreml", "fp32"),)
    export_bundle(replace(digits_run, backbone=backbone), wanted, path, lambda _: None)
    return open_bundle(path)


def test_packages_of_a_program_in_parts_are_looked_into_though_nothing_here_runs_it(
    persona, in_parts
):
    code, said = persona("bundle", "verify", in_parts.path)
    assert code == DONE
    assert said["programs"]["executorch-coreml fp32, package"] == {"passed": True, "faults": []}
    row = said["programs"]["executorch-coreml fp32"]
    assert (row["passed"], row["verified"]) == (None, "lowered")
    assert "no runtime on this machine executes executorch-coreml programs" in row["reason"]


def test_a_fault_of_one_part_fails_verify_which_names_the_part(
    refused, in_parts, digits_run, resigned, tmp_path
):
    changed = miscount((in_parts.path / DELEGATE).read_bytes())
    resigned(in_parts, digits_run, tmp_path / "bundle", {DELEGATE: changed})
    message = refused(
        CHECK_FAILED, "bundle.package_faulty", "bundle", "verify", tmp_path / "bundle"
    )
    assert f"{DELEGATE}, method 'forward': part 1 of 2: " in message
    assert "says it has 99 blobs" in message


# -- arm64


def test_arm64_is_run_where_make_arm_was_run_before(persona, digits_bundle):
    arm = MACHINES[1:]
    try:
        for machine in arm:
            check_ready(machine)
    except RunnerError as error:
        pytest.skip(f"RUNG NOT RUN: {error}")
    _, said = persona("bundle", "verify", digits_bundle.path)
    assert "C++ on arm64" not in said["programs"]
    for machine in arm:
        row = said["programs"][f"executorch-xnnpack fp32, {machine}"]
        assert row["passed"] is True
        assert 0 < row["edited"] <= row["tolerance"]


def test_arm64_that_was_not_set_up_is_one_row_that_says_how(persona, digits_bundle, monkeypatch):
    def not_fetched(_machine):
        raise RunnerError("the libraries are not here")

    monkeypatch.setattr("persona_export.runner.build.check_ready", not_fetched)
    code, said = persona("bundle", "verify", digits_bundle.path)
    assert code == DONE
    assert said["programs"]["C++ on arm64"] == {
        "passed": None,
        "reason": "the libraries are not here; `make arm` gets what is missing, then verify again",
    }
    assert not any("cortex" in row for row in said["programs"])
