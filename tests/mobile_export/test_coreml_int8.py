"""Core ML in 8 bits: packed weights are those of a model quantised by hand; slots stay exact.

The reference folds batch normalisation and rounds each row of a weight to 127 steps, in PyTorch;
what is left to differ is binary16 arithmetic. Measured: at most 1.7e-3 from that reference, and
1.6e-2 (SASRec) from the float model, relative to max(1, largest output).
"""

import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from persona.backbones import Backbone, backbones
from persona.backbones.base import InputSpec
from persona.formats.slots import SlotSpec, sum_changes
from persona.method.slots import make_slot
from persona_export.coreml_int8 import SMALLEST
from persona_export.coreml_package import Package, check_package
from persona_export.coreml_package.checks import operation_histogram
from persona_export.coreml_package.operations import call
from persona_export.parity import difference, eager, edit_at_bounds
from persona_export.targets import ExportError, Source, targets
from persona_export.targets.coreml import CoreMLError, convert_forward, feed_input_name

AS_QUANTISED, AS_FLOAT = 4e-3, 5e-2


def _in_steps(weight: Tensor) -> Tensor:
    """Every row rounded to 127 steps each way, as a binary16 program holds it."""
    half = weight.half()
    largest = half.abs().flatten(1).amax(1)
    step = ((largest + largest) / 254).reshape(-1, *[1] * (weight.dim() - 1))
    steps = torch.where(step > 0, (half / step).round().clamp(-127, 127), 0)
    return (steps.float() * step.float()).half().float()


def _by_hand(backbone: Backbone, kept: set[str]) -> Backbone:
    """The backbone with every weight in steps that is large enough and not in `kept`."""
    model = copy.deepcopy(backbone).eval()
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (name, first), (other, second) in pairwise(children):
            if isinstance(first, nn.Conv1d | nn.Conv2d) and isinstance(
                second, nn.modules.batchnorm._BatchNorm
            ):
                setattr(parent, name, fuse_conv_bn_eval(first, second))
                setattr(parent, other, nn.Identity())
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding | nn.GRU
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, kinds) and name not in kept:
                for key, weight in module.named_parameters():
                    if weight.dim() > 1 and weight.numel() > SMALLEST:
                        weight.copy_(_in_steps(weight))
                        assert key.startswith("weight")
    return model


def _exported(
    name: str, kind: str, slot_names: tuple[str, ...], settings: dict[str, int], path: Path
) -> tuple[Backbone, tuple[SlotSpec, ...], Package]:
    torch.manual_seed(0)
    backbone = backbones[name](**settings).eval()
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.get_buffer("running_mean").normal_(0, 0.1)
                module.get_buffer("running_var").uniform_(0.5, 1.5)
    slots = tuple(make_slot(backbone, slot, kind, bound=0.1, bias_bound=0.1) for slot in slot_names)
    convert_forward(backbone, slots, "int8", path)
    assert check_package(path, 16, "int8") == []
    return backbone, slots, Package.open(path)


RANKER = {"items": 60, "length": 6, "dim": 32}


@pytest.mark.parametrize(
    ("name", "kind", "slot_names", "settings"),
    [
        ("image-net", "dense", ("head.0", "head.2"), {}),
        ("conv-net", "low-rank", ("head.0",), {}),
        ("sensor-net", "dense", ("head.0",), {}),
        ("sasrec", "dense", ("head.user.0", "head.user.2"), RANKER),
        ("gru4rec", "affine", ("head.user.0",), RANKER),
        ("din", "low-rank", ("head.user.0",), RANKER),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_an_int8_package_is_the_model_quantised_by_hand_under_every_edit(
    name: str, kind: str, slot_names: tuple[str, ...], settings: dict[str, int], tmp_path: Path
) -> None:
    backbone, slots, package = _exported(name, kind, slot_names, settings, tmp_path / "a.mlpackage")
    # Whatever is under a dense slot is kept; other slots' layers are packed like any.
    quantised = _by_hand(backbone, set(slot_names) if kind == "dense" else set())
    nothing = {n: np.zeros_like(v) for n, v in edit_at_bounds(slots, 0).items()}
    for seed, size in ((0, 7), (1, 1), (2, 60)):
        inputs = backbone.example_inputs(seed, size)
        fed = {s.name: x.numpy() for s, x in zip(backbone.input_specs(), inputs, strict=True)}
        fed = {n: x.astype(np.int32) if x.dtype == np.int64 else x for n, x in fed.items()}
        for prototype, edit in (
            (nothing, nothing),
            (edit_at_bounds(slots, 10 + seed), nothing),
            (nothing, edit_at_bounds(slots, 20 + seed)),
        ):
            change = _stacked(slots, prototype, edit)
            output = package.run({**fed, **change})["output"]
            expected = eager(quantised, slots, (prototype, edit), inputs)
            assert difference(expected, output) <= AS_QUANTISED
            assert difference(eager(backbone, slots, (prototype, edit), inputs), output) <= AS_FLOAT


def _stacked(
    slots: tuple[SlotSpec, ...],
    prototype: dict[str, np.ndarray],
    edit: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    return {feed_input_name(n): v for n, v in sum_changes(slots, prototype, edit).items()}


def test_the_reference_by_hand_tells_packed_from_exact(tmp_path: Path) -> None:
    """The tolerance is narrow enough: the float model itself is beyond it."""
    backbone, slots, package = _exported(
        "sasrec", "dense", ("head.user.0",), RANKER, tmp_path / "a"
    )
    history, ids = backbone.example_inputs(0, 60)
    output = package.run(
        {"history": history.numpy().astype(np.int32), "candidates": ids.numpy().astype(np.int32)}
    )["output"]
    nothing = {n: np.zeros_like(v) for n, v in edit_at_bounds(slots, 0).items()}
    quantised = _by_hand(backbone, {"head.user.0"})
    close = difference(eager(quantised, slots, (nothing, nothing), (history, ids)), output)
    far = difference(eager(backbone, slots, (nothing, nothing), (history, ids)), output)
    assert far > 3 * close


def test_what_is_packed_and_what_is_kept(tmp_path: Path) -> None:
    backbone, _, package = _exported("image-net", "dense", ("head.0",), {}, tmp_path / "a")
    packed = [o for o in package.program.operations if o.kind == "constexpr_affine_dequantize"]
    assert len(packed) == operation_histogram(package)["constexpr_affine_dequantize"] >= 3
    slot = backbone.get_parameter("head.0.weight").detach().half().numpy()
    floats = [
        package.constant(o.attributes["val"])  # type: ignore[arg-type]
        for o in package.program.operations
        if o.kind == "const"
    ]
    assert any(np.array_equal(value, slot) for value in floats)
    assert all(f.type.dtype == "float32" for f in package.program.inputs)
    for operation in packed:
        assert np.prod([n or 0 for n in operation.outputs[0].type.shape]) > SMALLEST

    _, _, low_rank = _exported("image-net", "low-rank", ("head.0",), {}, tmp_path / "b")
    assert operation_histogram(low_rank)["constexpr_affine_dequantize"] == len(packed) + 1


def test_int8_takes_about_half_of_fp16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = backbones["sensor-net"]().eval()
    slots = (make_slot(backbone, "head.2"),)
    sizes = {}
    for precision in ("fp16", "int8"):
        convert_forward(backbone, slots, precision, tmp_path / precision)  # type: ignore[arg-type]
        weights = tmp_path / precision / "Data/com.apple.CoreML/weights/weight.bin"
        sizes[precision] = weights.stat().st_size
    assert sizes["int8"] < 0.65 * sizes["fp16"]


def test_a_model_without_a_weight_to_pack_is_told_to_use_fp16(tmp_path: Path) -> None:
    backbone = Unusual(torch.relu).eval()
    with pytest.raises(CoreMLError, match=r"no weight of more than 512 elements.*export fp16"):
        convert_forward(backbone, (make_slot(backbone, "last"),), "int8", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_dequantising_is_scale_times_distance_from_the_zero_point() -> None:
    q, zero = torch.randint(-128, 128, (4, 3, 2)), torch.tensor([-3, 0, 5])
    scale = torch.rand(3) + 0.1
    wanted = torch.stack([(q[:, i] - zero[i]) * scale[i] for i in range(3)], 1)
    arguments = {"quantized_data": q.numpy().astype(np.int8), "scale": scale.numpy(), "axis": 1}
    arguments["zero_point"] = zero.numpy().astype(np.int8)
    (result,) = call("constexpr_affine_dequantize", arguments)
    np.testing.assert_allclose(result, wanted.numpy(), rtol=1e-6)
    with pytest.raises(ValueError, match="3 scales or zero points for 4 places"):
        call("constexpr_affine_dequantize", arguments | {"axis": 0})


class Unusual(Backbone):
    """Two small linear layers with a function of the test's between them."""

    task = "classification"

    def __init__(self, function: object) -> None:
        super().__init__()
        self.first, self.between, self.last = nn.Linear(6, 6), Between(function), nn.Linear(6, 3)

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.last(self.between(self.first(inputs[0])))
        return result

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("x", "float32", (1, 6)),)


class Between(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(x)  # type: ignore[operator]
        return result


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_operator_that_core_ml_lacks_is_named_with_its_layer(
    precision: str, tmp_path: Path
) -> None:
    backbone = Unusual(torch.special.i0).eval()
    source = Source(backbone, (make_slot(backbone, "last"),), pooled=False)
    with pytest.raises(ExportError, match=r"special_i0.* of layer 'between' \(Between\)"):
        targets["coreml"]().export(source, precision, tmp_path)  # type: ignore[arg-type]
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_operator_that_the_converter_breaks_on_is_named_too(tmp_path: Path) -> None:
    backbone = Unusual(lambda x: torch.fft.rfft(x).abs()[:, :1] + x).eval()
    with pytest.raises(CoreMLError, match=r"fft_rfft.* of layer 'between'"):
        convert_forward(backbone, (make_slot(backbone, "last"),), "fp32", tmp_path / "a")
