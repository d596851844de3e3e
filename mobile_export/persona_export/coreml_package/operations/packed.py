"""Constants that a package stores in 8 bits."""

import numpy as np

from persona_export.coreml_package.operations.registry import Array, operation


@operation("constexpr_affine_dequantize")
def constexpr_affine_dequantize(
    quantized_data: Array, zero_point: Array, scale: Array, axis: int
) -> Array:
    """(quantized_data - zero_point) * scale; vectors have one element for each place on `axis`."""
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = -1

    def along(parameter: Array) -> Array:
        if parameter.size not in (1, quantized_data.shape[int(axis)]):
            raise ValueError(
                f"{parameter.size} scales or zero points for {quantized_data.shape[int(axis)]} "
                f"places on axis {int(axis)}"
            )
        return np.asarray(parameter, np.float32).reshape(shape)

    return (quantized_data.astype(np.float32) - along(zero_point)) * along(scale)
