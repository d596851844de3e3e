"""Core ML partitioning with the sizes that a model declares.

PyTorch's decompositions raise the smallest size of a free axis from 1 to 2, for an axis of 1 might
broadcast; the package would then refuse a single candidate. The declared size is put back, and the
interpreted package is compared with PyTorch at it.
"""

from collections.abc import Sequence
from typing import Any

import coremltools as ct
from executorch.backends.apple.coreml.compiler import CoreMLBackend, coreml_preprocess
from executorch.backends.apple.coreml.partition import CoreMLPartitioner
from torch.export import ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from persona_export.coreml_int8 import SMALLEST
from persona_export.targets.base import Precision


class _DeclaredSizes(CoreMLPartitioner):
    """Free axes may be as small as `smallest`."""

    def __init__(self, smallest: int, compile_specs: Sequence[Any]) -> None:
        super().__init__(compile_specs=list(compile_specs))
        self.smallest = smallest

    def partition(self, exported_program: ExportedProgram) -> Any:
        ranges = exported_program.range_constraints
        for symbol, limits in ranges.items():
            if limits.lower == 2 and self.smallest < 2:
                ranges[symbol] = ValueRanges(self.smallest, limits.upper)
        return super().partition(exported_program)


def coreml_partitioner(precision: Precision, ios: int, smallest: int) -> CoreMLPartitioner:
    """A partitioner for packages that load from iOS version `ios`.

    smallest: the least size of any free axis. int8 packs weights, but not tables that are gathered
    from: ExecuTorch leaves those as they are.
    """
    packed = {
        "mode": "linear_symmetric",
        "dtype": "int8",
        "granularity": "per_channel",
        "weight_threshold": SMALLEST,
    }
    specs = CoreMLBackend.generate_compile_specs(
        compute_precision=ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16,
        minimum_deployment_target=getattr(ct.target, f"iOS{ios}"),
        op_linear_quantizer_config=packed if precision == "int8" else None,
    )
    # A package that methods share needs iOS 18, whatever deployment target was asked for.
    apart = coreml_preprocess.MULTIMETHOD_WEIGHT_SHARING_STRATEGY.DISABLED
    specs.append(CoreMLBackend.generate_multimethod_weight_sharing_strategy_compile_spec(apart))
    return _DeclaredSizes(smallest, specs)
