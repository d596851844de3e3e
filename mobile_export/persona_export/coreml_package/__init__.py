"""An interpreter for Core ML packages: what a .mlpackage computes, told without a Mac.

It shares nothing with the converter but the file format, so agreement with eager PyTorch says
that the package on disk, and not only the graph in memory, is the model.
"""

from persona_export.coreml_package.checks import check_package
from persona_export.coreml_package.delegated import (
    DelegatedMethod,
    DelegatedPart,
    check_delegated,
    check_part,
    delegated_parts,
)
from persona_export.coreml_package.errors import PackageError, UnknownOperationError
from persona_export.coreml_package.interpreter import Package
from persona_export.coreml_package.memory import activation_bytes

__all__ = [
    "DelegatedMethod",
    "DelegatedPart",
    "Package",
    "PackageError",
    "UnknownOperationError",
    "activation_bytes",
    "check_delegated",
    "check_package",
    "check_part",
    "delegated_parts",
]
