"""The packages inside ExecuTorch's Core ML delegate: run from the program's bytes, and broken."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from persona.backbones import Backbone, backbones
from persona.backbones.base import InputSpec
from persona.formats.manifest import Program
from persona.method.slots import make_slot
from persona_export.coreml_package import (
    DelegatedMethod,
    Package,
    PackageError,
    check_delegated,
    check_package,
    check_part,
    delegated_parts,
)
from persona_export.coreml_package.blobs import WeightFile
from persona_export.coreml_package.checks import check_constants, operation_histogram
from persona_export.coreml_package.program import BlobReference
from persona_export.parity import check_against_eager
from persona_export.targets import ExportError, Precision, Source, targets

Exported = tuple[Backbone, Path, Program]


@pytest.fixture(scope="module")
def image_net(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A dense slot, fp32, with an observe method."""
    torch.manual_seed(0)
    backbone = backbones["image-net"](width=16).eval()
    folder = tmp_path_factory.mktemp("bundle")
    slots = (make_slot(backbone, "head.0", bound=0.1, bias_bound=0.1),)
    source = Source(backbone, slots, pooled=True)
    return backbone, folder, targets["executorch-coreml"]().export(source, "fp32", folder)


def test_methods_are_run_from_the_bytes_by_anyone(image_net: Exported) -> None:
    backbone, folder, program = image_net
    assert program.verified == "interpreted"
    assert {m["minimum_ios"] for m in program.delegation.values()} == {17}
    target = targets["executorch-coreml"]()
    slots = (make_slot(backbone, "head.0", bound=0.1, bias_bound=0.1),)
    assert check_against_eager(target, folder, program, backbone, slots) < 1e-6
    (image,) = backbone.example_inputs(3)
    with torch.no_grad():
        expected = backbone.features(image)
    found = target.features(folder, program)({"image": image.numpy()})
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-6), ("fp16", 4e-3), ("int8", 4e-2)])
def test_rankings_of_one_to_a_hundred_candidates_equal_eager(
    precision: Precision, limit: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone = backbones["din"](items=60, length=6, dim=32).eval()
    slots = (make_slot(backbone, "head.user.0", "low-rank", bound=0.1, bias_bound=0.1),)
    target = targets["executorch-coreml"]()
    program = target.export(Source(backbone, slots, pooled=False), precision, tmp_path)
    assert program.verified == "interpreted"
    assert check_against_eager(target, tmp_path, program, backbone, slots) < limit
    method = DelegatedMethod((tmp_path / program.path).read_bytes(), "forward")
    assert check_delegated(method, 17, precision) == []
    packed = operation_histogram(method.package)["constexpr_affine_dequantize"]
    assert packed > 0 if precision == "int8" else packed == 0
    limits = {f.limits[1] for f in method.package.program.inputs if None in f.type.shape}
    assert limits == {(1, 100)}


def test_int8_without_a_weight_to_pack_is_an_error(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = backbones["din"](items=20, length=4, dim=8).eval()
    source = Source(backbone, (make_slot(backbone, "head.user.0"),), pooled=False)
    with pytest.raises(ExportError, match=r"int8 found no weight.*export fp16"):
        targets["executorch-coreml"]().export(source, "int8", tmp_path)


def test_one_changed_weight_in_the_program_changes_the_output(image_net: Exported) -> None:
    backbone, folder, program = image_net
    content = (folder / program.path).read_bytes()
    method = DelegatedMethod(content, "forward")
    images = [x.numpy() for s in range(3) for x in backbone.example_inputs(s)]
    slots = [backbone.get_parameter(n).detach().numpy() for n in ("head.0.weight", "head.0.bias")]
    weights = (method.path / "Data/com.apple.CoreML/weights/weight.bin").read_bytes()
    at = content.index(weights)
    blobs = {
        o.attributes["val"].offset
        for o in method.package.program.operations
        if o.kind == "const" and isinstance(o.attributes["val"], BlobReference)
    }
    with torch.no_grad():
        eager = [backbone(torch.from_numpy(x)).numpy() for x in images]
    for offset in sorted(blobs):
        blob, worst = WeightFile(weights).blob(offset), 0.0
        for element in np.random.default_rng(0).integers(blob.size // 4, size=4):
            changed, place = bytearray(content), at + blob.data + 4 * int(element)
            (weight,) = struct.unpack_from("<f", changed, place)
            struct.pack_into("<f", changed, place, weight + 0.5)
            broken = DelegatedMethod(bytes(changed), "forward")
            outputs = [broken.run([x, *slots])[0] for x in images]
            worst = max(float(np.abs(o - e).max()) for o, e in zip(outputs, eager, strict=True))
            if worst > 1e-4:
                break
        assert worst > 1e-4, f"blob at {offset}"


def test_what_is_no_delegated_program_is_refused(image_net: Exported) -> None:
    _, folder, program = image_net
    content = (folder / program.path).read_bytes()
    with pytest.raises(PackageError, match="no method 'backward'; it has forward, observe"):
        DelegatedMethod(content, "backward")
    with pytest.raises(PackageError, match="no ExecuTorch program"):
        DelegatedMethod(b"\0" * 64, "forward")
    renamed = content.replace(b"CoreMLBackend", b"CoreMLBackenc")
    with pytest.raises(PackageError, match="calls CoreMLBackenc, expected CoreMLBackend"):
        DelegatedMethod(renamed, "forward")
    unnamed = content.replace(b'"inputNames"', b'"inputName_"')
    with pytest.raises(PackageError, match=r"metadata\.json is not understood"):
        DelegatedMethod(unnamed, "forward")


def test_names_and_targets_that_disagree_with_the_package_are_found(image_net: Exported) -> None:
    _, folder, program = image_net
    content = (folder / program.path).read_bytes()
    assert check_delegated(DelegatedMethod(content, "forward"), 17, "fp32") == []
    assert any(
        "expected float16" in f
        for f in check_delegated(DelegatedMethod(content, "forward"), 17, "fp16")
    )
    assert any(
        "needs iOS 17, expected to load on iOS 16" in f
        for f in check_delegated(DelegatedMethod(content, "forward"), 16, "fp32")
    )
    names = b'{"inputNames": ["args_0", "args_1"'
    assert content.count(names) >= 1
    swapped = content.replace(names, b'{"inputNames": ["args_1", "args_0"')
    findings = check_delegated(DelegatedMethod(swapped, "forward"), 17, "fp32")
    assert any("'args_1' is float32[1, 1, 8, 8] in the program" in f for f in findings)
    unknown = content.replace(names, b'{"inputNames": ["args_0", "args_9"')
    findings = check_delegated(DelegatedMethod(unknown, "forward"), 17, "fp32")
    assert any("metadata names inputs" in f and "args_9" in f for f in findings)

    method = DelegatedMethod(content, "forward")
    method.compile_specs["min_deployment_target"] = b"7"
    (method.folder / "notes.txt").write_text("left behind")
    findings = check_delegated(method, 17, "fp32")
    assert "notes.txt is in the delegate and not of it" in findings
    assert any("compiled for specification '7', its package has 8" in f for f in findings)


def _weights(package: Path) -> Path:
    return package / "Data/com.apple.CoreML/weights/weight.bin"


BREAKS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a stray file": (
        lambda p: (p / "Data/com.apple.CoreML/weights/other.bin").write_bytes(b"x"),
        "other.bin is in the package and not of it",
    ),
    "bytes after the last blob": (
        lambda p: _weights(p).write_bytes(_weights(p).read_bytes() + bytes(128)),
        "belong to no blob",
    ),
    "a blob count that is wrong": (
        lambda p: _weights(p).write_bytes(b"\x63" + _weights(p).read_bytes()[1:]),
        "says it has 99 blobs",
    ),
    "data off its alignment": (
        lambda p: _weights(p).write_bytes(
            _weights(p).read_bytes()[:80] + struct.pack("<Q", 130) + _weights(p).read_bytes()[88:]
        ),
        "data at 130, expected a multiple of 64",
    ),
    "a manifest that names another file": (
        lambda p: (p / "Manifest.json").write_text(
            json.dumps(json.loads((p / "Manifest.json").read_text())).replace(
                "model.mlmodel", "modell.mlmodel"
            )
        ),
        "which is missing",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_package_is_found(what: str, image_net: Exported) -> None:
    _, folder, program = image_net
    method = DelegatedMethod((folder / program.path).read_bytes(), "forward")
    (method.path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    assert check_package(method.path, 17, "fp32") == []
    change, expected = BREAKS[what]
    change(method.path)
    assert any(expected in finding for finding in check_package(method.path, 17, "fp32"))


def test_a_gap_between_blobs_is_found(image_net: Exported) -> None:
    """A constant that the program no longer reads leaves its bytes behind."""
    _, folder, program = image_net
    method = DelegatedMethod((folder / program.path).read_bytes(), "forward")
    package = Package.open(method.path)
    kept = tuple(
        o
        for o in package.program.operations
        if not (
            o.kind == "const"
            and isinstance(o.attributes["val"], BlobReference)
            and o.attributes["val"].offset == 64
        )
    )
    assert len(kept) < len(package.program.operations)
    object.__setattr__(package.program, "operations", kept)
    findings = check_constants(package)
    assert any("bytes from 64 on belong to no blob" in f for f in findings)


# -- A method of which the delegate holds only parts


class _Remainder(nn.Module):
    """An operator that Core ML's delegate leaves to ExecuTorch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fmod(x, 0.3)


class _Angle(nn.Module):
    """One that the delegate takes and the interpreter does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.atan(x)


class _InParts(Backbone):
    """Two linear layers with something between them that is no part of a package."""

    task = "classification"

    def __init__(self, *between: nn.Module) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), *between)
        self.head = nn.Sequential(nn.Linear(48, 10))

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("image", "float32", (1, 1, 8, 8)),)

    def features(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(*inputs)
        return hidden, self.head(hidden).softmax(1)


def _in_parts(backbone: Backbone, precision: Precision, folder: Path) -> Program:
    slots = (make_slot(backbone, "head.0", bound=0.1, bias_bound=0.1),)
    return targets["executorch-coreml"]().export(Source(backbone, slots, True), precision, folder)


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    backbone = _InParts(_Remainder()).eval()
    folder = tmp_path_factory.mktemp("bundle")
    return backbone, folder, _in_parts(backbone, "fp32", folder)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_part_is_looked_into_where_an_operator_is_left_out(
    precision: Precision, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    program = _in_parts(_InParts(_Remainder()).eval(), precision, tmp_path)
    assert program.verified == "lowered"
    assert program.delegation["forward"]["outside"] == {"aten.fmod.Scalar": 1}
    assert {m["minimum_ios"] for m in program.delegation.values()} == {17}
    assert targets["executorch-coreml"]().faults(tmp_path, program) == []
    content = (tmp_path / program.path).read_bytes()
    parts = [part for name in program.delegation for part in delegated_parts(content, name)]
    assert len(parts) == 4
    for part in parts:
        other: Precision = "fp16" if precision == "fp32" else "fp32"
        assert check_part(part, 17, precision) == []
        assert any("expected float" in finding for finding in check_part(part, 17, other))


def test_the_parts_and_what_is_between_them_make_the_model(in_parts: Exported) -> None:
    """So each is the right package, its arguments are in the right order, and none is missing."""
    backbone, folder, program = in_parts
    first, second = delegated_parts((folder / program.path).read_bytes(), "forward")
    (image,) = backbone.example_inputs(3)

    def run(package: Package, names: tuple[str, ...], *arrays: Tensor) -> Tensor:
        found = package.run({n: a.numpy() for n, a in zip(names, arrays, strict=True)})
        (output,) = found.values()
        return torch.from_numpy(output)

    hidden = torch.fmod(run(first.package, first.inputs, image), 0.3)
    slots = [parameter.detach() for parameter in backbone.head.parameters()]
    with torch.no_grad():
        expected = backbone(image)
    output = run(second.package, second.inputs, hidden, *slots)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


FAULTS_OF_PARTS: dict[str, tuple[bytes, bytes, str]] = {
    "the first, its input": (
        b'["args_0"], "outputNames": ["aten_linear',
        b'["args_9"], "outputNames": ["aten_linear',
        "'forward': part 1 of 2: metadata names inputs ['args_9'], the package ['args_0']",
    ),
    "the second, its slots": (
        b'"args_1", "args_2"]',
        b'"args_2", "args_1"]',
        "'forward': part 2 of 2: 'args_1' is float32[10] in the program",
    ),
    "the second, its output": (
        b'"outputNames": ["aten_linear_default_1"]',
        b'"outputNames": ["aten_linear_default_9"]',
        "'forward': part 2 of 2: metadata names outputs ['aten_linear_default_9']",
    ),
    "of another method": (
        b'["aten_fmod_scalar"], "outputNames": ["aten_softmax_int"]',
        b'["aten_fmod_scalas"], "outputNames": ["aten_softmax_int"]',
        "'observe': part 2 of 2: metadata names inputs ['aten_fmod_scalas']",
    ),
    "the first, the mark of its first blob": (
        b"\xef\xbe\xad\xde",
        b"\xef\xbe\xad\xdf",
        "'forward': part 1 of 2: constant",
    ),
}


@pytest.mark.parametrize("what", FAULTS_OF_PARTS)
def test_a_fault_is_named_with_the_part_that_has_it(
    what: str, in_parts: Exported, tmp_path: Path
) -> None:
    _, folder, program = in_parts
    sound, broken, expected = FAULTS_OF_PARTS[what]
    content = (folder / program.path).read_bytes()
    assert sound in content
    file = tmp_path / program.path
    file.parent.mkdir()
    file.write_bytes(content.replace(sound, broken, 1))
    faults = targets["executorch-coreml"]().faults(tmp_path, program)
    assert faults is not None
    assert any(f.startswith(f"{program.path}, method {expected}") for f in faults), faults


def test_parts_that_the_manifest_does_not_count_are_a_fault(in_parts: Exported) -> None:
    _, folder, program = in_parts
    target = targets["executorch-coreml"]()
    assert target.faults(folder, program) == []
    more = program.delegation | {"forward": {"delegates": 3}}
    assert target.faults(folder, replace(program, delegation=more)) == [
        f"{program.path}, method 'forward': the manifest says 3 delegates, the program calls 2"
    ]


def test_an_operation_that_only_the_interpreter_lacks_is_no_fault_of_a_part(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    program = _in_parts(_InParts(_Remainder(), _Angle()).eval(), "fp32", tmp_path)
    assert program.verified == "lowered"
    kinds = [
        operation_histogram(part.package)["atan"]
        for part in delegated_parts((tmp_path / program.path).read_bytes(), "forward")
    ]
    assert kinds == [0, 1]
    with pytest.raises(ExportError, match=r"operation atan .* is unknown to the interpreter"):
        _in_parts(_InParts(_Angle()).eval(), "fp32", tmp_path)


def test_a_method_in_parts_is_not_taken_for_one_call(in_parts: Exported) -> None:
    _, folder, program = in_parts
    content = (folder / program.path).read_bytes()
    with pytest.raises(PackageError, match="'forward' is 3 instructions, expected one call"):
        DelegatedMethod(content, "forward")


def test_int8_in_parts_without_a_weight_to_pack_is_an_error(tmp_path: Path) -> None:
    backbone = _InParts(_Remainder()).eval()
    backbone.trunk[1] = nn.Linear(64, 8)
    backbone.head[0] = nn.Linear(8, 10)
    with pytest.raises(ExportError, match=r"int8 found no weight.*export fp16"):
        _in_parts(backbone, "int8", tmp_path)
