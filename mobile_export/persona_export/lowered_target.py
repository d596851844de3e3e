"""Targets whose programs nothing on this machine executes: slots as inputs of one delegate.

Proof is what can be had: the graphs that went into the delegates, run by PyTorch right after
lowering, must give what the model gives. The manifest then says `lowered`, not `executed`.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from persona.formats.manifest import Program
from persona.formats.slots import Array
from persona_export.executorch_methods import fed_method, observe_method
from persona_export.executorch_program import Lowered, Method, lower
from persona_export.targets.base import Executor, NotRunnableError, Precision, Source, Target


class LoweredTarget(Target):
    """An ExecuTorch delegate without a runtime here."""

    name: ClassVar[str]
    backend: ClassVar[str]
    tolerance: ClassVar[dict[Precision, float]]
    """For devices: what arithmetic in this precision is granted, relative to max(1, largest)."""

    def __init__(self) -> None:
        self._graphs: dict[str, Callable[..., Any]] = {}
        self._lowered: Path | None = None

    @abstractmethod
    def lower(self, methods: Mapping[str, Method], precision: Precision) -> Lowered:
        """Lower the methods to this delegate. Raises ExportError where that cannot be."""

    def export(self, source: Source, precision: Precision, bundle: Path) -> Program:
        forward, feeds = fed_method(source)
        methods = {"forward": forward}
        if source.pooled:
            methods["observe"] = observe_method(source.backbone, source.slots)
        lowered = self.lower(methods, precision)
        path = f"executorch/{self.name.removeprefix('executorch-')}-{precision}.pte"
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_bytes(lowered.program)
        self._graphs, self._lowered = lowered.graphs, bundle / path
        return Program(
            target=self.name,
            precision=precision,
            path=path,
            method="forward",
            observe_path=path if source.pooled else None,
            observe_method="observe" if source.pooled else None,
            feeds=feeds,
            tolerance=self.tolerance[precision],
            verified="lowered",
            delegation=lowered.delegation,
            slot_feed={"chosen": "inputs", "why": "the only way that this target has"},
        )

    def executor(self, bundle: Path, program: Program) -> Executor:
        graph = self._graph(bundle, program, program.method)
        feeds = sorted(program.feeds, key=lambda feed: feed.index or 0)

        def run(inputs: Mapping[str, NDArray[Any]], slots: Mapping[str, Array]) -> Array:
            output: Array = graph(
                *(torch.tensor(x) for x in inputs.values()),
                *(torch.tensor(slots[feed.tensor]) for feed in feeds),
            ).numpy()
            return output

        return run

    def features(
        self, bundle: Path, program: Program
    ) -> Callable[[Mapping[str, NDArray[Any]]], tuple[Array, Array]]:
        assert program.observe_method is not None
        graph = self._graph(bundle, program, program.observe_method)

        def run(inputs: Mapping[str, NDArray[Any]]) -> tuple[Array, Array]:
            features, posterior = graph(*(torch.tensor(x) for x in inputs.values()))
            return features.numpy(), posterior.numpy()

        return run

    def _graph(self, bundle: Path, program: Program, method: str) -> Callable[..., Any]:
        if self._lowered != bundle / program.path:
            raise NotRunnableError(
                f"no runtime on this machine executes {self.name} programs; the graph that went "
                "into it was compared with PyTorch when it was exported"
            )
        graph = self._graphs[method]

        def run(*arguments: torch.Tensor) -> Any:
            with torch.no_grad():
                return graph(*arguments)

        return run


class PartitionedTarget(LoweredTarget):
    """A delegate that takes its part of the graph through a partitioner."""

    @abstractmethod
    def partitioner(self, precision: Precision) -> Any:
        """A partitioner of this delegate."""

    def lower(self, methods: Mapping[str, Method], precision: Precision) -> Lowered:
        """Lower the methods; in fp16 the graph stays in binary32 and the delegate narrows it."""
        within: Precision = "int8" if precision == "int8" else "fp32"
        return lower(methods, lambda: self.partitioner(precision), self.backend, within)
