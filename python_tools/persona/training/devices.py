"""Devices as tensors: what the adapter's training and evaluation need of each, computed once.

The trunk is frozen, so its output for every query is computed here, and training runs the head
alone; the observation is pooled here with the same code as on a device.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persona.backbones import Backbone
from persona.data import Device
from persona.formats.observation import (
    ItemsObservation,
    ItemsSpec,
    Observation,
    ObservationSpec,
    observation_vector,
    pool,
)
from persona.formats.slots import SlotSpec
from persona.method.slots import Edit, edited_forward

_CHUNK = 1024


class Devices(Protocol):
    """D devices with q queries each, computed beforehand or when they are read.

    observations: pooled vectors [D, width], or item ids [D, max_count] with the newest last.
    vectors: what the device-side choice of a prototype takes, [D, width].
    hidden: what the edited part of the model takes, tensors [D, q, ...]. targets: [D, q].
    absent: where a row of candidates is only padded, bool [D, q, candidates]; None where none is.
    """

    @property
    def observations(self) -> Tensor: ...
    @property
    def vectors(self) -> Tensor: ...
    @property
    def hidden(self) -> tuple[Tensor, ...]: ...
    @property
    def targets(self) -> Tensor: ...
    @property
    def absent(self) -> Tensor | None: ...

    def __len__(self) -> int: ...

    def subset(self, index: Tensor) -> "Devices":
        """The devices at `index`."""
        ...


@dataclass(frozen=True)
class DeviceTensors:
    """Such devices, all of them computed."""

    observations: Tensor
    vectors: Tensor
    hidden: tuple[Tensor, ...]
    targets: Tensor
    absent: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, index: Tensor) -> "DeviceTensors":
        """The devices at `index`."""
        return DeviceTensors(
            self.observations[index],
            self.vectors[index],
            tuple(h[index] for h in self.hidden),
            self.targets[index],
            None if self.absent is None else self.absent[index],
        )


def together(*parts: Devices) -> Devices:
    """Devices of several parts as one; none with absent candidates."""
    if len(parts) == 1:
        return parts[0]
    assert all(part.absent is None for part in parts)
    return DeviceTensors(
        torch.cat([p.observations for p in parts]),
        torch.cat([p.vectors for p in parts]),
        tuple(torch.cat(columns) for columns in zip(*(p.hidden for p in parts), strict=True)),
        torch.cat([p.targets for p in parts]),
    )


@dataclass(frozen=True)
class Fleet:
    """Devices as they are and as tensors, in the same order."""

    devices: tuple[Device, ...]
    tensors: Devices


def edited_part(backbone: Backbone, slots: tuple[SlotSpec, ...]) -> tuple[nn.Module, bool]:
    """The module that edits run through, and whether the trunk before it can be computed once.

    That is the head where every slot lies in it, else the whole backbone.
    """
    head_only = all(slot.name.startswith("head.") or slot.name == "head" for slot in slots)
    return (_Head(backbone.head), True) if head_only else (backbone, False)


class _Head(nn.Module):
    """Gives the head its name in the backbone, so that slot names stay the same."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, *hidden: Tensor) -> Tensor:
        output: Tensor = self.head(*hidden)
        return output


def observe(
    backbone: Backbone, spec: ObservationSpec, devices: Sequence[Device]
) -> list[Observation]:
    """What each device would upload about its window."""
    newest = [tuple(w[-spec.max_count :] for w in device.window) for device in devices]
    if isinstance(spec, ItemsSpec):
        return [ItemsObservation(items) for (items,) in newest]
    samples = tuple(
        torch.from_numpy(np.concatenate(columns)) for columns in zip(*newest, strict=True)
    )
    with torch.inference_mode():
        parts = [backbone.features(*chunk) for chunk in _chunks(samples)]
    features, posterior = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    ends = np.cumsum([len(window[0]) for window in newest])[:-1]
    return [
        pool(spec, f, p)
        for f, p in zip(np.split(features, ends), np.split(posterior, ends), strict=True)
    ]


def _chunks(tensors: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(t.split(_CHUNK) for t in tensors), strict=True)


def encoder_input(spec: ObservationSpec, observation: Observation) -> np.ndarray:
    """The row that the adapter's encoder takes: a pooled vector, or ids padded on the left."""
    if isinstance(observation, ItemsObservation):
        row = np.zeros(spec.max_count, np.int64)
        row[-len(observation.items) :] = observation.items
        return row
    return observation.vector()


def to_tensors(
    backbone: Backbone,
    slots: tuple[SlotSpec, ...],
    spec: ObservationSpec,
    devices: Sequence[Device],
) -> DeviceTensors:
    """Observe every device and compute its queries' hidden states."""
    observations, vectors = observed(backbone, spec, devices)
    queries = queries_of(devices)
    return DeviceTensors(
        observations=observations,
        vectors=vectors,
        hidden=hidden_of(backbone, slots, queries),
        targets=torch.from_numpy(np.stack([device.targets for device in devices])),
        absent=absent_of(backbone, queries),
    )


def observed(
    backbone: Backbone, spec: ObservationSpec, devices: Sequence[Device]
) -> tuple[Tensor, Tensor]:
    """The `observations` and the `vectors` of `Devices`."""
    found = observe(backbone, spec, devices)
    return (
        torch.from_numpy(np.stack([encoder_input(spec, o) for o in found])),
        torch.from_numpy(np.stack([observation_vector(spec, o) for o in found])),
    )


def queries_of(devices: Sequence[Device]) -> tuple[Tensor, ...]:
    """The inputs of the model at all queries, [D, q, ...]."""
    columns = zip(*(device.queries for device in devices), strict=True)
    return tuple(torch.from_numpy(np.stack(column)) for column in columns)


def absent_of(backbone: Backbone, queries: tuple[Tensor, ...]) -> Tensor | None:
    """The `absent` of `Devices`; rankers take (history, candidates), where 0 is no item."""
    if backbone.task != "ranking":
        return None
    padded = queries[1] == 0
    return padded if bool(padded.any()) else None


def hidden_of(
    backbone: Backbone, slots: tuple[SlotSpec, ...], queries: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The `hidden` of `Devices`: the trunk's outputs, or the queries where it is edited."""
    if not edited_part(backbone, slots)[1]:
        return queries
    count, each = queries[0].shape[:2]
    parts: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for chunk in _chunks(tuple(q.flatten(0, 1) for q in queries)):
            hidden = backbone.trunk(*chunk)
            parts.append(hidden if isinstance(hidden, tuple) else (hidden,))
    return tuple(
        torch.cat(columns).unflatten(0, (count, each)) for columns in zip(*parts, strict=True)
    )


def losses(
    module: nn.Module, slots: tuple[SlotSpec, ...], change: Edit, devices: Devices
) -> Tensor:
    """Cross-entropy of each device [D] under its own change."""
    output = edited_forward(module, slots, change, devices.hidden)
    if devices.absent is not None:
        output = output.masked_fill(devices.absent, -torch.inf)
    each = F.cross_entropy(output.flatten(0, 1), devices.targets.flatten(), reduction="none")
    return each.unflatten(0, devices.targets.shape).mean(1)
