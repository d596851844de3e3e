"""Operations on each element by itself: arithmetic, comparisons, activations, casts."""

import math
from collections.abc import Callable

import numpy as np

from persona_export.coreml_package.operations.registry import Array, operation

_erf = np.vectorize(math.erf, otypes=[np.float32])


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "real_div": np.divide,
    "floor_div": np.floor_divide,
    "mod": np.mod,
    "pow": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}
_UNARY: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "cos": np.cos,
    "erf": _erf,
    "exp": np.exp,
    "floor": np.floor,
    "identity": lambda x: x,
    "logical_not": np.logical_not,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "round": np.round,
    "sigmoid": _sigmoid,
    "sign": np.sign,
    "silu": lambda x: x * _sigmoid(x),
    "sin": np.sin,
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sqrt": np.sqrt,
    "square": np.square,
    "tanh": np.tanh,
}
_DTYPES = {"fp16": np.float16, "fp32": np.float32, "bool": np.bool_}


def _two(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda x, y: function(x, y)


def _one(function: Callable[[Array], Array]) -> Callable[..., Array]:
    return lambda x: function(x)


for _name, _binary in _BINARY.items():
    operation(_name)(_two(_binary))
for _name, _unary in _UNARY.items():
    operation(_name)(_one(_unary))


@operation("cast")
def cast(x: Array, dtype: str) -> Array:
    return x.astype(_DTYPES.get(dtype, dtype))


@operation("clip")
def clip(x: Array, alpha: Array, beta: Array) -> Array:
    return np.clip(x, alpha, beta)


@operation("elu")
def elu(x: Array, alpha: Array) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@operation("gelu")
def gelu(x: Array, mode: str = "EXACT") -> Array:
    match mode:
        case "EXACT":
            return x * 0.5 * (1 + _erf(x / math.sqrt(2)))
        case "TANH_APPROXIMATION":
            return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        case "SIGMOID_APPROXIMATION":
            return x * _sigmoid(1.702 * x)
        case _:
            raise ValueError(f"unknown mode {mode!r}")


@operation("inverse")
def inverse(x: Array, epsilon: float = 1e-4) -> Array:
    return 1 / (x + epsilon)


@operation("leaky_relu")
def leaky_relu(x: Array, alpha: Array) -> Array:
    return np.where(x > 0, x, alpha * x)


@operation("log")
def log(x: Array, epsilon: float = 1e-45) -> Array:
    return np.log(x + np.float32(epsilon))


@operation("prelu")
def prelu(x: Array, alpha: Array) -> Array:
    return np.where(x > 0, x, alpha.reshape(-1, *[1] * (x.ndim - 2)) * x)


@operation("rsqrt")
def rsqrt(x: Array, epsilon: float = 1e-12) -> Array:
    return 1 / np.sqrt(x + epsilon)


@operation("select")
def select(cond: Array, a: Array, b: Array) -> Array:
    return np.where(cond, a, b)


@operation("sigmoid_hard")
def sigmoid_hard(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


@operation("threshold")
def threshold(x: Array, alpha: Array) -> Array:
    return np.maximum(x, alpha)


@operation("thresholded_relu")
def thresholded_relu(x: Array, alpha: Array) -> Array:
    return np.where(x >= alpha, x, 0)
