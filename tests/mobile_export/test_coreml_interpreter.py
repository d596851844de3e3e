"""The package interpreter: its operations against PyTorch, and its refusal of broken packages."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from persona.backbones.image_net import ImageNet
from persona.method.slots import make_slot
from persona_export.coreml_package import (
    Package,
    PackageError,
    UnknownOperationError,
    check_package,
)
from persona_export.coreml_package.blobs import WeightFile
from persona_export.coreml_package.checks import (
    check_constants,
    check_deployment,
    check_description,
    check_operations,
    check_order,
    compute_precisions,
    minimum_ios,
    operation_histogram,
    unused_inputs,
)
from persona_export.coreml_package.operations import call
from persona_export.coreml_package.program import BlobReference
from persona_export.targets.coreml import convert_forward


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator)


X = _random(2, 6, 8, 8)
ROWS = _random(3, 7)
IDS = torch.tensor([[4, 0], [2, 2]])
MEAN, VARIANCE, GAMMA, BETA = (
    _random(6),
    _random(6).abs() + 0.1,
    _random(6) + 1,
    _random(6) / 2,
)
KERNEL, STRIDED, DEPTHWISE, ROW_KERNEL = (
    _random(4, 6, 3, 3),
    _random(4, 3, 3, 2),
    _random(6, 1, 3, 3),
    _random(5, 6, 3),
)

AROUND = {"pad_type": "custom", "pad": [1, 1, 1, 1]}

Case = tuple[str, Tensor, dict[str, Any]]


def _case(name: str, expected: Tensor, **inputs: Any) -> Case:
    return name, expected, inputs


OPERATIONS: list[Case] = [
    _case(
        "linear",
        F.linear(ROWS, _random(4, 7), _random(4)),
        x=ROWS,
        weight=_random(4, 7),
        bias=_random(4),
    ),
    _case("matmul", X @ X.mT, x=X, y=X, transpose_y=True),
    _case("matmul", X.mT @ X, x=X, y=X, transpose_x=True),
    _case(
        "einsum", torch.einsum("nchw,nchv->ncwv", X, X), values=[X, X], equation="nchw,nchv->ncwv"
    ),
    _case(
        "conv",
        F.conv2d(X, KERNEL, _random(4), padding=1),
        x=X,
        weight=KERNEL,
        bias=_random(4),
        **AROUND,
    ),
    _case(
        "conv",
        F.conv2d(X, STRIDED, stride=(2, 1), dilation=(1, 2), groups=2),
        x=X,
        weight=STRIDED,
        strides=[2, 1],
        dilations=[1, 2],
        groups=2,
        pad_type="valid",
    ),
    _case(
        "conv",
        F.conv2d(F.pad(X, (2, 1, 1, 0)), DEPTHWISE, stride=2, groups=6),
        x=X,
        weight=DEPTHWISE,
        strides=[2, 2],
        groups=6,
        pad_type="custom",
        pad=[1, 0, 2, 1],
    ),
    _case("conv", F.conv2d(X, KERNEL, padding="same"), x=X, weight=KERNEL, pad_type="same"),
    _case(
        "conv", F.conv1d(X[:, :, 0], ROW_KERNEL), x=X[:, :, 0], weight=ROW_KERNEL, pad_type="valid"
    ),
    _case(
        "max_pool",
        F.max_pool2d(X, (3, 2), 2, padding=(1, 0)),
        x=X,
        kernel_sizes=[3, 2],
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 0, 0],
    ),
    _case(
        "avg_pool",
        F.avg_pool2d(X, 3, 2, padding=1),
        x=X,
        kernel_sizes=[3, 3],
        strides=[2, 2],
        **AROUND,
    ),
    _case(
        "avg_pool",
        F.avg_pool2d(X, 3, 2, padding=1, count_include_pad=False),
        x=X,
        kernel_sizes=[3, 3],
        strides=[2, 2],
        **AROUND,
        exclude_padding_from_average=True,
    ),
    _case(
        "batch_norm",
        F.batch_norm(X, MEAN, VARIANCE, GAMMA, BETA, eps=0.001),
        x=X,
        mean=MEAN,
        variance=VARIANCE,
        gamma=GAMMA,
        beta=BETA,
        epsilon=0.001,
    ),
    _case(
        "instance_norm", F.instance_norm(X, weight=GAMMA, bias=BETA), x=X, gamma=GAMMA, beta=BETA
    ),
    _case(
        "layer_norm",
        F.layer_norm(ROWS, (7,), _random(7), -_random(7)),
        x=ROWS,
        axes=[-1],
        gamma=_random(7),
        beta=-_random(7),
    ),
    _case("softmax", (X * 50).softmax(1), x=X * 50, axis=1),
    _case("gelu", F.gelu(X), x=X),
    _case("gelu", F.gelu(X, approximate="tanh"), x=X, mode="TANH_APPROXIMATION"),
    _case("silu", F.silu(X * 60), x=X * 60),
    _case("sigmoid", (X * 60).sigmoid(), x=X * 60),
    _case("softplus", F.softplus(X), x=X),
    _case("elu", F.elu(X, 0.7), x=X, alpha=0.7),
    _case("leaky_relu", F.leaky_relu(X, 0.1), x=X, alpha=0.1),
    _case("prelu", F.prelu(X, GAMMA), x=X, alpha=GAMMA),
    _case("relu6", F.relu6(X * 6), x=X * 6),
    _case("sigmoid_hard", F.hardsigmoid(X * 4), x=X * 4, alpha=1 / 6, beta=0.5),
    _case("clip", X.clamp(-0.5, 0.25), x=X, alpha=-0.5, beta=0.25),
    _case("thresholded_relu", F.threshold(X, 0.3, 0), x=X, alpha=0.3),
    _case("threshold", X.clamp(min=0.3), x=X, alpha=0.3),
    _case("erf", X.erf(), x=X),
    _case("rsqrt", (VARIANCE + 1e-05).rsqrt(), x=VARIANCE, epsilon=1e-05),
    _case("inverse", VARIANCE.reciprocal(), x=VARIANCE, epsilon=0.0),
    _case("log", VARIANCE.log(), x=VARIANCE, epsilon=0.0),
    _case("select", torch.where(X > 0, X, 0.0), cond=X > 0, a=X, b=0.0),
    _case("cast", (X * 5).int(), x=X * 5, dtype="int32"),
    _case("reduce_mean", X.mean((2, 3), keepdim=True), x=X, axes=[2, 3], keep_dims=True),
    _case("reduce_sum", X.sum(-1), x=X, axes=[-1]),
    _case("reduce_max", X.max(), x=X),
    _case("reduce_log_sum_exp", X.logsumexp(1), x=X, axes=[1]),
    _case("reduce_min", X.amin((0, 2)), x=X, axes=[0, 2]),
    _case("reduce_prod", ROWS.prod(1), x=ROWS, axes=[1]),
    _case("reduce_l2_norm", ROWS.norm(dim=1), x=ROWS, axes=[1]),
    _case("reduce_sum_square", ROWS.square().sum(1), x=ROWS, axes=[1]),
    _case("reduce_argmin", ROWS.argmin(1), x=ROWS, axis=1),
    _case("gelu", X * (1.702 * X).sigmoid(), x=X, mode="SIGMOID_APPROXIMATION"),
    _case("shape", torch.tensor(X.shape), x=X),
    _case("fill_like", torch.full_like(X, 2.5), ref_tensor=X, value=2.5),
    _case(
        "pad",
        F.pad(X, (0, 3, 1, 2), mode="replicate"),
        x=X,
        pad=[1, 2, 0, 3],
        mode="replicate",
    ),
    _case("reduce_argmax", ROWS.argmax(1), x=ROWS, axis=1),
    _case("cumsum", ROWS.cumsum(1), x=ROWS, axis=1),
    _case(
        "cumsum",
        ROWS.flip(1).cumsum(1).flip(1) - ROWS,
        x=ROWS,
        axis=1,
        reverse=True,
        exclusive=True,
    ),
    _case("reshape", X.reshape(2, -1, 4), x=X, shape=[0, -1, 4]),
    _case("transpose", X.permute(0, 2, 3, 1), x=X, perm=[0, 2, -1, 1]),
    _case("expand_dims", ROWS[None, :, :, None], x=ROWS, axes=[0, -1]),
    _case("squeeze", X[0, :, 0], x=X[:1, :, :1], axes=[0, 2]),
    _case("concat", torch.cat([X, -X], 1), values=[X, -X], axis=1),
    _case("stack", torch.stack([X, -X], -1), values=[X, -X], axis=-1),
    _case(
        "slice_by_index",
        X[1, :4, 1:7:2, 5:],
        x=X,
        begin=[1, 0, 1, 5],
        end=[2, 4, 7, 0],
        stride=[1, 1, 2, 1],
        begin_mask=[False] * 4,
        end_mask=[False, False, False, True],
        squeeze_mask=[True, False, False, False],
    ),
    _case("slice_by_size", ROWS[1:, 2:5], x=ROWS, begin=[1, 2], size=[-1, 3]),
    _case("tile", ROWS.tile(2, 3), x=ROWS, reps=[2, 3]),
    _case("gather", F.embedding(IDS, _random(5, 4)), x=_random(5, 4), indices=IDS, axis=0),
    _case("gather_along_axis", _random(5, 2).gather(0, IDS), x=_random(5, 2), indices=IDS, axis=0),
    _case("range_1d", torch.arange(2, 11, 3), start=2, end=11, step=3),
    _case("fill", torch.full((2, 3), 1.5), shape=[2, 3], value=1.5),
    _case("band_part", ROWS.triu(), x=ROWS, lower=0, upper=-1),
    _case("band_part", ROWS.triu(-1).tril(2), x=ROWS, lower=1, upper=2),
    _case("pad", F.pad(X, (0, 3, 1, 2), value=0.5), x=X, pad=[1, 2, 0, 3], constant_val=0.5),
    _case("pad", F.pad(X, (0, 3, 1, 2), mode="reflect"), x=X, pad=[1, 2, 0, 3], mode="reflect"),
]


def _numpy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, list):
        return [_numpy(v) for v in value] if isinstance(value[0], Tensor) else np.array(value)
    return value


@pytest.mark.parametrize(
    ("name", "expected", "inputs"),
    OPERATIONS,
    ids=[f"{i}-{case[0]}" for i, case in enumerate(OPERATIONS)],
)
def test_an_operation_computes_what_pytorch_does(
    name: str, expected: Tensor, inputs: dict[str, Any]
) -> None:
    (result,) = call(name, {key: _numpy(value) for key, value in inputs.items()})
    assert result.shape == tuple(expected.shape)
    np.testing.assert_allclose(result, expected.numpy(), rtol=1e-5, atol=2e-6)


UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "exp": torch.exp,
    "floor": torch.floor,
    "identity": torch.clone,
    "relu": torch.relu,
    "round": torch.round,
    "sign": torch.sign,
    "sin": torch.sin,
    "softsign": F.softsign,
    "square": torch.square,
    "tanh": torch.tanh,
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "real_div": torch.div,
    "floor_div": torch.floor_divide,
    "mod": torch.remainder,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
}
LOGICAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}


def test_elementwise_operations_compute_what_pytorch_does() -> None:
    y = torch.where(X > 0.5, X, X.flip(0))
    for name, unary in UNARY.items():
        (result,) = call(name, {"x": X.numpy()})
        np.testing.assert_allclose(result, unary(X).numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    for name, binary in BINARY.items():
        (result,) = call(name, {"x": X.numpy(), "y": y.numpy()})
        np.testing.assert_allclose(result, binary(X, y).numpy(), rtol=1e-5, err_msg=name)
    for name, logical in LOGICAL.items():
        (result,) = call(name, {"x": X.numpy() > 0, "y": y.numpy() > 0})
        np.testing.assert_array_equal(result, logical(X > 0, y > 0).numpy(), err_msg=name)
    (result,) = call("logical_not", {"x": X.numpy() > 0})
    np.testing.assert_array_equal(result, (X <= 0).numpy())
    (result,) = call("pow", {"x": VARIANCE.numpy(), "y": np.float32(1.7)})
    np.testing.assert_allclose(result, VARIANCE.pow(1.7).numpy(), rtol=1e-5)
    (result,) = call("sqrt", {"x": VARIANCE.numpy()})
    np.testing.assert_allclose(result, VARIANCE.sqrt().numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    "arguments", [{"num_splits": 3}, {"split_sizes": np.array([1, 4, 1])}], ids=["equal", "sizes"]
)
def test_split_gives_each_part_in_order(arguments: dict[str, Any]) -> None:
    parts = call("split", {"x": X.numpy(), "axis": 1, **arguments})
    sizes = [2, 2, 2] if "num_splits" in arguments else [1, 4, 1]
    for part, expected in zip(parts, X.split(sizes, 1), strict=True):
        np.testing.assert_array_equal(part, expected.numpy())


def test_an_unknown_operation_or_input_is_named() -> None:
    with pytest.raises(UnknownOperationError, match="no operation 'lstm'"):
        call("lstm", {"x": X.numpy()})
    with pytest.raises(UnknownOperationError, match="tilt"):
        call("relu", {"x": X.numpy(), "tilt": 1})


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    backbone = ImageNet(width=16).eval()
    path = tmp_path_factory.mktemp("coreml") / "forward.mlpackage"
    convert_forward(backbone, (make_slot(backbone, "head.0"),), "fp32", path)
    return path


@pytest.fixture
def package(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound package, to break."""
    copy = tmp_path / "broken.mlpackage"
    shutil.copytree(sound, copy)
    return copy


def _weights(path: Path) -> Path:
    return path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def _edit_model(path: Path, change: Callable[[Any], object]) -> None:
    from coremltools.proto import Model_pb2

    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = Model_pb2.Model()
    model.ParseFromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())


def _main(model: Any) -> Any:
    function = model.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def _operation(model: Any, kind: str) -> Any:
    return next(o for o in _main(model).operations if o.type == kind)


def _read(operation: Any) -> set[str]:
    return {a.name for argument in operation.inputs.values() for a in argument.arguments}


def _images(n: int) -> list[np.ndarray[Any, Any]]:
    return [_random(1, 1, 8, 8).numpy() * (i + 1) / n + i / n for i in range(n)]


def _eager(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    torch.manual_seed(0)
    with torch.no_grad():
        return np.asarray(ImageNet(width=16).eval()(torch.from_numpy(image)).numpy())


def test_a_sound_package_has_no_findings(sound: Path) -> None:
    assert check_package(sound, 15, "fp32") == []
    package = Package.open(sound)
    assert minimum_ios(package) == 15
    assert list(compute_precisions(package)) == ["float32"]
    assert operation_histogram(package)["conv"] == 3
    assert operation_histogram(package)["linear"] == 3


def test_a_change_of_one_weight_in_any_blob_is_noticed(package: Path) -> None:
    images = _images(4)
    expected = [_eager(image) for image in images]

    def error() -> float:
        opened = Package.open(package)
        return max(
            float(np.abs(opened.run({"image": image})["output"] - e).max())
            for image, e in zip(images, expected, strict=True)
        )

    original = _weights(package).read_bytes()
    sound_error = error()
    assert sound_error < 1e-6
    constants = [
        operation.attributes["val"]
        for operation in Package.open(package).program.operations
        if operation.kind == "const"
    ]
    random = np.random.default_rng(0)
    offsets = [c.offset for c in constants if isinstance(c, BlobReference)]
    assert len(offsets) >= 5
    for offset in offsets:
        blob = WeightFile(original).blob(offset)
        errors = []
        # Some weights meet a ReLU that is shut for all images, so several are tried, one at a time.
        for element in random.integers(blob.size // 4, size=16):
            position = blob.data + 4 * int(element)
            changed = bytearray(original)
            (weight,) = struct.unpack_from("<f", changed, position)
            struct.pack_into("<f", changed, position, weight + 0.05)
            _weights(package).write_bytes(changed)
            errors.append(error())
        assert max(errors) > 1000 * sound_error, f"blob at {offset}"


def test_inputs_are_checked_against_the_description(sound: Path) -> None:
    package = Package.open(sound)
    image = _images(1)[0]
    with pytest.raises(PackageError, match=r"'image'.*missing"):
        package.run({})
    with pytest.raises(PackageError, match="no input is called images"):
        package.run({"images": image})
    with pytest.raises(PackageError, match=r"takes shape \[1, 1, 8, 8\], got \[1, 1, 8, 9\]"):
        package.run({"image": np.zeros((1, 1, 8, 9), np.float32)})
    with pytest.raises(PackageError, match="takes float32, got int64"):
        package.run({"image": np.zeros((1, 1, 8, 8), np.int64)})


def test_a_truncated_weight_file_is_found(package: Path) -> None:
    weights = _weights(package)
    weights.write_bytes(weights.read_bytes()[:-64])
    findings = check_constants(Package.open(package))
    assert any("beyond the file's" in finding for finding in findings)
    with pytest.raises(PackageError, match="beyond the file's"):
        Package.open(package).run({"image": _images(1)[0]})
    weights.unlink()
    assert all("not in the package" in f for f in check_constants(Package.open(package)))


def test_an_overwritten_blob_header_is_found(package: Path) -> None:
    weights = _weights(package)
    content = bytearray(weights.read_bytes())
    content[64:68] = b"\0\0\0\0"
    weights.write_bytes(content)
    assert any("not a blob's 0xdeadbeef" in f for f in check_constants(Package.open(package)))


def test_each_fault_of_a_blob_has_its_own_message() -> None:
    def file(code: int, size: int, data: int, sentinel: int = 0xDEADBEEF) -> WeightFile:
        head = struct.pack("<II", 1, 2).ljust(64, b"\0")
        return WeightFile(
            head + struct.pack("<IIQQ", sentinel, code, size, data).ljust(64, b"\0") + bytes(64)
        )

    single = np.dtype(np.float32)
    assert file(2, 8, 128).read(64, single, (2,)).tolist() == [0.0, 0.0]
    with pytest.raises(PackageError, match="multiples of 64"):
        file(2, 8, 128).blob(72)
    with pytest.raises(PackageError, match="dtype 99"):
        file(99, 8, 128).blob(64)
    with pytest.raises(PackageError, match="data at 130"):
        file(2, 8, 130).blob(64)
    with pytest.raises(PackageError, match="ends at 208"):
        file(2, 80, 128).blob(64)
    with pytest.raises(PackageError, match="declares float32"):
        file(1, 8, 128).read(64, single, (2,))
    with pytest.raises(PackageError, match="takes 12"):
        file(2, 8, 128).read(64, single, (3,))


def test_weights_that_are_not_finite_are_found(package: Path) -> None:
    weights = _weights(package)
    content = bytearray(weights.read_bytes())
    blob = WeightFile(bytes(content)).blob(64)
    struct.pack_into("<f", content, blob.data, float("nan"))
    weights.write_bytes(content)
    assert any("1 values that are not finite" in f for f in check_constants(Package.open(package)))


def test_a_description_that_disagrees_with_the_program_is_found(package: Path) -> None:
    def rename(model: Any) -> None:
        model.description.input[1].name = "head_9_weight"

    _edit_model(package, rename)
    assert any("head_9_weight" in f for f in check_description(Package.open(package)))

    def reshape(model: Any) -> None:
        model.description.input[1].name = "head_0_weight"
        model.description.input[1].type.multiArrayType.shape[0] = 31

    _edit_model(package, reshape)
    (finding,) = check_description(Package.open(package))
    assert "described as float32[31, 32], the program has float32[32, 32]" in finding


def test_an_optional_input_without_a_default_is_found(package: Path) -> None:
    def forget(model: Any) -> None:
        model.description.input[1].type.multiArrayType.ClearField("floatDefaultValue")

    _edit_model(package, forget)
    assert any("no default" in f for f in check_description(Package.open(package)))
    with pytest.raises(PackageError, match=r"'head_0_weight'.*no default"):
        Package.open(package).run({"image": _images(1)[0]})


def test_a_shape_that_an_operation_does_not_have_is_found_when_run(package: Path) -> None:
    def widen(model: Any) -> None:
        _operation(model, "relu").outputs[0].type.tensorType.dimensions[1].constant.size = 99

    _edit_model(package, widen)
    with pytest.raises(PackageError, match=r"declared float32\[1, 99, 8, 8\] and came out as"):
        Package.open(package).run({"image": _images(1)[0]})


def test_an_unknown_or_misplaced_operation_is_found(package: Path) -> None:
    def garble(model: Any) -> None:
        _operation(model, "relu").type = "relu_ish"
        _operation(model, "linear").inputs["x"].arguments[0].name = "output"

    _edit_model(package, garble)
    (unknown,) = check_operations(Package.open(package))
    assert unknown.startswith("operation relu_ish ('")
    assert unknown.endswith("is unknown to the interpreter")
    findings = check_order(Package.open(package))
    assert any("reads 'output', not computed before it" in finding for finding in findings)
    with pytest.raises(UnknownOperationError, match="relu_ish"):
        Package.open(package).run({"image": _images(1)[0]})


def test_an_input_that_no_output_depends_on_is_found(package: Path) -> None:
    def detach(model: Any) -> None:
        block = _main(model)
        product, total = (
            next(o for o in block.operations if name in _read(o))
            for name in ("head_0_weight", "head_0_bias")
        )
        assert _read(total) == {product.outputs[0].name, "head_0_bias"}
        total.inputs["x"].arguments[0].name = total.inputs["y"].arguments[0].name = "head_0_bias"

    _edit_model(package, detach)
    assert unused_inputs(Package.open(package)) == ["head_0_weight"]
    assert any("head_0_weight" in finding for finding in check_package(package, 15, "fp32"))


def test_a_package_for_another_system_or_precision_is_found(package: Path) -> None:
    assert any("float32" in f for f in check_deployment(Package.open(package), 15, "fp16"))

    def newer(model: Any) -> None:
        model.specificationVersion = 9

    _edit_model(package, newer)
    findings = check_deployment(Package.open(package), 16, "fp32")
    assert any("needs iOS 18, expected to load on iOS 16" in finding for finding in findings)
    assert any("CoreML5" in finding for finding in findings)


def test_what_is_no_package_is_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"no Manifest\.json"):
        Package.open(tmp_path)
    model = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model.write_bytes(b"\xff" * 40)
    with pytest.raises(PackageError, match="is not a Core ML model"):
        Package.open(package)
    model.unlink()
    with pytest.raises(PackageError, match=r"names .*model\.mlmodel, which is missing"):
        Package.open(package)
    assert check_package(package, 15, "fp32") != []
    (package / "Manifest.json").write_text("{}")
    with pytest.raises(PackageError, match="is not understood"):
        Package.open(package)
