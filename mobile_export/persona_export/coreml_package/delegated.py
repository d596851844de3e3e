"""The package inside an ExecuTorch program: what its Core ML delegate loads, and how it is called.

A delegate's bytes are a folder laid flat: `model.mlpackage`; `metadata.json`, which names the
package's inputs and outputs in the order of the delegate's arguments; and `debug_info.json`.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from persona.quiet import quietly
from persona_export.coreml_package.checks import Precision, check_package, minimum_ios
from persona_export.coreml_package.errors import PackageError
from persona_export.coreml_package.interpreter import Package

BACKEND = "CoreMLBackend"
_ROOT = "lowered_module"
_FILES = {"metadata.json", "debug_info.json", "model.mlpackage"}
_DEBUGGING = ("executorch_debug_handle_mapping.json",)
_SHARED = b"CMJR"
_NARROWED = {"int64": "int32", "float64": "float32"}
"""What ExecuTorch's delegate casts on the way in: Core ML has no 64-bit arrays."""
_WIDENED = {"float16": "float32"}
"""What it casts on the way out: the result of a package that computes in binary16."""


class DelegatedMethod:
    """One method of a program that is one call of the Core ML delegate, and the package in it.

    inputs, outputs: the package's names, in the order of the method's own inputs and outputs.
    Raises PackageError when the method is anything else, or its package cannot be read.
    """

    def __init__(self, program: bytes, method: str) -> None:
        plan, delegate, arguments, content = _delegate_call(program, method)
        self._folder = tempfile.TemporaryDirectory(prefix="delegated-")
        self.folder = Path(self._folder.name) / _ROOT
        metadata = _unpacked(content, self.folder)
        taken, given = metadata["inputNames"], metadata["outputNames"]
        if len(arguments) != len(taken) + len(given):
            raise PackageError(
                f"the delegate of method {method!r} gets {len(arguments)} arguments, its metadata "
                f"names {len(taken)} inputs and {len(given)} outputs"
            )
        self.package = Package.open(self.path)
        self.compile_specs = {spec.key: bytes(spec.value) for spec in delegate.compile_specs}
        by_argument = dict(zip(arguments, [*taken, *given], strict=True))
        lost = [i for i in (*plan.inputs, *plan.outputs) if i not in by_argument]
        if lost:
            raise PackageError(f"values {lost} of method {method!r} do not reach its delegate")
        self.inputs = tuple(by_argument[i] for i in plan.inputs)
        self.outputs = tuple(by_argument[i] for i in plan.outputs)
        tensors = {by_argument[i]: plan.values[i].val for i in by_argument}
        self.tensors = {name: (_dtype(t), tuple(t.sizes)) for name, t in tensors.items()}

    @property
    def path(self) -> Path:
        """The package on disk, for as long as this object lives."""
        return self.folder / "model.mlpackage"

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The method's outputs for its inputs, in its own order."""
        given = zip(self.inputs, arrays, strict=True)
        narrow = {n: a.astype(_NARROWED.get(a.dtype.name, a.dtype)) for n, a in given}
        outputs = self.package.run(narrow)
        return [outputs[name].astype(self.tensors[name][0]) for name in self.outputs]


def _delegate_call(program: bytes, method: str) -> tuple[Any, Any, list[int], bytes]:
    """The method's plan, its one delegate, the values that this gets, and the delegate's bytes."""
    with quietly():
        from executorch.exir._serialize._program import deserialize_pte_binary
    if program[4:6] != b"ET":
        raise PackageError("this is no ExecuTorch program: bytes 4 and 5 are not 'ET'")
    try:
        read = deserialize_pte_binary(program).program
    except Exception as error:
        raise PackageError(f"this ExecuTorch program cannot be read: {error!r}") from error
    plan = next((p for p in read.execution_plan if p.name == method), None)
    if plan is None:
        names = ", ".join(p.name for p in read.execution_plan)
        raise PackageError(f"the program has no method {method!r}; it has {names}")
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    if len(calls) != 1 or type(calls[0]).__name__ != "DelegateCall":
        raise PackageError(
            f"method {method!r} is {len(calls)} instructions, expected one call of a delegate"
        )
    delegate = plan.delegates[calls[0].delegate_index]
    if delegate.id != BACKEND:
        raise PackageError(f"method {method!r} calls {delegate.id}, expected {BACKEND}")
    content = bytes(read.backend_delegate_data[delegate.processed.index].data)
    if content.startswith(_SHARED):
        raise PackageError(
            f"the package of method {method!r} is shared by several methods, which needs iOS 18"
        )
    return plan, delegate, list(calls[0].args), content


def _unpacked(content: bytes, folder: Path) -> dict[str, list[str]]:
    from executorch.backends.apple.coreml import executorchcoreml

    if not executorchcoreml.unflatten_directory_contents(content, str(folder.parent)):
        raise PackageError("the delegate's bytes are not a folder laid flat")
    try:
        metadata = json.loads((folder / "metadata.json").read_text("utf-8"))
        return {key: [str(n) for n in metadata[key]] for key in ("inputNames", "outputNames")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PackageError(f"the delegate's metadata.json is not understood: {error!r}") from error


def _dtype(tensor: Any) -> str:
    names = {"FLOAT": "float32", "HALF": "float16", "LONG": "int64", "INT": "int32"}
    return names.get(tensor.scalar_type.name, tensor.scalar_type.name.lower())


def check_delegated(method: DelegatedMethod, ios: int, precision: Precision) -> list[str]:
    """Faults of the package and of how the program calls it; an empty list means none."""
    findings = check_package(method.path, ios, precision, _DEBUGGING)
    strays = sorted({file.name for file in method.folder.iterdir()} - _FILES)
    findings += [f"{name} is in the delegate and not of it" for name in strays]
    program = method.package.program
    for role, names, features, casts in (
        ("inputs", method.inputs, program.inputs, _NARROWED),
        ("outputs", method.outputs, program.outputs, _WIDENED),
    ):
        described = {feature.name: feature for feature in features}
        if sorted(names) != sorted(described):
            findings.append(f"metadata names {role} {list(names)}, the package {list(described)}")
        for name in [name for name in names if name in described]:
            feature, (dtype, shape) = described[name], method.tensors[name]
            # The description of an output with an open shape names no shape at all.
            largest = tuple(high for _, high in feature.limits)
            given, taken = (dtype, feature.type.dtype)
            if role == "outputs":
                given, taken = taken, given
            if casts.get(given, given) != taken or largest not in ((), shape):
                findings.append(
                    f"{name!r} is {dtype}{list(shape)} in the program and {feature.type} "
                    "in its package"
                )
    target = method.compile_specs.get("min_deployment_target", b"").decode()
    if target != str(program.specification_version):
        findings.append(
            f"the delegate was compiled for specification {target!r}, its package has "
            f"{program.specification_version} (iOS {minimum_ios(method.package)})"
        )
    return findings
