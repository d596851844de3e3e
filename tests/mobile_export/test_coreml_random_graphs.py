"""Random graphs of each class of operation: the package equals eager PyTorch, and any planted error
in an operation of the interpreter, or in a weight, is seen by that comparison.
"""

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from persona.backbones import Backbone
from persona.backbones.base import InputSpec
from persona.method.slots import make_slot
from persona_export.coreml_package import Package, PackageError
from persona_export.coreml_package.blobs import WeightFile
from persona_export.coreml_package.checks import operation_histogram
from persona_export.coreml_package.operations import registry
from persona_export.coreml_package.program import BlobReference
from persona_export.targets.coreml import convert_forward

ROWS, COLUMNS = 4, 12
TOLERANCE = 1e-5


class Step(nn.Module):
    """[ROWS, COLUMNS] -> the same shape; layers that the function uses are given by name."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x, *self.layers)
        return y


def _elementwise() -> list[Step]:
    functions: list[Callable[[Tensor], Tensor]] = [
        torch.sigmoid, torch.tanh, torch.abs, torch.sin, torch.cos, torch.erf, F.silu, F.gelu,
        F.softplus, F.elu, F.hardswish, F.leaky_relu, F.softsign,
        lambda x: F.relu(x + 1), lambda x: x.clamp(-1.5, 1.5) * 2, lambda x: torch.exp(-x.abs()),
        lambda x: torch.sqrt(x.abs() + 0.1) - 1, lambda x: torch.log(x.abs() + 0.5),
        lambda x: torch.where(x > 0.2, x, 0.5 - x), lambda x: torch.maximum(x, -0.5 * x),
        lambda x: torch.minimum(x, 0.8 - x), lambda x: x / (1 + x * x),
        lambda x: (x.abs() + 0.3).pow(1.5), lambda x: torch.rsqrt(x * x + 0.5),
        lambda x: torch.where(torch.logical_and(x > 0, x < 1), x + 1, x),
    ]  # fmt: skip
    return [Step(f) for f in functions]


def _moving() -> list[Step]:
    order = torch.tensor([3, 1, 0, 2])
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.reshape(COLUMNS, ROWS).t() * 1.1, lambda x: torch.cat([x[:, 5:], x[:, :5]], 1),
        lambda x: torch.stack([x, 0.5 * x], 1)[:, 1] + x, lambda x: x + x.mean(1, keepdim=True),
        lambda x: x - x.amax(0, keepdim=True), lambda x: 0.3 * x.cumsum(1),
        lambda x: x[order] + 0.1, lambda x: F.pad(x, (2, 1), value=0.3)[:, 1:-2],
        lambda x: sum(p * i for i, p in enumerate(x.split([3, 5, 4], 1)[0].split(1, 1), 1)) + x,
        lambda x: x[:, ::2].repeat(1, 2), lambda x: x + x.sum(0)[None],
        lambda x: x.tril() + 0.2 * x,
        lambda x: x.unsqueeze(0).squeeze(0) + x.amin(1, keepdim=True),
        lambda x: x + torch.logsumexp(x, 1, keepdim=True),
        lambda x: x.gather(0, order[:, None].expand(ROWS, COLUMNS)),
    ]  # fmt: skip
    return [Step(f) for f in functions]


def _layers() -> list[Step]:
    norm = nn.BatchNorm1d(COLUMNS)
    norm.get_buffer("running_mean").normal_()
    norm.get_buffer("running_var").uniform_(0.5, 2)
    return [
        Step(lambda x, f: f(x), nn.Linear(COLUMNS, COLUMNS)),
        Step(lambda x, f: f(x[:, None]).mean(1), nn.Conv1d(1, 3, 3, padding=1)),
        Step(
            lambda x, f: f(x.reshape(1, ROWS, 3, 4)).reshape(ROWS, COLUMNS),
            nn.Conv2d(ROWS, ROWS, 3, padding=1, groups=2),
        ),
        Step(lambda x, f: f(x), nn.LayerNorm(COLUMNS)),
        Step(lambda x, f: f(x), norm),
        Step(lambda x: x.softmax(1) * 5),
        Step(lambda x: x @ (x.t() @ x) * 0.1),
        Step(lambda x: F.max_pool2d(x[None, None], 3, 1, padding=1)[0, 0] + x),
        Step(lambda x: F.avg_pool2d(x[None, None], 3, 1, padding=1)[0, 0]),
        Step(lambda x, f: x + f(torch.arange(ROWS)), nn.Embedding(ROWS, COLUMNS)),
    ]


CLASSES = {"elementwise": _elementwise, "moving": _moving, "layers": _layers}


class Graph(Backbone):
    """Steps in random order, each beside what came before it, then a layer to edit."""

    task = "classification"

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps, self.last = nn.ModuleList(steps), nn.Linear(COLUMNS, 5)

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        for step in self.steps:
            x = 0.7 * x + 0.4 * step(x)  # a slope of 0 would hide what came before
        result: Tensor = self.last(x)
        return result

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("x", "float32", (ROWS, COLUMNS)),)


@dataclass
class Compared:
    """A graph, its package, random inputs and what eager PyTorch makes of them."""

    path: Path
    inputs: list[NDArray[Any]]
    expected: list[NDArray[Any]]

    def error(self) -> float:
        """The largest difference; infinite where the package cannot be run or is not finite."""
        package, worst = Package.open(self.path), 0.0
        for x, expected in zip(self.inputs, self.expected, strict=True):
            try:
                output = package.run({"x": x})["output"]
            except PackageError:
                return float("inf")
            found = float(np.abs(output - expected).max() / max(1, np.abs(expected).max()))
            worst = max(worst, found if np.isfinite(found) else float("inf"))
        return worst


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Compared]]:
    """Two graphs of each class, which between them hold every step of it once."""
    made: dict[str, list[Compared]] = {}
    for name, steps_of in CLASSES.items():
        torch.manual_seed(len(name))
        steps = steps_of()
        order = torch.randperm(len(steps)).tolist()
        for half in (order[::2], order[1::2]):
            backbone = Graph([steps[i] for i in half]).eval()
            path = tmp_path_factory.mktemp(name) / "a.mlpackage"
            convert_forward(backbone, (make_slot(backbone, "last"),), "fp32", path)
            inputs = [torch.randn(ROWS, COLUMNS) for _ in range(3)]
            with torch.no_grad():
                expected = [backbone(x).numpy() for x in inputs]
            made.setdefault(name, []).append(Compared(path, [x.numpy() for x in inputs], expected))
    return made


@pytest.mark.parametrize("name", CLASSES)
def test_a_random_graph_equals_eager(name: str, graphs: dict[str, list[Compared]]) -> None:
    for graph in graphs[name]:
        assert graph.error() <= TOLERANCE


def _altered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same operation with a small error in what it gives."""

    def alter(y: NDArray[Any]) -> NDArray[Any]:
        y = np.asarray(y)
        if y.dtype.kind == "b":
            return ~y
        return y + 1 if y.dtype.kind in "iu" else y * 1.01 + 0.01

    @functools.wraps(function)
    def planted(**arguments: Any) -> Any:
        result = function(**arguments)
        return tuple(alter(y) for y in result) if isinstance(result, tuple) else alter(result)

    return planted


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_in_any_operation_is_seen(
    name: str, graphs: dict[str, list[Compared]], monkeypatch: pytest.MonkeyPatch
) -> None:
    histograms = [operation_histogram(Package.open(g.path)) for g in graphs[name]]
    kinds = sorted(set().union(*histograms))
    assert len(kinds) >= 10
    unseen = []
    for kind in kinds:
        with monkeypatch.context() as patch:
            patch.setitem(registry._FUNCTIONS, kind, _altered(registry._FUNCTIONS[kind]))
            among = [g for g, h in zip(graphs[name], histograms, strict=True) if kind in h]
            if max(g.error() for g in among) <= TOLERANCE:
                unseen.append(kind)
    assert unseen == []


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_in_any_weight_is_seen(name: str, graphs: dict[str, list[Compared]]) -> None:
    for graph in graphs[name]:
        weights = graph.path / "Data/com.apple.CoreML/weights/weight.bin"
        original = weights.read_bytes()
        blobs = {
            operand.offset
            for o in Package.open(graph.path).program.operations
            if isinstance(operand := o.attributes.get("val"), BlobReference)
            and operand.type.dtype == "float32"
        }
        assert blobs
        for offset in sorted(blobs):
            blob = WeightFile(original).blob(offset)
            place = blob.data + 4 * int(np.random.default_rng(offset).integers(blob.size // 4))
            changed = bytearray(original)
            (weight,) = struct.unpack_from("<f", changed, place)
            struct.pack_into("<f", changed, place, weight + 0.1)
            weights.write_bytes(changed)
            assert graph.error() > TOLERANCE, f"blob at {offset}"
        weights.write_bytes(original)
