"""The Core ML target: what the package on disk computes is what eager PyTorch computes.

Errors are relative to the largest output, for a ranking to the largest score in the catalogue.
Measured over 20 inputs, two sets of weights and edits with all elements at their bounds: fp32 at
most 4.3e-7, fp16 at most 2.0e-3; the tolerances leave room.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persona.backbones import Backbone
from persona.backbones.base import InputSpec
from persona.backbones.image_net import ImageNet
from persona.backbones.sasrec import SASRec
from persona.formats.slots import SlotSpec
from persona.method.slots import Edit, applied, compose, edited_forward, make_slot
from persona_export.coreml_package import Package, check_package
from persona_export.coreml_package.checks import Precision, minimum_ios, operation_histogram
from persona_export.targets.coreml import (
    CoreMLError,
    convert_forward,
    convert_observe,
    feed_input_name,
)

TOLERANCES: dict[Precision, float] = {"fp32": 1e-5, "fp16": 4e-3}
PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "fp16"])


def _random_edit(slots: tuple[SlotSpec, ...], seed: int) -> Edit:
    """Every element at its slot's bound, with a random sign."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{s.name}.{suffix}": s.limits()[suffix]
        * (torch.randint(0, 2, shape, generator=generator) * 2.0 - 1)
        for s in slots
        for suffix, shape in s.tensors().items()
    }


def _change(slots: tuple[SlotSpec, ...], seed: int) -> Edit:
    """An edit at the bound on top of no prototype, with the shapes that a program takes."""
    edit = _random_edit(slots, seed)
    return compose(slots, {name: torch.zeros_like(value) for name, value in edit.items()}, edit)


def _run(
    package: Package, backbone: Backbone, inputs: tuple[Tensor, ...], change: Edit | None = None
) -> Tensor:
    feed = {s.name: v.numpy() for s, v in zip(backbone.input_specs(), inputs, strict=True)}
    feed |= {feed_input_name(name): value.numpy() for name, value in (change or {}).items()}
    return torch.from_numpy(package.run(feed)["output"])


def _assert_close(
    result: Tensor, expected: Tensor, precision: Precision, scale: float | None = None
) -> None:
    assert result.shape == expected.shape
    scale = float(expected.abs().max()) if scale is None else scale
    assert float((result - expected).abs().max()) <= TOLERANCES[precision] * scale


class Pieces(Backbone):
    """Layers of phone models that the two main backbones do not have."""

    task = "classification"

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.remembering = nn.LSTM(8, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.last = nn.Linear(8, 5)
        with torch.no_grad():
            self.stem[1].running_mean.normal_()  # type: ignore[operator]
            self.stem[1].running_var.uniform_(0.5, 2)  # type: ignore[operator]

    def forward(self, *inputs: Tensor) -> Tensor:
        x = self.depthwise(self.stem(inputs[0]))
        x = F.max_pool2d(x, 3, 2, padding=1) + F.avg_pool2d(x, 3, 2, padding=1)
        gate = F.hardsigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        steps = (x * gate).flatten(2).transpose(1, 2)
        states, _ = self.recurrent(steps[:, :3])
        states, _ = self.remembering(states)
        left, right = F.gelu(self.norm(states)).chunk(2, dim=-1)
        mixed = torch.cat([left.tanh(), F.leaky_relu(right)], dim=-1)
        result: Tensor = self.last(mixed.masked_fill(mixed > 0.5, 0.5).mean(1))
        return result

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("image", "float32", (1, 3, 12, 12)),)


class TwoLayers(Backbone):
    """Two linear layers and a forward given by the test."""

    task = "classification"

    def __init__(self, name: str = "x") -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.spec = InputSpec(name, "float32", (1, 4))

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.first(inputs[0])
        return result

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (self.spec,)


class FarMask(TwoLayers):
    """Masks with a number that binary16 does not have."""

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.first(inputs[0]) + (inputs[0] > 0) * -1e9
        return result.softmax(-1)


@pytest.fixture(scope="module")
def image_net() -> Backbone:
    torch.manual_seed(0)
    return ImageNet().eval()


@pytest.fixture(scope="module")
def sasrec() -> Backbone:
    torch.manual_seed(0)
    return SASRec(items=60, dim=32, width=16).eval()


KINDS = [("dense", "low-rank", "affine"), ("low-rank", "dense", "affine")]


@PRECISIONS
@pytest.mark.parametrize("kinds", KINDS, ids="/".join)
def test_image_package_equals_eager_for_base_and_for_each_slot_edited(
    image_net: Backbone, kinds: tuple[str, ...], precision: Precision, tmp_path: Path
) -> None:
    names = ("head.0", "head.2", "trunk.first.0")
    slots = tuple(make_slot(image_net, n, k) for n, k in zip(names, kinds, strict=True))
    convert_forward(image_net, slots, precision, tmp_path / "a.mlpackage")
    package = Package.open(tmp_path / "a.mlpackage")
    assert minimum_ios(package) == {"fp32": 15, "fp16": 16}[precision]
    for seed in range(5):
        inputs = image_net.example_inputs(seed)
        with torch.no_grad():
            base = image_net(*inputs)
        _assert_close(_run(package, image_net, inputs), base, precision)
        for edited in ((slots[0],), (slots[1],), (slots[2],), slots):
            change = _change(edited, seed)
            with torch.no_grad(), applied(image_net, edited, change):
                expected = image_net(*inputs)
            assert float((expected - base).abs().max()) > 10 * TOLERANCES["fp16"] * float(
                base.abs().max()
            )
            _assert_close(_run(package, image_net, inputs, change), expected, precision)


@PRECISIONS
def test_ranking_package_equals_eager_for_any_number_of_candidates(
    sasrec: Backbone, precision: Precision, tmp_path: Path
) -> None:
    slots = (
        make_slot(sasrec, "head.user.0"),
        make_slot(sasrec, "head.user.2", "low-rank"),
        make_slot(sasrec, "trunk.norm", "affine"),
    )
    convert_forward(sasrec, slots, precision, tmp_path / "a.mlpackage")
    package = Package.open(tmp_path / "a.mlpackage")
    catalogue = torch.arange(1, 61)[None]
    for seed, candidates in enumerate((1, 2, 7, 32, 100)):
        history, ids = sasrec.example_inputs(seed, candidates)
        history[0, :seed] = 0
        change = _change(slots, seed)
        device = {name: value[None] for name, value in change.items()}
        with torch.no_grad():
            base, base_all = sasrec(history, ids), sasrec(history, catalogue)
            edited, edited_all = (
                edited_forward(sasrec, slots, device, (history[None], c[None]))[0]
                for c in (ids, catalogue)
            )
        result = _run(package, sasrec, (history, ids))
        _assert_close(result, base, precision, float(base_all.abs().max()))
        result = _run(package, sasrec, (history, ids), change)
        _assert_close(result, edited, precision, float(edited_all.abs().max()))


@PRECISIONS
def test_package_of_other_layers_equals_eager(precision: Precision, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = Pieces().eval()
    slots = (make_slot(backbone, "last"), make_slot(backbone, "stem.0", "affine"))
    convert_forward(backbone, slots, precision, tmp_path / "a.mlpackage")
    package = Package.open(tmp_path / "a.mlpackage")
    for seed in range(3):
        inputs = backbone.example_inputs(seed)
        with torch.no_grad():
            _assert_close(_run(package, backbone, inputs), backbone(*inputs), precision)
        change = _change(slots, seed)
        with torch.no_grad(), applied(backbone, slots, change):
            _assert_close(_run(package, backbone, inputs, change), backbone(*inputs), precision)


def test_prototype_and_edit_come_stacked_for_a_low_rank_slot(
    image_net: Backbone, tmp_path: Path
) -> None:
    slots = (make_slot(image_net, "head.0", "low-rank", rank=3),)
    convert_forward(image_net, slots, "fp32", tmp_path / "a.mlpackage")
    package = Package.open(tmp_path / "a.mlpackage")
    prototype, edit = _random_edit(slots, 1), _random_edit(slots, 2)
    inputs = image_net.example_inputs(3)
    with torch.no_grad(), applied(image_net, slots, compose(slots, prototype, edit)):
        expected = image_net(*inputs)
    result = _run(package, image_net, inputs, compose(slots, prototype, edit))
    _assert_close(result, expected, "fp32")


def test_a_transposed_square_slot_changes_the_output(sasrec: Backbone, tmp_path: Path) -> None:
    slots = (make_slot(sasrec, "head.user.0"),)
    convert_forward(sasrec, slots, "fp32", tmp_path / "a.mlpackage")
    package = Package.open(tmp_path / "a.mlpackage")
    inputs, change = sasrec.example_inputs(0), _change(slots, 0)
    with torch.no_grad(), applied(sasrec, slots, change):
        expected = sasrec(*inputs)
    transposed = change | {"head.user.0.weight": change["head.user.0.weight"].T.contiguous()}
    right = float((_run(package, sasrec, inputs, change) - expected).abs().max())
    wrong = float((_run(package, sasrec, inputs, transposed) - expected).abs().max())
    assert right < 1e-5
    assert wrong > 1e-2


def test_zero_feeds_equal_omitted_feeds(image_net: Backbone, tmp_path: Path) -> None:
    slots = (make_slot(image_net, "head.0"), make_slot(image_net, "head.2", "low-rank"))
    convert_forward(image_net, slots, "fp16", tmp_path / "a.mlpackage")
    package = Package.open(tmp_path / "a.mlpackage")
    zero = {name: torch.zeros_like(value) for name, value in _change(slots, 0).items()}
    inputs = image_net.example_inputs(0)
    assert torch.equal(_run(package, image_net, inputs), _run(package, image_net, inputs, zero))


def test_inputs_come_in_order_and_feeds_are_optional_with_default_zero(
    sasrec: Backbone, tmp_path: Path
) -> None:
    slots = (make_slot(sasrec, "head.user.0"),)
    convert_forward(sasrec, slots, "fp16", tmp_path / "a.mlpackage")
    program = Package.open(tmp_path / "a.mlpackage").program
    assert [(f.name, str(f.type), f.optional, f.default) for f in program.inputs] == [
        ("history", "int32[1, 10]", False, None),
        ("candidates", "int32[1, ?]", False, None),
        ("head_user_0_weight", "float32[16, 16]", True, 0.0),
        ("head_user_0_bias", "float32[16]", True, 0.0),
    ]
    assert program.inputs[1].limits == ((1, 1), (1, 100))
    assert [(f.name, f.type.dtype) for f in program.outputs] == [("output", "float32")]


@PRECISIONS
def test_observe_package_gives_features_and_posterior(
    image_net: Backbone, precision: Precision, tmp_path: Path
) -> None:
    convert_observe(image_net, precision, tmp_path / "observe.mlpackage")
    package = Package.open(tmp_path / "observe.mlpackage")
    assert [feature.name for feature in package.program.inputs] == ["image"]
    for seed in range(3):
        (image,) = image_net.example_inputs(seed)
        with torch.no_grad():
            features, posterior = image_net.features(image)
        outputs = package.run({"image": image.numpy()})
        assert list(outputs) == ["features", "posterior"]
        _assert_close(torch.from_numpy(outputs["features"]), features, precision)
        _assert_close(torch.from_numpy(outputs["posterior"]), posterior, precision)


def test_a_backbone_without_features_has_no_observe_package(
    sasrec: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(NotImplementedError, match="SASRec has no pooled features"):
        convert_observe(sasrec, "fp32", tmp_path / "observe.mlpackage")


def test_a_slot_that_the_forward_does_not_call_is_an_error(tmp_path: Path) -> None:
    backbone = TwoLayers().eval()
    slots = (make_slot(backbone, "first"), make_slot(backbone, "second"))
    out = tmp_path / "a.mlpackage"
    with pytest.raises(CoreMLError, match="second_weight, second_bias would be without effect"):
        convert_forward(backbone, slots, "fp32", out)
    assert list(tmp_path.iterdir()) == []


def test_slots_and_inputs_that_would_share_a_name_are_an_error(tmp_path: Path) -> None:
    backbone = TwoLayers(name="first_weight").eval()
    with pytest.raises(CoreMLError, match="share a name"):
        convert_forward(backbone, (make_slot(backbone, "first"),), "fp32", tmp_path / "a.mlpackage")


def test_a_mask_beyond_binary16_is_refused_in_fp16_only(tmp_path: Path) -> None:
    backbone = FarMask().eval()
    slots = (make_slot(backbone, "first"),)
    with pytest.raises(CoreMLError, match="mask of -1e9"):
        convert_forward(backbone, slots, "fp16", tmp_path / "a.mlpackage")
    convert_forward(backbone, slots, "fp32", tmp_path / "a.mlpackage")
    inputs = backbone.example_inputs(0)
    with torch.no_grad():
        expected = backbone(*inputs)
    _assert_close(_run(Package.open(tmp_path / "a.mlpackage"), backbone, inputs), expected, "fp32")


def test_converting_again_replaces_the_package_and_says_nothing(
    image_net: Backbone, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slots = (make_slot(image_net, "head.0"),)
    out = tmp_path / "bundle" / "forward.mlpackage"
    for precision in ("fp32", "fp16"):
        convert_forward(image_net, slots, precision, out)
    assert check_package(out, 16, "fp16") == []
    assert operation_histogram(Package.open(out))["cast"] > 0
    assert sorted(p.name for p in out.iterdir()) == ["Data", "Manifest.json"]
    assert [p.name for p in out.parent.iterdir()] == ["forward.mlpackage"]
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in out.rglob("*") if p.is_file())
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_feed_names_become_identifiers() -> None:
    assert feed_input_name("head.0.weight") == "head_0_weight"
    assert feed_input_name("trunk.block-1.norm.scale") == "trunk_block_1_norm_scale"
