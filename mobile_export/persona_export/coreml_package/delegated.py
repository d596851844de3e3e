"""The packages inside an ExecuTorch program: what its Core ML delegate loads, and is called with.

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
from persona_export.coreml_package.checks import (
    Precision,
    check_operations,
    check_structure,
    minimum_ios,
)
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


class DelegatedPart:
    """One call of the Core ML delegate in a program's method, and the package in it.

    inputs, outputs: the package's names, in the order of the call's arguments.
    tensors: dtype and largest shape of each in the program, by the package's names.
    Raises PackageError when it calls another delegate, or its package cannot be read.
    """

    def __init__(self, method: "_Method", call: Any) -> None:
        delegate, arguments = method.plan.delegates[call.delegate_index], list(call.args)
        content = _package_of(method, delegate)
        self._folder = tempfile.TemporaryDirectory(prefix="delegated-")
        self.folder = Path(self._folder.name) / _ROOT
        metadata = _unpacked(content, self.folder)
        taken, given = metadata["inputNames"], metadata["outputNames"]
        if len(arguments) != len(taken) + len(given):
            raise PackageError(
                f"the delegate of method {method.name!r} gets {len(arguments)} arguments, its "
                f"metadata names {len(taken)} inputs and {len(given)} outputs"
            )
        self.package = Package.open(self.path)
        self.compile_specs = {spec.key: bytes(spec.value) for spec in delegate.compile_specs}
        self.inputs, self.outputs = tuple(taken), tuple(given)
        self.by_argument = dict(zip(arguments, [*taken, *given], strict=True))
        self.tensors = {name: method.tensor(i) for i, name in self.by_argument.items()}

    @property
    def path(self) -> Path:
        """The package on disk, for as long as this object lives."""
        return self.folder / "model.mlpackage"


class DelegatedMethod(DelegatedPart):
    """A method that is one call of the Core ML delegate, and so can be run by its package alone.

    inputs, outputs: the package's names, in the order of the method's own inputs and outputs.
    Raises PackageError when the method is anything else, or its package cannot be read.
    """

    def __init__(self, program: bytes, method: str) -> None:
        read = _Method(program, method)
        if len(read.instructions) != 1 or len(read.calls) != 1:
            raise PackageError(
                f"method {method!r} is {len(read.instructions)} instructions, expected one call "
                "of a delegate"
            )
        super().__init__(read, read.calls[0])
        plan = read.plan
        lost = [i for i in (*plan.inputs, *plan.outputs) if i not in self.by_argument]
        if lost:
            raise PackageError(f"values {lost} of method {method!r} do not reach its delegate")
        self.inputs = tuple(self.by_argument[i] for i in plan.inputs)
        self.outputs = tuple(self.by_argument[i] for i in plan.outputs)

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The method's outputs for its inputs, in its own order."""
        given = zip(self.inputs, arrays, strict=True)
        narrow = {n: a.astype(_NARROWED.get(a.dtype.name, a.dtype)) for n, a in given}
        outputs = self.package.run(narrow)
        return [outputs[name].astype(self.tensors[name][0]) for name in self.outputs]


def delegated_parts(program: bytes, method: str) -> list[DelegatedPart]:
    """Every call of the Core ML delegate in a method, in the order of execution.

    Raises PackageError where one cannot be read, or the program has no such method.
    """
    read = _Method(program, method)
    return [DelegatedPart(read, call) for call in read.calls]


class _Method:
    """A method of a program, as it is stored.

    calls: those of its instructions that call a delegate.
    Raises PackageError when the bytes are no program, or it has no such method.
    """

    def __init__(self, program: bytes, name: str) -> None:
        with quietly():
            from executorch.exir._serialize._program import deserialize_pte_binary
        if program[4:6] != b"ET":
            raise PackageError("this is no ExecuTorch program: bytes 4 and 5 are not 'ET'")
        try:
            read = deserialize_pte_binary(program).program
        except Exception as error:
            raise PackageError(f"this ExecuTorch program cannot be read: {error!r}") from error
        plan = next((p for p in read.execution_plan if p.name == name), None)
        if plan is None:
            names = ", ".join(p.name for p in read.execution_plan)
            raise PackageError(f"the program has no method {name!r}; it has {names}")
        self.name, self.plan, self.data = name, plan, read.backend_delegate_data
        self.instructions = [i.instr_args for chain in plan.chains for i in chain.instructions]
        self.calls = [i for i in self.instructions if type(i).__name__ == "DelegateCall"]

    def tensor(self, index: int) -> tuple[str, tuple[int, ...]]:
        """Dtype and largest shape of a value. Raises PackageError where it is no tensor."""
        value = self.plan.values[index].val
        if type(value).__name__ != "Tensor":
            raise PackageError(
                f"the delegate of method {self.name!r} gets a {type(value).__name__}, expected "
                "tensors only: Core ML takes nothing else"
            )
        return _dtype(value), tuple(value.sizes)


def _package_of(method: _Method, delegate: Any) -> bytes:
    """The package that a delegate loads, as a folder laid flat."""
    if delegate.id != BACKEND:
        raise PackageError(f"method {method.name!r} calls {delegate.id}, expected {BACKEND}")
    content = bytes(method.data[delegate.processed.index].data)
    if content.startswith(_SHARED):
        raise PackageError(
            f"the package of method {method.name!r} is shared by several methods, which needs "
            "iOS 18"
        )
    return content


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
    """Faults of a method's package and of how it is called; an empty list means none."""
    return check_part(method, ios, precision) + check_operations(method.package)


def check_part(part: DelegatedPart, ios: int, precision: Precision) -> list[str]:
    """The same of a part of a method, which is not interpreted: its operations may be unknown."""
    findings = check_structure(part.path, part.package, ios, precision, _DEBUGGING)
    strays = sorted({file.name for file in part.folder.iterdir()} - _FILES)
    findings += [f"{name} is in the delegate and not of it" for name in strays]
    program = part.package.program
    for role, names, features, casts in (
        ("inputs", part.inputs, program.inputs, _NARROWED),
        ("outputs", part.outputs, program.outputs, _WIDENED),
    ):
        described = {feature.name: feature for feature in features}
        if sorted(names) != sorted(described):
            findings.append(f"metadata names {role} {list(names)}, the package {list(described)}")
        for name in [name for name in names if name in described]:
            feature, (dtype, shape) = described[name], part.tensors[name]
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
    target = part.compile_specs.get("min_deployment_target", b"").decode()
    if target != str(program.specification_version):
        findings.append(
            f"the delegate was compiled for specification {target!r}, its package has "
            f"{program.specification_version} (iOS {minimum_ios(part.package)})"
        )
    return findings
