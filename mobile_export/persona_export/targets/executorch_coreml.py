"""ExecuTorch on iOS through its Core ML delegate, from iOS 17; slots are inputs of the delegate."""

from typing import Any, ClassVar

from persona_export.lowered_target import LoweredTarget
from persona_export.targets.base import Precision, targets


@targets.register("executorch-coreml")
class ExecutorchCoreML(LoweredTarget):
    """ExecuTorch on iOS CPU, GPU and Neural Engine (Core ML delegate)."""

    name = "executorch-coreml"
    backend = "Core ML"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp16", "fp32")
    tolerance: ClassVar[dict[Precision, float]] = {"fp32": 1e-4, "fp16": 1e-2}

    def partitioner(self, precision: Precision) -> Any:
        import coremltools as ct
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner

        width = {"fp32": ct.precision.FLOAT32, "fp16": ct.precision.FLOAT16}[precision]
        return CoreMLPartitioner(
            compile_specs=CoreMLBackend.generate_compile_specs(
                compute_precision=width, minimum_deployment_target=ct.target.iOS17
            )
        )
