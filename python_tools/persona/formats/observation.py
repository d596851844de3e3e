"""The observation `persona.observation/1`: what a device uploads about its window, and no more.

Either the ids of the window's items, or statistics pooled over the window on the device: raw
samples never leave it. JSON for people, safetensors for phones; both say the same.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from persona.formats import container, schema
from persona.formats.edit import parse_whole
from persona.formats.errors import Code, FormatError
from persona.formats.slots import Array
from persona.formats.strict_json import strict_json

OBSERVATION_FORMAT = "persona.observation/1"
MEDIA_TYPE_SAFETENSORS = "application/vnd.persona.observation+safetensors"

_EM_STEPS = 50
_EM_FLOOR = 1e-4


@dataclass(frozen=True)
class PooledSpec:
    """Statistics over samples: `features` values a sample, `classes` in its posterior.

    training_mass: class frequencies the backbone was trained with, for the prior's estimate.
    """

    kind: Literal["pooled"]
    features: int
    classes: int
    min_count: int
    max_count: int
    training_mass: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_limits(self.min_count, self.max_count)
        if self.features < 1 or self.classes < 1:
            raise ValueError("features and classes must be 1 or more")
        if len(self.training_mass) != self.classes or min(self.training_mass) <= 0:
            raise ValueError(f"training_mass must be {self.classes} numbers above 0")

    @property
    def prior_columns(self) -> slice:
        """Where `class_prior` stands in the vector."""
        first = 2 * self.features + self.classes
        return slice(first, first + self.classes)

    @property
    def width(self) -> int:
        """Length of the observation as one vector."""
        return 2 * self.features + 2 * self.classes + self.classes * self.features


@dataclass(frozen=True)
class ItemsSpec:
    """Ids of the last items, oldest first, each from 1 to `vocabulary`."""

    kind: Literal["items"]
    vocabulary: int
    min_count: int
    max_count: int

    def __post_init__(self) -> None:
        _check_limits(self.min_count, self.max_count)
        if self.vocabulary < 1:
            raise ValueError("vocabulary must be 1 or more")

    @property
    def width(self) -> int:
        """Length of the observation as one vector: a share for each item id, 0 unused."""
        return self.vocabulary + 1


ObservationSpec = PooledSpec | ItemsSpec


def _check_limits(min_count: int, max_count: int) -> None:
    if not 1 <= min_count <= max_count:
        raise ValueError(f"expected 1 <= min_count <= max_count, got {min_count} and {max_count}")


@dataclass(frozen=True)
class PooledObservation:
    """Pooled statistics of `count` samples.

    mean, deviation [features]: over the window.
    class_mass [classes]: mean posterior. class_prior [classes]: the class mix, estimated by
    expectation maximisation (Saerens et al. 2002). class_mean [classes, features]: means weighted
    by the posterior.
    """

    count: int
    mean: Array
    deviation: Array
    class_mass: Array
    class_prior: Array
    class_mean: Array

    def vector(self) -> Array:
        """All statistics as one float32 vector [width], in the order of the fields."""
        parts = (self.mean, self.deviation, self.class_mass, self.class_prior)
        vector: Array = np.concatenate([*parts, self.class_mean.ravel()], dtype=np.float32)
        return vector


@dataclass(frozen=True)
class ItemsObservation:
    """Item ids int64 [count], oldest first."""

    items: NDArray[np.int64]

    def vector(self, width: int) -> Array:
        """The share of each item id in the window, float32 [width]."""
        counts = np.bincount(self.items, minlength=width).astype(np.float32)
        shares: Array = counts / np.float32(len(self.items))
        return shares


Observation = PooledObservation | ItemsObservation


def observation_vector(spec: ObservationSpec, observation: Observation) -> Array:
    """What linear rules on the device take: float32 [spec.width]."""
    if isinstance(observation, ItemsObservation):
        return observation.vector(spec.width)
    return observation.vector()


def pool(spec: PooledSpec, features: Array, posterior: Array) -> PooledObservation:
    """Pool features [n, F] and class posteriors [n, C] of a window."""
    _check_count(spec, len(features))
    shapes = ((len(features), spec.features), (len(features), spec.classes))
    if (features.shape, posterior.shape) != shapes:
        raise FormatError(
            Code.OBSERVATION_WIDTH,
            f"features and posterior must have shapes {shapes[0]} and {shapes[1]}, "
            f"got {features.shape} and {posterior.shape}; are they from this bundle's program?",
        )
    for name, array in (("features", features), ("posterior", posterior)):
        if not np.isfinite(array).all():
            raise FormatError(
                Code.OBSERVATION_NOT_FINITE, f"{name} hold NaN or infinity; check the inputs"
            )
    if posterior.min() < 0 or not posterior.any(axis=1).all():
        raise FormatError(
            Code.OBSERVATION_INVALID,
            "each sample's posterior must be 0 or more, and above 0 for a class; apply softmax",
        )
    x, p = features.astype(np.float64), posterior.astype(np.float64)
    mass = p.mean(axis=0)
    class_mean = (p.T @ x) / (p.sum(axis=0)[:, None] + 1e-6)
    observation = PooledObservation(
        count=len(features),
        mean=x.mean(axis=0).astype(np.float32),
        deviation=x.std(axis=0).astype(np.float32),
        class_mass=mass.astype(np.float32),
        class_prior=_class_prior(p, np.asarray(spec.training_mass)).astype(np.float32),
        class_mean=class_mean.astype(np.float32),
    )
    check_observation(spec, observation)
    return observation


def _class_prior(posterior: NDArray[np.float64], trained: NDArray[np.float64]) -> NDArray[Any]:
    """The class mix of a window, by expectation maximisation from posteriors [n, C]."""
    prior = trained
    for _ in range(_EM_STEPS):
        adjusted = posterior * (prior / trained)
        adjusted /= adjusted.sum(axis=1, keepdims=True)
        prior = np.maximum(adjusted.mean(axis=0), _EM_FLOOR)
        prior = prior / prior.sum()
    return prior


@dataclass(frozen=True)
class Envelope:
    """An observation with its addressee: the bundle (sha256 of the manifest) it was made with."""

    bundle: str
    observation: Observation


_POOLED = ("mean", "deviation", "class_mass", "class_prior", "class_mean")


def check_observation(spec: ObservationSpec, observation: Observation) -> None:
    """Whether an observation is what the bundle asks for. Raises FormatError."""
    if isinstance(spec, ItemsSpec):
        if not isinstance(observation, ItemsObservation):
            raise FormatError(Code.OBSERVATION_INVALID, "expected item ids, got pooled statistics")
        _check_count(spec, len(observation.items))
        low, high = int(observation.items.min()), int(observation.items.max())
        if low < 1 or high > spec.vocabulary:
            raise FormatError(
                Code.OBSERVATION_INVALID,
                f"item ids must be 1 to {spec.vocabulary}, got {low} to {high}",
            )
        return
    if not isinstance(observation, PooledObservation):
        raise FormatError(Code.OBSERVATION_INVALID, "expected pooled statistics, got item ids")
    _check_count(spec, observation.count)
    f, c = spec.features, spec.classes
    shapes = zip(_POOLED, ((f,), (f,), (c,), (c,), (c, f)), strict=True)
    for name, shape in shapes:
        array = getattr(observation, name)
        if array.shape != shape:
            raise FormatError(
                Code.OBSERVATION_WIDTH,
                f"{name} must have shape {list(shape)}, got {list(array.shape)}; "
                "is it made with this bundle's observe program?",
            )
        if not np.isfinite(array).all():
            raise FormatError(
                Code.OBSERVATION_NOT_FINITE, f"{name} holds NaN or infinity; check the inputs"
            )


def _check_count(spec: ObservationSpec, count: int) -> None:
    if count < spec.min_count:
        raise FormatError(
            Code.OBSERVATION_EMPTY,
            f"the window has {count} samples, at least {spec.min_count} are needed",
        )
    if count > spec.max_count:
        raise FormatError(
            Code.OBSERVATION_TOO_LONG,
            f"the window has {count} samples, at most {spec.max_count} fit; send the newest",
        )


def to_json(envelope: Envelope) -> dict[str, Any]:
    """The JSON form, as plain values."""
    observation = envelope.observation
    document: dict[str, Any] = {"format": OBSERVATION_FORMAT, "bundle": envelope.bundle}
    if isinstance(observation, ItemsObservation):
        return document | {"kind": "items", "items": observation.items.tolist()}
    statistics = {name: getattr(observation, name).tolist() for name in _POOLED}
    return document | {"kind": "pooled", "count": observation.count} | statistics


@dataclass(frozen=True)
class _ItemsDocument:
    format: str
    bundle: str
    kind: Literal["items"]
    items: tuple[int, ...]


@dataclass(frozen=True)
class _PooledDocument:
    format: str
    bundle: str
    kind: Literal["pooled"]
    count: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    class_mass: tuple[float, ...]
    class_prior: tuple[float, ...]
    class_mean: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class _Document:
    document: _ItemsDocument | _PooledDocument


def from_json(spec: ObservationSpec, value: Any) -> Envelope:
    """Read and check the JSON form. Raises FormatError naming the field."""
    try:
        document = schema.decode(_Document, {"document": value}, "observation").document
        if isinstance(document, _ItemsDocument):
            observation: Observation = ItemsObservation(np.array(document.items, np.int64))
        else:
            with np.errstate(over="ignore"):
                arrays = {n: np.array(getattr(document, n), np.float32) for n in _POOLED}
            observation = PooledObservation(count=document.count, **arrays)
    except (schema.SchemaError, OverflowError) as error:
        raise FormatError(Code.OBSERVATION_INVALID, str(error)) from None
    except ValueError:
        raise FormatError(
            Code.OBSERVATION_WIDTH, "the rows of class_mean must be equally long"
        ) from None
    _check_format(document.format)
    check_observation(spec, observation)
    return Envelope(document.bundle, observation)


def parse_json(spec: ObservationSpec, text: bytes) -> Envelope:
    """Read and check the JSON form from bytes."""
    try:
        value = strict_json(text.decode("utf-8"))
    except ValueError as error:
        raise FormatError(Code.OBSERVATION_INVALID, f"not JSON: {error}") from None
    return from_json(spec, value)


def _check_format(name: str | None) -> None:
    if name != OBSERVATION_FORMAT:
        raise FormatError(
            Code.OBSERVATION_INVALID, f"expected format {OBSERVATION_FORMAT!r}, got {name!r}"
        )


def to_safetensors(envelope: Envelope) -> bytes:
    """The safetensors form."""
    observation = envelope.observation
    metadata = {"format": OBSERVATION_FORMAT, "bundle": envelope.bundle}
    if isinstance(observation, ItemsObservation):
        return container.encode({"items": observation.items}, metadata | {"kind": "items"})
    metadata |= {"kind": "pooled", "count": str(observation.count)}
    return container.encode({n: getattr(observation, n) for n in _POOLED}, metadata)


def from_safetensors(spec: ObservationSpec, data: bytes) -> Envelope:
    """Read and check the safetensors form. Raises FormatError."""
    tensors, metadata = container.decode(data)
    _check_format(metadata.get("format"))
    forms = {
        "items": (("items",), ("format", "bundle", "kind")),
        "pooled": (_POOLED, ("format", "bundle", "kind", "count")),
    }
    kind = metadata.get("kind", "")
    names, keys = forms.get(kind, ((), ()))
    if kind not in forms or set(tensors) != set(names) or set(metadata) != set(keys):
        raise FormatError(
            Code.OBSERVATION_INVALID,
            f"kind {kind!r} with tensors {sorted(tensors)} and metadata {sorted(metadata)} is not "
            "an observation",
        )
    if kind == "items":
        items = _typed(tensors["items"], "I64")
        if items.ndim != 1:
            raise FormatError(
                Code.OBSERVATION_INVALID, f"items must be a list, got shape {list(items.shape)}"
            )
        observation: Observation = ItemsObservation(items)
    else:
        try:
            count = parse_whole(metadata["count"])
        except ValueError as error:
            raise FormatError(Code.OBSERVATION_INVALID, f"count: {error}") from None
        observation = PooledObservation(count, **{n: _typed(tensors[n], "F32") for n in _POOLED})
    check_observation(spec, observation)
    return Envelope(metadata["bundle"], observation)


def _typed(tensor: container.Tensor, dtype: str) -> NDArray[Any]:
    if tensor.dtype != dtype:
        raise FormatError(Code.OBSERVATION_INVALID, f"expected {dtype}, got {tensor.dtype}")
    return tensor.array()
