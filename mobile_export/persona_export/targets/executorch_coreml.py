"""ExecuTorch on iOS through its Core ML delegate, from iOS 17; slots are inputs of the delegate.

The package in each call of the delegate is checked, from the program's bytes. Where every method is
one call, it is interpreted too; a model with operators that Core ML does not take is verified as
lowered only, for nothing here runs those operators between the packages.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from persona.formats.manifest import Program
from persona.formats.slots import Array
from persona_export.coreml_int8 import SMALLEST
from persona_export.coreml_package.checks import minimum_ios
from persona_export.coreml_package.delegated import (
    DelegatedMethod,
    check_delegated,
    check_part,
    delegated_parts,
)
from persona_export.coreml_package.errors import PackageError
from persona_export.executorch_program import Lowered, Method, lower
from persona_export.lowered_target import PartitionedTarget
from persona_export.targets.base import Executor, ExportError, Precision, Source, targets

IOS = 17


@targets.register("executorch-coreml")
class ExecutorchCoreML(PartitionedTarget):
    """ExecuTorch on iOS CPU, GPU and Neural Engine (Core ML delegate)."""

    name = "executorch-coreml"
    backend = "Core ML"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp16", "fp32", "int8")
    tolerance: ClassVar[dict[Precision, float]] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}

    def partitioner(self, precision: Precision, smallest: int = 1) -> Any:
        from persona_export import coreml_partitioner

        return coreml_partitioner.coreml_partitioner(precision, IOS, smallest)

    def lower(self, methods: Mapping[str, Method], precision: Precision) -> Lowered:
        """The graph stays in binary32; the delegate narrows it, or packs its weights."""
        shapes = [axes for method in methods.values() for axes in method.shapes]
        smallest = min((dim.min for axes in shapes for dim in axes.values()), default=1)
        return lower(methods, lambda: self.partitioner(precision, smallest), self.backend)

    def export(self, source: Source, precision: Precision, bundle: Path) -> Program:
        program = super().export(source, precision, bundle)
        if all(m["delegates"] == 1 and not m["outside"] for m in program.delegation.values()):
            program = replace(program, verified="interpreted")
        faults = self.faults(bundle, program)
        if faults:
            raise ExportError("what the delegate loads has faults: " + "; ".join(faults))
        content = (bundle / program.path).read_bytes()
        packed = 0
        for name, method in program.delegation.items():
            packages = [part.package for part in delegated_parts(content, name)]
            operations = [o for package in packages for o in package.program.operations]
            packed += sum(o.kind.startswith("constexpr_") for o in operations)
            method["minimum_ios"] = max(map(minimum_ios, packages), default=IOS)
        if precision == "int8" and not packed:
            raise ExportError(
                f"int8 found no weight of more than {SMALLEST} elements outside of slots; "
                "export fp16"
            )
        return program

    def executor(self, bundle: Path, program: Program) -> Executor:
        if program.verified != "interpreted":
            return super().executor(bundle, program)
        method = DelegatedMethod((bundle / program.path).read_bytes(), program.method)
        feeds = sorted(program.feeds, key=lambda feed: feed.index or 0)

        def run(inputs: Mapping[str, NDArray[Any]], slots: Mapping[str, Array]) -> Array:
            (output,) = method.run([*inputs.values(), *(slots[feed.tensor] for feed in feeds)])
            return output

        return run

    def features(
        self, bundle: Path, program: Program
    ) -> Callable[[Mapping[str, NDArray[Any]]], tuple[Array, Array]]:
        if program.verified != "interpreted":
            return super().features(bundle, program)
        assert program.observe_method is not None
        method = DelegatedMethod((bundle / program.path).read_bytes(), program.observe_method)

        def run(inputs: Mapping[str, NDArray[Any]]) -> tuple[Array, Array]:
            features, posterior = method.run(list(inputs.values()))
            return features, posterior

        return run

    def faults(self, bundle: Path, program: Program) -> list[str]:
        content = (bundle / program.path).read_bytes()
        return [
            f"{program.path}, method {name!r}: {finding}"
            for name in (program.method, program.observe_method)
            if name is not None
            for finding in _faults_of_method(content, name, program)
        ]


def _faults_of_method(content: bytes, name: str, program: Program) -> list[str]:
    try:
        if program.verified == "interpreted":
            return check_delegated(DelegatedMethod(content, name), IOS, program.precision)
        parts = delegated_parts(content, name)
        findings = [
            f"part {number} of {len(parts)}: {finding}"
            for number, part in enumerate(parts, 1)
            for finding in check_part(part, IOS, program.precision)
        ]
    except PackageError as error:
        return [str(error)]
    said = program.delegation.get(name, {}).get("delegates", 0)
    if said != len(parts):
        findings.append(f"the manifest says {said} delegates, the program calls {len(parts)}")
    return findings
