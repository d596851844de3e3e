"""ExecuTorch on Android GPUs through Vulkan; slots are inputs of the delegate."""

from typing import Any, ClassVar

from persona_export.lowered_target import PartitionedTarget
from persona_export.targets.base import Precision, targets


@targets.register("executorch-vulkan")
class ExecutorchVulkan(PartitionedTarget):
    """ExecuTorch on Android GPUs (Vulkan)."""

    name = "executorch-vulkan"
    backend = "Vulkan"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp16", "fp32", "int8")
    tolerance: ClassVar[dict[Precision, float]] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}

    def partitioner(self, precision: Precision) -> Any:
        from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

        return VulkanPartitioner({"force_fp16": precision == "fp16"})
