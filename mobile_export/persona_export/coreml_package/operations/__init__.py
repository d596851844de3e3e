"""What each MIL operation computes, in NumPy, by the operation's name."""

from persona_export.coreml_package.operations import elementwise, layers, packed, tensors
from persona_export.coreml_package.operations.registry import call, known

__all__ = ["call", "elementwise", "known", "layers", "packed", "tensors"]
