"""Structural checks of a package: faults that a phone would only tell at load, or never.

Each `check_` function returns findings in plain words; an empty list means nothing is wrong.
"""

from collections import Counter
from collections.abc import Callable, Container
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from persona_export.coreml_package.blobs import ALIGNMENT, Blob, WeightFile
from persona_export.coreml_package.errors import PackageError
from persona_export.coreml_package.interpreter import Package
from persona_export.coreml_package.operations import known
from persona_export.coreml_package.program import (
    BlobReference,
    Feature,
    Named,
    Operation,
    model_path,
)

Precision = Literal["fp32", "fp16", "int8"]
"""int8: weights in 8 bits, arithmetic in binary16."""

_MINIMUM_IOS = {6: 15, 7: 16, 8: 17, 9: 18}
_MINIMUM_SPECIFICATION = {"float16": 7, "int8": 9}


def operation_histogram(package: Package) -> Counter[str]:
    """How often each operation occurs, constants left out."""
    return Counter(o.kind for o in package.program.operations if o.kind != "const")


def minimum_ios(package: Package) -> int:
    """The first iOS version that loads the package. Raises PackageError if it is not known."""
    version = package.program.specification_version
    if version not in _MINIMUM_IOS:
        raise PackageError(f"specification version {version}; known: {sorted(_MINIMUM_IOS)}")
    return _MINIMUM_IOS[version]


def compute_precisions(package: Package) -> dict[str, list[str]]:
    """ "float16" or "float32" -> results of that dtype, those of constants and casts left out."""
    results: dict[str, list[str]] = {}
    for operation in package.program.operations:
        for output in operation.outputs:
            if operation.kind not in ("const", "cast") and output.type.dtype.startswith("float"):
                results.setdefault(output.type.dtype, []).append(output.name)
    return results


def check_description(package: Package) -> list[str]:
    """The app's view of inputs and outputs against the program's own."""
    program = package.program
    values = {o.name: o for operation in program.operations for o in operation.outputs}
    values |= {argument.name: argument for argument in program.arguments}
    findings = []
    described = [feature.name for feature in program.inputs]
    taken = [argument.name for argument in program.arguments]
    if described != taken:
        findings.append(f"the description has inputs {described}, the program takes {taken}")
    returned = [feature.name for feature in program.outputs]
    if returned != list(program.results):
        findings.append(
            f"the description has outputs {returned}, the program gives {list(program.results)}"
        )
    for feature in program.inputs:
        findings += _differs("input", feature, values.get(feature.name))
        if feature.optional and feature.default is None:
            findings.append(f"input {feature.name!r} is optional and has no default")
    for feature in program.outputs:
        findings += _differs("output", feature, values.get(feature.name))
    for feature in (*program.inputs, *program.outputs):
        needed = _MINIMUM_SPECIFICATION.get(feature.type.dtype, 0)
        if program.specification_version < needed:
            findings.append(
                f"{feature.name!r} is {feature.type.dtype}, which needs specification {needed}, "
                f"the package has {program.specification_version}"
            )
    return findings


def _differs(role: str, feature: Feature, value: Named | None) -> list[str]:
    # The description of an output with an open shape names no shape at all.
    open_shape = role == "output" and not feature.limits
    if value is None or value.type == feature.type:
        return []
    if open_shape and value.type.dtype == feature.type.dtype and None in value.type.shape:
        return []
    return [f"{role} {feature.name!r} is described as {feature.type}, the program has {value.type}"]


def check_constants(package: Package) -> list[str]:
    """Every constant can be read and is finite, and no two share bytes."""
    findings = []
    blobs: dict[str, set[Blob]] = {}
    for operation in package.program.operations:
        for operand in (*operation.attributes.values(), *chain(*operation.inputs.values())):
            if isinstance(operand, str):
                continue
            name = _name(operation)
            try:
                value = package.constant(operand)
            except PackageError as error:
                findings.append(f"constant {name!r}: {error}")
                continue
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                bad = int(np.count_nonzero(~np.isfinite(value)))
                if bad:
                    findings.append(f"constant {name!r} has {bad} values that are not finite")
            if isinstance(operand, BlobReference):
                blob = package.weight_file(operand.file).blob(operand.offset)
                blobs.setdefault(operand.file, set()).add(blob)
    for file, read in blobs.items():
        findings += _check_layout(file, package.weight_file(file), read)
    return findings


def _check_layout(file: str, weights: WeightFile, read: set[Blob]) -> list[str]:
    ordered, count = sorted(read, key=lambda blob: blob.header), weights.count()
    findings = [
        f"{file}: blobs at {first.header} and {second.header} overlap"
        for first, second in pairwise(ordered)
        if first.end > second.header
    ]
    if count != len(read):
        findings.append(f"{file} says it has {count} blobs, the program reads {len(read)}")
    ends = [ALIGNMENT, *(blob.end for blob in ordered)]
    begins = [*(blob.header for blob in ordered), len(weights.content)]
    return findings + [
        f"{file}: {begin - end} bytes from {end} on belong to no blob that the program reads"
        for end, begin in zip(ends, begins, strict=True)
        if begin - end >= ALIGNMENT
    ]


def _name(operation: Operation) -> str:
    return operation.outputs[0].name if operation.outputs else operation.kind


def check_operations(package: Package) -> list[str]:
    """Every operation is one that the interpreter knows."""
    known_here = known() | {"const"}
    return [
        f"operation {operation.kind} ({_name(operation)!r}) is unknown to the interpreter"
        for operation in package.program.operations
        if operation.kind not in known_here
    ]


def check_order(package: Package) -> list[str]:
    """Every operation reads only what was computed before it, and nothing is computed twice."""
    program = package.program
    findings = []
    defined = {argument.name for argument in program.arguments}
    for operation in program.operations:
        name = _name(operation)
        for operand in sorted(operation.uses() - defined):
            findings.append(f"{operation.kind} {name!r} reads {operand!r}, not computed before it")
        for output in operation.outputs:
            if output.name in defined:
                findings.append(f"{output.name!r} is computed twice")
            defined.add(output.name)
    findings += [f"output {x!r} is never computed" for x in program.results if x not in defined]
    return findings


def unused_inputs(package: Package) -> list[str]:
    """Inputs that no output depends on: an edit fed to one would be silently without effect."""
    needed = set(package.program.results)
    for operation in reversed(package.program.operations):
        if any(output.name in needed for output in operation.outputs):
            needed |= operation.uses()
    return [a.name for a in package.program.arguments if a.name not in needed]


def check_deployment(package: Package, ios: int, precision: Precision) -> list[str]:
    """The package loads on iOS version `ios` and computes in `precision` throughout."""
    findings = []
    program = package.program
    try:
        needed = minimum_ios(package)
        if needed > ios:
            findings.append(f"the package needs iOS {needed}, expected to load on iOS {ios}")
    except PackageError as error:
        findings.append(str(error))
    if program.opset_version() != program.specification_version:
        findings.append(
            f"operations are of {program.opset}, the specification version is "
            f"{program.specification_version}"
        )
    expected = "float32" if precision == "fp32" else "float16"
    for dtype, results in compute_precisions(package).items():
        if dtype != expected:
            findings.append(
                f"{len(results)} results are {dtype}, expected {expected}; the first is "
                f"{results[0]!r}. A constant beyond its range, such as a mask of -1e9, does that"
            )
    return findings


def check_files(path: Path, package: Package, others: Container[str] = ()) -> list[str]:
    """The package at `path` has its manifest, its model and the weights that it reads, no more.

    others: what may be there besides, relative to the package.
    """
    weights = {
        package.weight_path(operand.file)
        for operation in package.program.operations
        for operand in (*operation.attributes.values(), *chain(*operation.inputs.values()))
        if isinstance(operand, BlobReference)
    }
    belongs = {path / "Manifest.json", model_path(path), *weights}
    found = {file for file in path.rglob("*") if not file.is_dir()}
    strays = sorted(file.relative_to(path).as_posix() for file in found - belongs)
    return [f"{name} is in the package and not of it" for name in strays if name not in others]


def check_package(
    path: Path, ios: int, precision: Precision, others: Container[str] = ()
) -> list[str]:
    """All checks on the package at `path`; a package that cannot be opened is one finding.

    others: files that may lie in it although no Core ML loader reads them.
    """
    try:
        package = Package.open(path)
    except PackageError as error:
        return [str(error)]
    return check_structure(path, package, ios, precision, others) + check_operations(package)


def check_structure(
    path: Path, package: Package, ios: int, precision: Precision, others: Container[str] = ()
) -> list[str]:
    """What can be asked of the package at `path` even if the interpreter could not run it."""
    checks: tuple[Callable[[Package], list[str]], ...] = (
        check_description,
        check_constants,
        check_order,
    )
    findings = [finding for check in checks for finding in check(package)]
    findings += [f"no output depends on input {name!r}" for name in unused_inputs(package)]
    findings += check_files(path, package, others)
    return findings + check_deployment(package, ios, precision)
