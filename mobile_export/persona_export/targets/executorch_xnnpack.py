"""ExecuTorch on the CPU through XNNPACK, with slots as trailing inputs or patched into a head.

One `.pte` with up to three methods that share their weights: `forward` takes the inputs and then
every slot tensor; `base` is the same model with baked weights, to measure against; `observe`
computes what the observation pools. XNNPACK packs fed weights on each call, which large slots make
dear: then the head is a `.pte` of its own, whose bytes hold the slots, and `forward` is the trunk.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from persona.formats.manifest import Feed as FeedEntry
from persona.formats.manifest import Head, Program, patched_head
from persona.formats.slots import Array, SlotKind
from persona.method.slots import base_tensors
from persona_export.executorch_methods import (
    baked_method,
    fed_method,
    observe_method,
    with_feeds,
)
from persona_export.executorch_program import Lowered, Method, lower, xnnpack
from persona_export.executorch_runtime import LoadedMethod
from persona_export.feed_cost import chain, ratios
from persona_export.feeding import DenseUnpacked, FedModel, Feed, FirstHalf
from persona_export.patched import halves_reason, in_head, lower_head
from persona_export.precision import TOLERANCE
from persona_export.targets.base import (
    Executor,
    ExportError,
    Precision,
    SlotFeed,
    Source,
    Target,
    targets,
)

SMALL = 128 * 128
"""Dense slots of at most as many weights are always inputs: packing them costs next to nothing."""

AFFORDABLE = 1.03
"""Fed ÷ baked up to which large dense slots are inputs too."""


@targets.register("executorch-xnnpack")
class ExecutorchXnnpack(Target):
    """ExecuTorch on Android and iOS CPUs (XNNPACK); slots are inputs, or patched into a head."""

    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
    slot_feeds: ClassVar[tuple[SlotFeed, ...]] = ("inputs", "patched")
    run_in_cpp = True

    def export(self, source: Source, precision: Precision, bundle: Path) -> Program:
        folder = bundle / "executorch"
        suffix = "" if precision == "fp32" else f"-{precision}"
        return _Export(source, precision, folder, suffix).chosen()

    def executor(self, bundle: Path, program: Program) -> Executor:
        method = LoadedMethod(bundle / program.path, program.method)
        fed = [feed for feed in program.feeds if feed.patch is None]
        feeds = sorted(fed, key=lambda feed: feed.index or 0)
        if program.head is None:

            def run(inputs: Mapping[str, NDArray[Any]], slots: Mapping[str, Array]) -> Array:
                ordered = [*inputs.values(), *(slots[feed.tensor] for feed in feeds)]
                return method(ordered)[0]

            return run
        head, file = program.head, (bundle / program.head.path).read_bytes()

        def run_in_two(inputs: Mapping[str, NDArray[Any]], slots: Mapping[str, Array]) -> Array:
            hidden = method([*inputs.values(), *(slots[feed.tensor] for feed in feeds)])
            return LoadedMethod(patched_head(file, program, slots), head.method)(hidden)[0]

        return run_in_two

    def features(
        self, bundle: Path, program: Program
    ) -> Callable[[Mapping[str, NDArray[Any]]], tuple[Array, Array]]:
        assert program.observe_path is not None
        assert program.observe_method is not None
        method = LoadedMethod(bundle / program.observe_path, program.observe_method)

        def run(inputs: Mapping[str, NDArray[Any]]) -> tuple[Array, Array]:
            features, posterior = method(list(inputs.values()))
            return features, posterior

        return run


class _Export:
    """One program being written, in one or both ways of feeding its slots."""

    def __init__(self, source: Source, precision: Precision, folder: Path, suffix: str) -> None:
        self.source, self.precision = source, precision
        self.folder, self.suffix = folder, suffix
        slots = source.slots
        self.extra = {"base": baked_method(source.backbone, slots)}
        if source.pooled:
            self.extra["observe"] = observe_method(source.backbone, slots)

    def chosen(self) -> Program:
        """The program with the feed that was asked for, or else the cheapest that is simple."""
        feed, reason = self.source.slot_feed, "as asked for"
        sizes = {s.name: s.out * s.in_ for s in self.source.slots if s.kind is SlotKind.DENSE}
        large = [name for name, size in sizes.items() if size > SMALL]
        cannot = halves_reason(self.source.backbone, self.source.slots)
        if feed == "auto" and not large:
            feed, reason = "inputs", f"no dense slot has more than {SMALL} weights"
        elif feed == "auto" and cannot is not None:
            feed, reason = "inputs", cannot
        elif feed == "patched" and cannot is not None:
            raise ExportError(f"executorch-xnnpack cannot patch these slots: {cannot}")
        if feed == "inputs":
            return self._write(*self._as_inputs(), None, feed, reason, {})
        if feed == "patched":
            return self._write(*self._patched(), feed, reason, {})
        return self._cheaper(large)

    def _cheaper(self, large: list[str]) -> Program:
        fed, feeds = self._as_inputs()
        trunk, patches, head = self._patched()
        base = base_tensors(self.source.backbone, self.source.slots)
        inputs = list(self.source.backbone.example_inputs())
        values = [base[feed.tensor] for feed in feeds]
        trunk_values = [base[feed.tensor] for feed in patches if feed.patch is None]
        measured = ratios(
            chain([LoadedMethod(fed.program, "base")], inputs),
            {
                "inputs": chain([LoadedMethod(fed.program, "forward")], inputs + values),
                "patched": chain(
                    [LoadedMethod(trunk.program, "forward"), LoadedMethod(head.program, "forward")],
                    inputs + trunk_values,
                ),
            },
        )
        which = f"{', '.join(large)} has more than {SMALL} weights"
        if measured["inputs"] <= max(AFFORDABLE, measured["patched"]):
            return self._write(fed, feeds, None, "inputs", f"{which}, yet inputs cost little",
                               measured)  # fmt: skip
        return self._write(trunk, patches, head, "patched", f"{which}, and as inputs it costs more",
                           measured)  # fmt: skip

    def _as_inputs(self) -> tuple[Lowered, tuple[FeedEntry, ...]]:
        forward, feeds = fed_method(self.source, DenseUnpacked)
        return self._lower({"forward": forward, **self.extra}), feeds

    def _patched(self) -> tuple[Lowered, tuple[FeedEntry, ...], Lowered]:
        backbone = self.source.backbone
        outer = tuple(slot for slot in self.source.slots if not in_head(slot))
        inner = tuple(slot for slot in self.source.slots if in_head(slot))
        inputs = len(backbone.input_specs())
        forward, feeds = with_feeds(
            backbone, FedModel(FirstHalf(backbone), outer, Feed.EFFECTIVE, inputs, DenseUnpacked)
        )
        trunk = self._lower({"forward": forward, **self.extra})
        head, patches = lower_head(backbone, inner)
        shapes = {f"{s.name}.{x}": shape for s in inner for x, shape in s.feeds().items()}
        feeds += tuple(
            FeedEntry(name, None, None, "effective", shapes[name], patch)
            for name, patch in patches.items()
        )
        return trunk, feeds, head

    def _lower(self, methods: Mapping[str, Method]) -> Lowered:
        fresh = {
            name: replace(method, module=copy.deepcopy(method.module))
            for name, method in methods.items()
        }
        return lower(fresh, xnnpack, "XNNPACK", self.precision)

    def _write(
        self,
        lowered: Lowered,
        feeds: tuple[FeedEntry, ...],
        head: Lowered | None,
        feed: SlotFeed,
        reason: str,
        measured: dict[str, float],
    ) -> Program:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"xnnpack{self.suffix}.pte"
        path.write_bytes(lowered.program)
        delegation = dict(lowered.delegation)
        second = None
        if head is not None:
            place = self.folder / f"xnnpack{self.suffix}-head.pte"
            place.write_bytes(head.program)
            second = Head(f"executorch/{place.name}", "forward")
            delegation["head"] = head.delegation["forward"]
        observed = self.source.pooled
        return Program(
            target="executorch-xnnpack",
            precision=self.precision,
            path=f"executorch/{path.name}",
            method="forward",
            observe_path=f"executorch/{path.name}" if observed else None,
            observe_method="observe" if observed else None,
            feeds=feeds,
            tolerance=TOLERANCE[self.precision],
            verified="executed",
            delegation=delegation,
            head=second,
            slot_feed={"chosen": feed, "why": reason}
            | ({"ratio_to_baked": measured} if measured else {}),
        )
