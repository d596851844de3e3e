"""What the comparison with the model covers: a program that is wrong in one place only is seen."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call

from persona.backbones import Backbone, backbones
from persona.formats.manifest import Feed, Program
from persona.formats.slots import effective, zero_edit
from persona.method.slots import base_tensors, make_slot
from persona_export.export import example_edit
from persona_export.parity import check_against_eager
from persona_export.targets import ExportError, Target

Values = Mapping[str, np.ndarray]
Flaw = Callable[[Values, Values], bool]


class Eager(Target):
    """PyTorch itself as the program: right but where a flaw is planted, and it keeps a record."""

    precisions = ("fp32",)

    def __init__(self, backbone: Backbone, flaw: Flaw) -> None:
        self.backbone, self.flaw = backbone, flaw
        self.seen: list[tuple[Values, Values]] = []

    def export(self, *_):
        raise NotImplementedError

    def executor(self, *_):
        def run(inputs: Values, slots: Values) -> np.ndarray:
            self.seen.append((inputs, slots))
            weights = {name: torch.from_numpy(value) for name, value in slots.items()}
            given = tuple(torch.from_numpy(x) for x in inputs.values())
            with torch.no_grad():
                output = functional_call(self.backbone, weights, given).numpy()
            return output + np.float32(self.flaw(inputs, slots))

        return run


@pytest.fixture(scope="module")
def ranker():
    torch.manual_seed(0)
    return backbones["sasrec"](items=50, length=6, dim=8).eval()


@pytest.fixture(scope="module")
def slots(ranker):
    return (make_slot(ranker, "head.user.0"), make_slot(ranker, "head.user.2"))


@pytest.fixture(scope="module")
def prototypes(slots):
    return [example_edit(slots, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def golden_inputs(ranker):
    names = [spec.name for spec in ranker.input_specs()]
    made = [ranker.example_inputs(seed, size) for seed, size in ((7, 20), (8, 5))]
    return [{n: x.numpy() for n, x in zip(names, inputs, strict=True)} for inputs in made]


@pytest.fixture
def compare(ranker, slots, prototypes, golden_inputs):
    """Compare a program with a flaw; gives the largest difference and what the program was fed."""

    def run(flaw: Flaw = lambda _inputs, _slots: False):
        shapes = {f"{s.name}.{x}": shape for s in slots for x, shape in s.feeds().items()}
        feeds = tuple(
            Feed(name, index, None, "effective", shape)
            for index, (name, shape) in enumerate(shapes.items())
        )
        program = Program(
            "eager", "fp32", "x", "forward", None, None, feeds, 1e-5, "executed", delegation={}
        )
        target = Eager(ranker, flaw)
        found = check_against_eager(
            target, Path(), program, ranker, slots, prototypes, golden_inputs
        )
        return found, target.seen

    return run


def _base(ranker, slots):
    return {name: value.numpy() for name, value in base_tensors(ranker, slots).items()}


def _same(one: Values, other: Values) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in other)


def test_a_right_program_is_off_by_rounding_alone(compare):
    largest, _ = compare()
    assert 0 < largest < 1e-6


@pytest.mark.parametrize("which", ["base", 0, 1, 2])
def test_base_and_each_prototype_are_run_on_random_inputs_of_every_size(
    which, compare, ranker, slots, prototypes
):
    nothing = zero_edit(slots)
    prototype = nothing if which == "base" else prototypes[which]
    held = effective(slots, _base(ranker, slots), prototype, nothing)
    _, seen = compare()
    sizes = [x["candidates"].shape[1] for x, values in seen if _same(values, held)]
    assert sizes == [1, 20, 100]
    for size in sizes:
        with pytest.raises(ExportError, match=r"\(random inputs\)"):
            compare(
                lambda x, values, size=size: (
                    _same(values, held) and x["candidates"].shape[1] == size
                )
            )


@pytest.mark.parametrize("index", [0, 1])
def test_edits_at_the_bounds_are_run_on_each_golden_input(
    index, compare, ranker, slots, prototypes, golden_inputs
):
    golden = golden_inputs[index]
    with pytest.raises(ExportError, match="random edits at the bounds of golden inputs"):
        compare(lambda inputs, _: _same(inputs, golden))
    _, seen = compare()
    ((_, values),) = [fed for fed in seen if _same(fed[0], golden)]
    base, limits = _base(ranker, slots), {s.name: s.limits() for s in slots}
    groups = [zero_edit(slots), *prototypes]
    beyond = [
        all(
            np.allclose(
                np.abs(value - base[name] - group[name]),
                limits[name.rpartition(".")[0]][name.rpartition(".")[2]],
                atol=1e-5,
            )
            for name, value in values.items()
        )
        for group in groups
    ]
    assert sum(beyond) == 1, "every value at its bound, from the base or one prototype"


def test_every_random_input_meets_an_edit_at_the_bounds_as_well(compare, ranker, slots, prototypes):
    nothing = zero_edit(slots)
    held = [
        effective(slots, _base(ranker, slots), prototype, nothing)
        for prototype in (nothing, *prototypes)
    ]
    _, seen = compare()
    edited = [x for x, values in seen if not any(_same(values, one) for one in held)]
    assert [x["candidates"].shape[1] for x in edited] == [1, 20, 100, 20, 5]
