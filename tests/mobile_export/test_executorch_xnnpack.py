"""The ExecuTorch target, run by ExecuTorch's own runtime against PyTorch edited by hand."""

import inspect
import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from persona.backbones import Backbone
from persona.backbones.base import InputSpec
from persona.backbones.image_net import ImageNet
from persona.backbones.sasrec import SASRec
from persona.formats.bundle_tensors import Golden
from persona.formats.slots import SlotSpec, effective, zero_edit
from persona.method.slots import base_tensors, make_slot
from persona_export.parity import check_program, difference, slot_values
from persona_export.targets import ExportError, Source
from persona_export.targets.executorch_xnnpack import ExecutorchXnnpack

TOLERANCE = 1e-5
TARGET = ExecutorchXnnpack()


def _base(backbone: Backbone, slots: tuple[SlotSpec, ...]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in base_tensors(backbone, slots).items()}


def _inputs(backbone: Backbone, seed: int, dynamic: int | None = None) -> dict[str, np.ndarray]:
    tensors = backbone.example_inputs(seed, dynamic)
    return {s.name: t.numpy() for s, t in zip(backbone.input_specs(), tensors, strict=True)}


def _eager(model: nn.Module, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return model(*(torch.from_numpy(x) for x in inputs.values())).numpy()


def _operators(program: Path) -> dict[str, set[str]]:
    """Method -> operators that its program on disk calls outside delegates."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    plans = deserialize_pte_binary(program.read_bytes()).program.execution_plan
    assert all({d.id for d in plan.delegates} == {"XnnpackBackend"} for plan in plans)
    return {plan.name: {operator.name for operator in plan.operators} for plan in plans}


PRODUCT = re.compile(r"mm|matmul|linear|conv|einsum|dot|mv$")


# -- Parity of the bundles that `persona export` wrote


@pytest.mark.parametrize("name", ["digits", "sasrec"])
@pytest.mark.parametrize("candidates", [1, 20, 100])
def test_base_prototypes_and_edits_at_the_bounds_equal_eager(
    name, candidates, request, edited_by_hand, at_the_bounds
):
    run = request.getfixturevalue(f"{name}_run")
    bundle = request.getfixturevalue(f"{name}_bundle")
    slots, nothing = run.record.slots, zero_edit(run.record.slots)
    execute = TARGET.executor(bundle.path, bundle.manifest.program("executorch-xnnpack"))
    bank = [
        {n: v[k].detach().numpy() for n, v in run.bank.edits().items()}
        for k in range(run.bank.count)
    ]
    pairs = [(nothing, nothing), *((prototype, nothing) for prototype in bank)]
    pairs += [(nothing, at_the_bounds(slots, 1)), (bank[-1], at_the_bounds(slots, 2))]
    outputs = []
    for seed, (prototype, edit) in enumerate(pairs):
        inputs = _inputs(run.backbone, seed, candidates)
        expected = _eager(edited_by_hand(run.backbone, slots, prototype, edit), inputs)
        output = execute(inputs, effective(slots, bundle.base, prototype, edit))
        assert output.shape == expected.shape
        assert np.abs(output - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())
        outputs.append(output)
    still = execute(inputs, bundle.base)
    assert np.abs(outputs[-1] - still).max() > 0.01, "an edit at the bounds must be seen"


def test_features_and_posterior_of_the_observe_method_equal_eager(digits_run, digits_bundle):
    observe = TARGET.features(
        digits_bundle.path, digits_bundle.manifest.program("executorch-xnnpack")
    )
    for seed in range(5):
        inputs = _inputs(digits_run.backbone, seed)
        with torch.no_grad():
            expected = digits_run.backbone.features(torch.from_numpy(inputs["image"]))
        for output, wanted in zip(observe(inputs), expected, strict=True):
            np.testing.assert_allclose(output, wanted.numpy(), atol=TOLERANCE)


# -- Every kind of slot


def _image_net() -> tuple[Backbone, tuple[SlotSpec, ...]]:
    torch.manual_seed(1)
    backbone = ImageNet(width=4, hidden=8).eval()
    return backbone, (
        make_slot(backbone, "trunk.second.0", "affine"),
        make_slot(backbone, "trunk.project", "low-rank", rank=3),
        make_slot(backbone, "head.0", "affine"),
        make_slot(backbone, "head.2", "dense"),
    )


def _sasrec() -> tuple[Backbone, tuple[SlotSpec, ...]]:
    torch.manual_seed(2)
    backbone = SASRec(items=50, length=4, dim=8, width=6, layers=1).eval()
    return backbone, (
        make_slot(backbone, "trunk.norm", "affine"),
        make_slot(backbone, "head.user.0", "dense"),
        make_slot(backbone, "head.user.2", "low-rank", rank=2),
    )


@pytest.mark.parametrize("make", [_image_net, _sasrec])
def test_slots_of_every_kind_equal_eager_and_stay_in_the_delegate(
    make, tmp_path, edited_by_hand, at_the_bounds
):
    backbone, slots = make()
    assert {slot.kind for slot in slots} == {"dense", "low-rank", "affine"}
    program = TARGET.export(Source(backbone, slots, pooled=False), "fp32", tmp_path)
    execute = TARGET.executor(tmp_path, program)
    for seed in range(4):
        prototype, edit = at_the_bounds(slots, seed), at_the_bounds(slots, seed + 10)
        inputs = _inputs(backbone, seed)
        expected = _eager(edited_by_hand(backbone, slots, prototype, edit), inputs)
        output = execute(inputs, effective(slots, _base(backbone, slots), prototype, edit))
        assert np.abs(output - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())
    for outside in _operators(tmp_path / program.path).values():
        assert not [name for name in outside if PRODUCT.search(name)]


# -- Products in the delegate


@pytest.mark.parametrize("name", ["digits", "sasrec"])
def test_the_program_on_disk_calls_no_product_outside_the_delegate(name, request):
    bundle = request.getfixturevalue(f"{name}_bundle")
    program = bundle.manifest.program("executorch-xnnpack")
    outside = _operators(bundle.path / program.path)
    assert set(outside) == {"forward", "base"} | ({"observe"} if name == "digits" else set())
    for method, names in outside.items():
        assert not [n for n in names if PRODUCT.search(n)]
        said = {
            o.removeprefix("aten.").partition(".")[0] for o in program.delegation[method]["outside"]
        }
        assert {n.removeprefix("aten::") for n in names if n.startswith("aten::")} <= said


def test_the_stock_partitioner_makes_the_export_fail(monkeypatch, tmp_path):
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    monkeypatch.setattr("persona_export.slot_partitioner.slot_partitioner", XnnpackPartitioner)
    torch.manual_seed(0)
    backbone = ImageNet(width=4, hidden=8).eval()
    slots = (make_slot(backbone, "head.0"),)
    with pytest.raises(ExportError, match=r"aten\.addmm.*'forward' fell out.*nn\.Linear"):
        TARGET.export(Source(backbone, slots, pooled=False), "fp32", tmp_path)
    assert not list(tmp_path.iterdir())


class _Small(Backbone):
    """Two square layers and whatever the test makes of them."""

    task = "classification"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("x", "float32", (1, 6)),)

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.second(torch.relu(self.first(inputs[0])))
        return result


class _InFloat64(_Small):
    def forward(self, *inputs: Tensor) -> Tensor:
        wide = self.first(inputs[0]).double() @ self.second.weight.double()
        return wide.float()


class _Volume(_Small):
    def forward(self, *inputs: Tensor) -> Tensor:
        kernel = self.second.weight[:1, :1].reshape(1, 1, 1, 1, 1)
        volume = self.first(inputs[0]).reshape(1, 1, 1, 2, 3)
        return nn.functional.conv3d(volume, kernel).reshape(1, 6)


@pytest.mark.parametrize("backbone", [_InFloat64, _Volume])
def test_a_product_that_the_delegate_cannot_take_makes_the_export_fail(backbone, tmp_path):
    model = backbone().eval()
    source = Source(model, (make_slot(model, "first"),), pooled=False)
    with pytest.raises(ExportError, match="fell out of the XNNPACK delegate"):
        TARGET.export(source, "fp32", tmp_path)


def test_the_private_hooks_of_executorch_are_where_we_override_them():
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS, gemm_configs
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.utils.utils import get_input_node, is_param_node

    assert metadata.version("executorch") == "1.5.1"
    for name in ("LinearConfig", "AddmmConfig", "MMConfig"):
        config = getattr(gemm_configs, name)
        assert config in ALL_PARTITIONER_CONFIGS
        for hook in ("_get_weight_deps", "_get_bias_deps"):
            parameters = list(inspect.signature(getattr(config, hook)).parameters)
            assert parameters == ["self", "node", "ep", "precision"]
        made = config()
        assert isinstance(made.weight_idx, int)
        assert made.bias_idx is None or isinstance(made.bias_idx, int)
    assert "configs" in inspect.signature(XnnpackPartitioner).parameters
    assert list(inspect.signature(get_input_node).parameters) == ["node", "input_index"]
    assert list(inspect.signature(is_param_node).parameters) == ["exp_prog", "node"]
    assert ConfigPrecisionType.FP32 in ConfigPrecisionType


# -- Negative controls


def _golden(backbone: Backbone, slots: tuple[SlotSpec, ...], change, edited_by_hand) -> Golden:
    inputs = tuple(_inputs(backbone, seed) for seed in range(2))
    edited = edited_by_hand(backbone, slots, change)
    return Golden(
        inputs=inputs,
        base=tuple(_eager(backbone, x) for x in inputs),
        prototypes=(),
        edit=change,
        edited=tuple(_eager(edited, x) for x in inputs),
        features=(),
        posterior=(),
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory, edited_by_hand, at_the_bounds):
    """Two square slots of equal shape, exported: bundle folder, program, base and golden."""
    backbone = _Small().eval()
    slots = (make_slot(backbone, "first"), make_slot(backbone, "second"))
    folder = tmp_path_factory.mktemp("small")
    program = TARGET.export(Source(backbone, slots, pooled=False), "fp32", folder)
    golden = _golden(backbone, slots, at_the_bounds(slots, 5), edited_by_hand)
    return folder, program, slots, _base(backbone, slots), golden


def test_a_right_program_passes_the_check(small):
    folder, program, slots, base, golden = small
    parity = check_program(TARGET, folder, program, slots, base, (), golden)
    assert 0 < max(parity.base, parity.edited) <= TOLERANCE


@pytest.mark.parametrize("tensor", ["first.weight", "first.bias", "second.weight", "second.bias"])
def test_one_wrong_slot_value_is_noticed(small, tensor):
    folder, program, slots, base, golden = small
    wrong = {name: value.copy() for name, value in base.items()}
    wrong[tensor].flat[3] += 0.05
    with pytest.raises(ExportError, match="differs from PyTorch"):
        check_program(TARGET, folder, program, slots, wrong, (), golden)


def test_half_precision_that_is_a_little_too_coarse_is_told_from_a_fault(small):
    folder, program, slots, base, golden = small
    wrong = {name: value.copy() for name, value in base.items()}
    wrong["second.bias"].flat[3] += 0.05
    for tolerance, advice in ((0.02, "try --precision fp32"), (1e-4, "as a module")):
        half = replace(program, precision="fp16", tolerance=tolerance)
        with pytest.raises(ExportError, match=advice):
            check_program(TARGET, folder, half, slots, wrong, (), golden)
    full = replace(program, tolerance=0.02)
    with pytest.raises(ExportError, match="as a module"):
        check_program(TARGET, folder, full, slots, wrong, (), golden)


def test_a_transposed_square_slot_is_noticed(small):
    folder, program, slots, base, golden = small
    wrong = {**base, "first.weight": base["first.weight"].T.copy()}
    with pytest.raises(ExportError, match="differs from PyTorch"):
        check_program(TARGET, folder, program, slots, wrong, (), golden)


def test_two_swapped_slots_of_equal_shape_are_noticed(small):
    folder, program, slots, base, golden = small
    other = {"first": "second", "second": "first"}
    swapped = tuple(
        replace(f, tensor=f"{other[f.tensor.split('.')[0]]}.{f.tensor.split('.')[1]}")
        for f in program.feeds
    )
    with pytest.raises(ExportError, match="differs from PyTorch"):
        check_program(TARGET, folder, replace(program, feeds=swapped), slots, base, (), golden)


def test_feeds_are_told_apart_by_their_index_not_by_their_place_in_the_list(small):
    folder, program, slots, base, golden = small
    backwards = replace(program, feeds=program.feeds[::-1])
    parity = check_program(TARGET, folder, backwards, slots, base, (), golden)
    assert parity == check_program(TARGET, folder, program, slots, base, (), golden)


def test_a_program_that_observes_otherwise_is_noticed(digits_bundle):
    program = digits_bundle.manifest.program("executorch-xnnpack")
    golden = digits_bundle.golden
    shifted = replace(golden, features=(*golden.features[1:], golden.features[0]))
    with pytest.raises(ExportError, match="observed"):
        check_program(
            TARGET,
            digits_bundle.path,
            program,
            digits_bundle.manifest.slots,
            digits_bundle.base,
            digits_bundle.prototypes.changes,
            shifted,
        )


class _Deaf(_Small):
    """The second layer's output counts for nothing."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.first(inputs[0]) + 0 * self.second(inputs[0])


def test_a_slot_without_effect_is_refused(tmp_path, edited_by_hand, at_the_bounds):
    backbone = _Deaf().eval()
    slots = (make_slot(backbone, "first"), make_slot(backbone, "second"))
    program = TARGET.export(Source(backbone, slots, pooled=False), "fp32", tmp_path)
    golden = _golden(backbone, slots, at_the_bounds(slots, 6), edited_by_hand)
    with pytest.raises(ExportError, match=r"'second\.weight' has no effect.*depend on this slot"):
        check_program(TARGET, tmp_path, program, slots, _base(backbone, slots), (), golden)


def test_a_difference_of_shape_is_infinite_and_of_values_relative_to_the_largest():
    assert difference(np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float32)) == float("inf")
    expected = np.array([[100.0, 0.0]], np.float32)
    assert difference(expected, expected + 1) == pytest.approx(0.01)
    assert difference(expected / 1000, expected / 1000 + 1) == pytest.approx(1)


def test_effective_feeds_carry_the_sum_and_changes_the_change_alone(small):
    _, program, slots, base, golden = small
    nothing = zero_edit(slots)
    whole = slot_values(program, slots, base, nothing, golden.edit)
    alone = slot_values(
        replace(program, feeds=tuple(replace(f, carries="change") for f in program.feeds)),
        slots,
        base,
        nothing,
        golden.edit,
    )
    for name, value in base.items():
        np.testing.assert_array_equal(whole[name], value + golden.edit[name])
        np.testing.assert_array_equal(alone[name], golden.edit[name])
