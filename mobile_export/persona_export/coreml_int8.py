"""Core ML weights in 8 bits: w ≈ s·q with q in -127..127 and one scale s a row.

Only weights: arithmetic stays in binary16. What an edit replaces or adds to stays exact: dW, db and
the factors of low-rank slots are float inputs, and the base weight of a dense slot is left in
binary16. The large base beside low-rank factors, and the layer under an affine slot, are packed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 512
"""Weights with no more elements than this stay in binary16: packing them would save nothing."""

_WEIGHTED = {"conv", "conv_transpose", "gather", "linear", "matmul"}


def pack_weights(model: Any, exact: Sequence[NDArray[Any]]) -> Any:
    """A coremltools model with the weights of its layers and its tables packed.

    exact: weights that stay as they are, told by value.
    Raises ValueError where there is no weight that could be packed.
    """
    from coremltools.optimize.coreml import (
        OpLinearQuantizerConfig,
        OptimizationConfig,
        get_weights_metadata,
        linear_quantize_weights,
    )

    per_row = OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=SMALLEST
    )
    chosen = {
        name: per_row
        for name, weight in get_weights_metadata(model, weight_threshold=SMALLEST).items()
        if weight.val.dtype.kind == "f"
        and {child.op_type for child in weight.child_ops} <= _WEIGHTED
        and not any(_same(weight.val, kept) for kept in exact)
    }
    if not chosen:
        raise ValueError(
            f"int8 found no weight of more than {SMALLEST} elements outside of dense slots; "
            "export fp16"
        )
    return linear_quantize_weights(model, OptimizationConfig(op_name_configs=chosen))


def _same(stored: NDArray[Any], weight: NDArray[Any]) -> bool:
    return np.array_equal(stored, weight.astype(stored.dtype))
