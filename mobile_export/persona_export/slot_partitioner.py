"""XNNPACK partitioning that keeps matrix products with fed weights inside the delegate.

The stock partitioner takes only constant weights; a product whose weight is an input would fall to
a portable kernel, many times slower, without a word. These three configurations accept such
weights. They override private hooks of executorch 1.5.1: the version is pinned, and
`tests/mobile_export/test_executorch_xnnpack.py` fails when the hooks move.
"""

from typing import Any

from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
from executorch.backends.xnnpack.partition.config.gemm_configs import (
    AddmmConfig,
    LinearConfig,
    MMConfig,
)
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.utils.utils import get_input_node, is_param_node
from torch.export import ExportedProgram
from torch.fx import Node

Deps = tuple[bool, list[Node]]


class _FedWeights:
    """Weight and bias may come from outside; then they are no part of the partition."""

    weight_idx: int
    bias_idx: int | None

    def _is_fed(self, node: Node, index: int | None, ep: ExportedProgram) -> bool:
        return index is not None and not is_param_node(ep, get_input_node(node, index))

    def _get_weight_deps(self, node: Node, ep: ExportedProgram, precision: Any) -> Deps:
        if precision == ConfigPrecisionType.FP32 and self._is_fed(node, self.weight_idx, ep):
            return True, []
        deps: Deps = super()._get_weight_deps(node, ep, precision)  # type: ignore[misc]
        return deps

    def _get_bias_deps(self, node: Node, ep: ExportedProgram, precision: Any) -> Deps:
        has_bias = len(node.all_input_nodes) > 2
        fed = has_bias and self._is_fed(node, self.bias_idx, ep)
        if precision == ConfigPrecisionType.FP32 and fed:
            return True, []
        deps: Deps = super()._get_bias_deps(node, ep, precision)  # type: ignore[misc]
        return deps


class _FedLinear(_FedWeights, LinearConfig):
    pass


class _FedAddmm(_FedWeights, AddmmConfig):
    pass


class _FedMM(_FedWeights, MMConfig):
    pass


_FED: dict[type, type] = {LinearConfig: _FedLinear, AddmmConfig: _FedAddmm, MMConfig: _FedMM}


def slot_partitioner() -> XnnpackPartitioner:
    """XNNPACK's partitioner, with fed weights kept in the delegate."""
    return XnnpackPartitioner(configs=[_FED.get(c, c) for c in ALL_PARTITIONER_CONFIGS])
