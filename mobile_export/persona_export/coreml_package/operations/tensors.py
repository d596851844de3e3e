"""Operations that move, make, pick or reduce elements."""

from collections.abc import Callable

import numpy as np

from persona_export.coreml_package.operations.registry import Array, axes_of, operation

_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "reduce_max": np.max,
    "reduce_mean": np.mean,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_sum": np.sum,
    "reduce_l2_norm": lambda x, **kw: np.sqrt(np.sum(np.square(x), **kw)),
    "reduce_log_sum_exp": lambda x, **kw: np.logaddexp.reduce(x, **kw),
    "reduce_sum_square": lambda x, **kw: np.sum(np.square(x), **kw),
}


def _reduction(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(x: Array, axes: Array | None = None, keep_dims: bool = False) -> Array:
        return function(x, axis=axes_of(axes), keepdims=bool(keep_dims))

    return reduce


for _name, _function in _REDUCTIONS.items():
    operation(_name)(_reduction(_function))


@operation("reduce_argmax")
def reduce_argmax(x: Array, axis: int = -1, keep_dims: bool = False) -> Array:
    return np.argmax(x, axis=int(axis), keepdims=bool(keep_dims))


@operation("reduce_argmin")
def reduce_argmin(x: Array, axis: int = -1, keep_dims: bool = False) -> Array:
    return np.argmin(x, axis=int(axis), keepdims=bool(keep_dims))


@operation("cumsum")
def cumsum(x: Array, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Array:
    axis = int(axis)
    ordered = np.flip(x, axis) if reverse else x
    total = np.cumsum(ordered, axis)
    if exclusive:
        total = total - ordered
    return np.flip(total, axis) if reverse else total


@operation("reshape")
def reshape(x: Array, shape: Array) -> Array:
    """A size of -1 is what is left over; 0 keeps the input's size on that axis."""
    sizes = [x.shape[axis] if size == 0 else int(size) for axis, size in enumerate(shape)]
    return x.reshape(sizes)


@operation("transpose")
def transpose(x: Array, perm: Array) -> Array:
    return np.transpose(x, axes_of(perm))


@operation("expand_dims")
def expand_dims(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, axes_of(axes) or ())


@operation("squeeze")
def squeeze(x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, axes_of(axes))


@operation("concat")
def concat(values: list[Array], axis: int, interleave: bool = False) -> Array:
    if interleave:
        raise ValueError("interleaved joining is not computed here")
    return np.concatenate(values, int(axis))


@operation("stack")
def stack(values: list[Array], axis: int) -> Array:
    return np.stack(values, int(axis))


@operation("split")
def split(
    x: Array, axis: int, num_splits: int | None = None, split_sizes: Array | None = None
) -> tuple[Array, ...]:
    if split_sizes is None:
        assert num_splits is not None
        return tuple(np.split(x, int(num_splits), int(axis)))
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], int(axis)))


@operation("slice_by_index")
def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """x[begin:end:stride] on each axis; a mask's true means from the start, or to the end.

    An axis whose squeeze mask is true is reduced to its element at `begin`, and dropped.
    """
    index: list[int | slice] = []
    for axis in range(x.ndim):
        if squeeze_mask is not None and squeeze_mask[axis]:
            index.append(int(begin[axis]))
            continue
        from_start = begin_mask is not None and begin_mask[axis]
        to_end = end_mask is not None and end_mask[axis]
        index.append(
            slice(
                None if from_start else int(begin[axis]),
                None if to_end else int(end[axis]),
                None if stride is None else int(stride[axis]),
            )
        )
    return x[tuple(index)]


@operation("slice_by_size")
def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """x[begin : begin + size] on each axis; a size of -1 means to the end."""
    return x[
        tuple(
            slice(int(first), None if length == -1 else int(first + length))
            for first, length in zip(begin, size, strict=True)
        )
    ]


@operation("tile")
def tile(x: Array, reps: Array) -> Array:
    return np.tile(x, axes_of(reps) or ())


@operation("gather")
def gather(
    x: Array,
    indices: Array,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,  # noqa: ARG001
) -> Array:
    """Slices of x along `axis`. An index out of range is an error, validated or not."""
    if batch_dims:
        raise ValueError("batch_dims other than 0 are not computed here")
    return np.take(x, indices, int(axis), mode="raise")


@operation("gather_along_axis")
def gather_along_axis(
    x: Array,
    indices: Array,
    axis: int = 0,
    validate_indices: bool = False,  # noqa: ARG001
) -> Array:
    return np.take_along_axis(x, indices, int(axis))


@operation("shape")
def shape(x: Array) -> Array:
    return np.array(x.shape, np.int32)


@operation("range_1d")
def range_1d(start: Array, end: Array, step: Array) -> Array:
    return np.arange(start, end, step)


@operation("fill")
def fill(shape: Array, value: Array) -> Array:
    return np.full(axes_of(shape) or (), value)


@operation("fill_like")
def fill_like(ref_tensor: Array, value: Array) -> Array:
    return np.full(ref_tensor.shape, value)


@operation("band_part")
def band_part(x: Array, lower: int = -1, upper: int = -1) -> Array:
    """Zero outside the diagonals from `lower` below to `upper` above; -1 keeps a whole side."""
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    kept = (lower < 0) | (rows - columns <= lower)
    kept = kept & ((upper < 0) | (columns - rows <= upper))
    return np.where(kept, x, np.zeros((), x.dtype))


@operation("pad")
def pad(x: Array, pad: Array, mode: str = "constant", constant_val: float = 0.0) -> Array:
    """`pad` holds (before, after) for each of the last axes."""
    last = [(int(before), int(after)) for before, after in np.reshape(pad, (-1, 2))]
    widths = [(0, 0)] * (x.ndim - len(last)) + last
    match mode:
        case "constant":
            return np.pad(x, widths, constant_values=constant_val)
        case "reflect":
            return np.pad(x, widths, mode="reflect")
        case "replicate":
            return np.pad(x, widths, mode="edge")
        case _:
            raise ValueError(f"unknown mode {mode!r}")
