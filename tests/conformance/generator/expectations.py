"""What the corpus's devices know: slots, base, prototypes, and how a prototype is chosen."""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import wire

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Slot:
    """A slot as the manifest spells it."""

    name: str
    kind: str
    out: int
    in_: int
    rank: int
    bias: bool
    bound: float
    bias_bound: float

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """`SLOT.SUFFIX` -> shape in an edit."""
        shapes: dict[str, tuple[int, ...]] = {
            "dense": {"weight": (self.out, self.in_)},
            "low-rank": {"a": (self.rank, self.in_), "b": (self.out, self.rank)},
            "affine": {"scale": (self.out,), "shift": (self.out,)},
        }[self.kind]
        bias = {"bias": (self.out,)} if self.bias else {}
        return {f"{self.name}.{suffix}": shape for suffix, shape in {**shapes, **bias}.items()}

    def limits(self) -> dict[str, float]:
        """`SLOT.SUFFIX` -> bound, before rounding to binary32."""
        limits = {
            "weight": self.bound,
            "a": 1.0,
            "b": self.bound / max(1, self.rank),
            "scale": self.bound,
            "shift": self.bias_bound,
            "bias": self.bias_bound,
        }
        return {name: limits[name.rpartition(".")[2]] for name in self.shapes()}

    def to_json(self) -> dict[str, Any]:
        """As in expectations.json and in a manifest."""
        return {
            "name": self.name,
            "kind": self.kind,
            "out": self.out,
            "in": self.in_,
            "rank": self.rank,
            "bias": self.bias,
            "bound": self.bound,
            "bias_bound": self.bias_bound,
        }


@dataclass(frozen=True)
class Expectation:
    """What a device knows when an edit comes."""

    name: str
    slots: tuple[Slot, ...]
    prototypes: int = 2
    probe_shape: tuple[int, ...] = (1, 2)
    max_bytes: int = 70_000
    sequence: int = 5
    device: str = "phone-1"
    model: str = "sensor-net"
    width: int = 6
    tied: bool = False
    shapes: dict[str, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        shapes = {name: shape for slot in self.slots for name, shape in slot.shapes().items()}
        object.__setattr__(self, "shapes", shapes)

    @property
    def family(self) -> str:
        """Devices of one family run the same bundle: `dense` and `dense/tight`."""
        return self.name.partition("/")[0]

    @property
    def bundle(self) -> str:
        """Name of the bundle: a digest, as of a manifest."""
        return wire.digest(f"persona conformance: bundle {self.family}")

    def base(self) -> dict[str, Array]:
        """What the program's slots hold before any edit."""
        base = {}
        for slot in self.slots:
            for name, shape in slot.shapes().items():
                suffix = name.rpartition(".")[2]
                if suffix == "a":
                    base[name] = np.zeros((2 * slot.rank, slot.in_), np.float32)
                elif suffix == "b":
                    base[name] = np.zeros((slot.out, 2 * slot.rank), np.float32)
                elif suffix == "scale":
                    base[name] = np.ones(shape, np.float32)
                elif suffix == "shift":
                    base[name] = np.zeros(shape, np.float32)
                else:
                    base[name] = wire.numbers(f"base {self.family} {name}", shape)
        return base

    def prototype(self, k: int) -> dict[str, Array]:
        """Prototype k; odd ones hold values that F16 cannot."""
        changes = {}
        for slot in self.slots:
            for name, limit in slot.limits().items():
                values = wire.numbers(f"proto {self.family} {k} {name}", self.shapes[name], limit)
                changes[name] = values if k % 2 else values.astype("<f2").astype("<f4")
        return changes

    def rule(self) -> dict[str, Array]:
        """The linear choice of a prototype."""
        label = f"assign {self.family}"
        weight = wire.numbers(f"{label} weight", (self.prototypes, self.width))
        bias = wire.numbers(f"{label} bias", (self.prototypes,))
        if self.tied:
            weight[:], bias[:] = weight[0], bias[0]
        return {
            "mean": wire.numbers(f"{label} mean", (self.width,)),
            "deviation": np.abs(wire.numbers(f"{label} deviation", (self.width,))) + 0.25,
            "weight": weight,
            "bias": bias,
        }

    def base_file(self) -> bytes:
        """`base.safetensors`."""
        return wire.container(self.base(), {"format": "persona.base/1"})

    def prototypes_file(self) -> bytes:
        """`prototypes.safetensors`: even prototypes in F16, odd ones in F32."""
        tensors: dict[str, NDArray[Any]] = {}
        for k in range(self.prototypes):
            for name, values in self.prototype(k).items():
                tensors[f"{k}.{name}"] = values if k % 2 else values.astype("<f2")
        if self.prototypes:
            tensors |= {f"assign.{name}": values for name, values in self.rule().items()}
        return wire.container(tensors, {"format": "persona.prototypes/1"})

    def assignments_file(self) -> bytes:
        """Observation vectors and the prototype that each is to be given."""
        vectors = wire.numbers(f"vectors {self.family}", (24, self.width), 3.0)
        vectors[0] = 1e30
        vectors[1] = -1e30
        vectors[2] = self.rule()["mean"]
        chosen = np.array([self._choose(v) for v in vectors], "<i8")
        return wire.container({"vectors": vectors, "chosen": chosen}, {"format": "assignments"})

    def _choose(self, vector: Array) -> int:
        """The rule in exact arithmetic."""
        rule = {name: values.tolist() for name, values in self.rule().items()}
        standard = [
            max(Fraction(-6), min(Fraction(6), (Fraction(v) - Fraction(m)) / Fraction(d)))
            for v, m, d in zip(vector.tolist(), rule["mean"], rule["deviation"], strict=True)
        ]
        scores = [
            sum((Fraction(w) * x for w, x in zip(row, standard, strict=True)), Fraction(bias))
            for row, bias in zip(rule["weight"], rule["bias"], strict=True)
        ]
        return scores.index(max(scores))

    def to_json(self) -> dict[str, Any]:
        """The entry of expectations.json."""
        entry: dict[str, Any] = {
            "model": self.model,
            "bundle": self.bundle,
            "device": self.device,
            "sequence": self.sequence,
            "slots": [slot.to_json() for slot in self.slots],
            "prototype_count": self.prototypes,
            "probe_shape": list(self.probe_shape),
            "max_bytes": self.max_bytes,
            "observation_width": self.width,
            "base": f"slots/{self.family}.base.safetensors",
            "prototypes": f"slots/{self.family}.prototypes.safetensors",
            "assignments": f"slots/{self.family}.assignments.safetensors",
        }
        if not self.prototypes:
            del entry["assignments"]
        return entry


_HEAD = Slot("head", "dense", 2, 3, 0, False, 0.1, 0.0)

DENSE = Expectation("dense", (_HEAD,))
MIXED = Expectation(
    "mixed",
    (
        Slot("head.0", "dense", 3, 4, 0, True, 0.5, 3.0),
        Slot("head.2", "low-rank", 5, 3, 2, True, 0.25, 3.0),
        Slot("norm", "affine", 4, 0, 0, False, 0.5, 1.0),
    ),
    prototypes=3,
    probe_shape=(1, 5),
)
LOW_RANK = Expectation("low-rank", (Slot("wide", "low-rank", 4, 6, 3, False, 0.5, 0.0),))
AFFINE = Expectation("affine", (Slot("norm", "affine", 5, 0, 0, False, 0.3, 0.7),), 1)
SQUARE = Expectation(
    "square", (Slot("mix", "dense", 3, 3, 0, True, 0.5, 2.0),), 2, (2, 3), tied=True
)
NO_PROTOTYPES = Expectation("no-prototypes", (_HEAD,), prototypes=0)
SCALAR_PROBE = Expectation("scalar-probe", (_HEAD,), probe_shape=())
MANY = Expectation(
    "many",
    tuple(Slot(f"block.{i}.norm", "affine", 2, 0, 0, False, 0.5, 1.0) for i in range(40)),
    prototypes=1,
)
UNICODE = Expectation("unicode", (_HEAD,), device="Ger\u00e4t \U0001f4f1 1")
FRESH = Expectation("fresh", (_HEAD,), sequence=0)
LAST = Expectation("last", (_HEAD,), sequence=2**53 - 2)
NESTED = Expectation(
    "nested-names",
    (
        Slot("head", "dense", 2, 3, 0, True, 0.1, 1.0),
        Slot("head.weight", "dense", 1, 2, 0, False, 0.1, 0.0),
    ),
)


def tight(size: int) -> Expectation:
    """The dense device, with room for an edit of `size` bytes and no more."""
    return replace(DENSE, name="dense/tight", max_bytes=size)
