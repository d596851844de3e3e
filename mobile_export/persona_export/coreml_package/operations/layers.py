"""Operations with weights or windows: linear, convolution, pooling, normalisation, softmax."""

import numpy as np

from persona_export.coreml_package.operations.registry import Array, axes_of, operation

Padding = list[tuple[int, int]]


@operation("linear")
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    product: Array = x @ weight.T
    return product if bias is None else product + bias


@operation("matmul")
def matmul(x: Array, y: Array, transpose_x: bool = False, transpose_y: bool = False) -> Array:
    left = np.swapaxes(x, -1, -2) if transpose_x else x
    right = np.swapaxes(y, -1, -2) if transpose_y else y
    product: Array = left @ right
    return product


@operation("einsum")
def einsum(values: list[Array], equation: str) -> Array:
    product: Array = np.einsum(equation, *values)
    return product


@operation("softmax")
def softmax(x: Array, axis: int = -1) -> Array:
    raised = np.exp(x - np.max(x, int(axis), keepdims=True))
    return raised / np.sum(raised, int(axis), keepdims=True)


@operation("layer_norm")
def layer_norm(
    x: Array,
    axes: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: float = 1e-5,
) -> Array:
    over = axes_of(axes)
    mean, variance = np.mean(x, over, keepdims=True), np.var(x, over, keepdims=True)
    normal = (x - mean) / np.sqrt(variance + epsilon)
    if gamma is not None:
        normal = normal * gamma
    return normal if beta is None else normal + beta


@operation("batch_norm")
def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: float = 1e-5,
) -> Array:
    across = (-1, *[1] * (x.ndim - 2))
    normal = (x - mean.reshape(across)) / np.sqrt(variance.reshape(across) + epsilon)
    if gamma is not None:
        normal = normal * gamma.reshape(across)
    return normal if beta is None else normal + beta.reshape(across)


@operation("instance_norm")
def instance_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: float = 1e-5
) -> Array:
    over = tuple(range(2, x.ndim))
    across = (-1, *[1] * (x.ndim - 2))
    normal = (x - np.mean(x, over, keepdims=True)) / np.sqrt(
        np.var(x, over, keepdims=True) + epsilon
    )
    if gamma is not None:
        normal = normal * gamma.reshape(across)
    return normal if beta is None else normal + beta.reshape(across)


@operation("conv")
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: int = 1,
) -> Array:
    """Cross-correlation of x [n, c, *d] with weight [out, c / groups, *k] in one to three axes."""
    kernel = weight.shape[2:]
    rank = len(kernel)
    step = axes_of(strides) or (1,) * rank
    spread = axes_of(dilations) or (1,) * rank
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, spread, strict=True))
    padding = _padding(x.shape[2:], reach, step, pad_type, pad)
    windows = _windows(np.pad(x, [(0, 0), (0, 0), *padding]), reach, step)
    windows = windows[(*[slice(None)] * x.ndim, *(slice(None, None, d) for d in spread))]
    n, channels, *rest = windows.shape
    outputs, out = rest[:rank], weight.shape[0]
    per_group, groups = channels // int(groups), int(groups)
    # [n, g, c/g, *d, *k] -> [n, g, *d, c/g · k], one matrix product a group
    patches = windows.reshape(n, groups, per_group, *outputs, -1)
    patches = np.moveaxis(patches, 2, -2).reshape(n, groups, int(np.prod(outputs)), -1)
    kernels = weight.reshape(groups, out // groups, -1).swapaxes(-1, -2)
    result = (patches @ kernels).swapaxes(-1, -2).reshape(n, out, *outputs)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


@operation("max_pool")
def max_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    ceil_mode: bool = False,
) -> Array:
    windows = _pooled_windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode, -np.inf)
    return np.max(windows, tuple(range(x.ndim, windows.ndim)))


@operation("avg_pool")
def avg_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Array:
    arguments = (kernel_sizes, strides, pad_type, pad, ceil_mode, 0.0)
    windows = _pooled_windows(x, *arguments)
    over = tuple(range(x.ndim, windows.ndim))
    if not exclude_padding_from_average:
        return np.mean(windows, over)
    counted = _pooled_windows(np.ones_like(x), *arguments)
    return np.sum(windows, over) / np.sum(counted, over)


def _pooled_windows(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None,
    pad_type: str,
    pad: Array | None,
    ceil_mode: bool,
    value: float,
) -> Array:
    if ceil_mode:
        raise ValueError("ceil_mode is not computed here")
    kernel = axes_of(kernel_sizes) or ()
    step = axes_of(strides) or (1,) * len(kernel)
    padding = _padding(x.shape[2:], kernel, step, pad_type, pad)
    return _windows(np.pad(x, [(0, 0), (0, 0), *padding], constant_values=value), kernel, step)


def _windows(x: Array, reach: tuple[int, ...], step: tuple[int, ...]) -> Array:
    """[n, c, *d] -> [n, c, *places, *reach]."""
    axes = tuple(range(2, x.ndim))
    windows: Array = np.lib.stride_tricks.sliding_window_view(x, reach, axes)  # type: ignore[call-overload]
    return windows[(slice(None), slice(None), *(slice(None, None, s) for s in step))]


def _padding(
    sizes: tuple[int, ...],
    reach: tuple[int, ...],
    step: tuple[int, ...],
    pad_type: str,
    pad: Array | None,
) -> Padding:
    match pad_type:
        case "valid":
            return [(0, 0)] * len(sizes)
        case "custom":
            assert pad is not None
            return [(int(before), int(after)) for before, after in np.reshape(pad, (-1, 2))]
        case "same" | "same_lower":
            padding = []
            for size, width, stride in zip(sizes, reach, step, strict=True):
                total = max((-(-size // stride) - 1) * stride + width - size, 0)
                less, more = total // 2, total - total // 2
                padding.append((less, more) if pad_type == "same" else (more, less))
            return padding
        case _:
            raise ValueError(f"unknown pad_type {pad_type!r}")
