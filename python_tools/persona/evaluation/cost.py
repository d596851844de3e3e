"""What each way to serve costs one device: once a window, and for every answer after that.

A way's time for one device is T(q) = adaptation + q · query. It is measured at two numbers of
queries, asked again and again, and both figures follow. All ways take turns on the same devices
on one thread, whose own time is counted, so that a busy machine slows nobody; medians are kept.
Whatever a way reads of its device is computed while its clock runs: nothing is charged that it
does not use, and nothing that it uses is free.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from persona.baselines import Rival, Setting
from persona.data import Device
from persona.evaluation.results import Cost
from persona.method.slots import Edit, applied
from persona.training.devices import (
    Devices,
    Fleet,
    absent_of,
    hidden_of,
    observed,
    queries_of,
)
from persona.training.stages import DeviceRule

DEVICES = 2
ROUNDS = 5
QUERIES = 16
"""The smaller number of queries: a device's own are asked again until there are so many."""

MOST_QUERIES = 512
"""Other backbones answer so many in one forward: no way may have larger ones than another."""

ANSWERING_MS = 30.0
"""The larger number of queries takes a static model about so long: enough to tell from noise."""

Way = Callable[[Setting, Fleet], object]


class _OnDemand:
    """`Devices` of one device, each tensor computed when it is first read."""

    def __init__(self, setting: Setting, device: Device) -> None:
        self._setting = setting
        self._devices = (device,)

    @cached_property
    def _observed(self) -> tuple[Tensor, Tensor]:
        return observed(self._setting.backbone, self._setting.observation, self._devices)

    @property
    def observations(self) -> Tensor:
        return self._observed[0]

    @property
    def vectors(self) -> Tensor:
        return self._observed[1]

    @cached_property
    def queries(self) -> tuple[Tensor, ...]:
        return queries_of(self._devices)

    @cached_property
    def hidden(self) -> tuple[Tensor, ...]:
        return hidden_of(self._setting.backbone, self._setting.slots, self.queries)

    @property
    def targets(self) -> Tensor:
        return torch.from_numpy(self._devices[0].targets)[None]

    @property
    def absent(self) -> Tensor | None:
        return absent_of(self._setting.backbone, self.queries)

    def __len__(self) -> int:
        return 1

    def subset(self, index: Tensor) -> "_OnDemand":  # noqa: ARG002
        return self


class _OneDevice(Setting):
    """A trained system on one device: edits are written into the model, which answers whole."""

    def fleet(self, devices: list[Device]) -> Fleet:
        (device,) = devices
        return Fleet((device,), _OnDemand(self, device))

    def outputs(self, change: Edit, devices: Devices) -> Tensor:
        own = {name: value[0] for name, value in change.items()}
        with applied(self.backbone, self.slots, own):
            return self.static_outputs(devices)

    def static_outputs(self, devices: Devices) -> Tensor:
        assert isinstance(devices, _OnDemand)
        with torch.inference_mode():
            said: Tensor = self.backbone(*(column[0] for column in devices.queries))
        return said[None]


def _ours(setting: Setting, rule: DeviceRule) -> dict[str, Way]:
    def static(alone: Setting, fleet: Fleet) -> object:
        return alone.static_outputs(fleet.tensors)

    @torch.no_grad()
    def prototype_only(alone: Setting, fleet: Fleet) -> object:
        group = setting.personaliser.bank.chosen(rule.assign(fleet.tensors.vectors))
        return alone.outputs(group, fleet.tensors)

    @torch.no_grad()
    def edited(alone: Setting, fleet: Fleet) -> object:
        made = setting.personaliser(fleet.tensors.observations)
        own = setting.personaliser.change(made.prototype, made.edit)
        return alone.outputs(own, fleet.tensors)

    return {"static": static, "prototype_only": prototype_only, "edited": edited}


def _asked(device: Device, least: int) -> Device:
    """The same device with its queries asked again until there are so many."""
    times = -(-least // len(device.targets))

    def again(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values] * times)

    return replace(device, queries=tuple(map(again, device.queries)), targets=again(device.targets))


def costs(
    setting: Setting, rule: DeviceRule, devices: Sequence[Device], prepared: Mapping[str, Rival]
) -> dict[str, Cost]:
    """What every way costs, in the order in which they take turns; a static model adapts nothing.

    What a call takes that answers nothing is measured on the static model and charged to nobody.
    """
    alone = _OneDevice(**{field.name: getattr(setting, field.name) for field in fields(setting)})
    ways: dict[str, Way] = {
        **_ours(setting, rule),
        **{name: rival.outputs for name, rival in prepared.items()},
    }
    most = _queries_to_tell(ways["static"], alone, devices[0])
    took: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for device in devices[:DEVICES]:
            few = _asked(device, QUERIES)
            many = _asked(few, max(most, 2 * len(few.targets)))
            for name, way in ways.items():
                took[name].append([_milliseconds(way, alone, asked) for asked in (few, many)])
    found = {}
    for name, times in took.items():
        first, second = np.median(times, axis=0)
        each = max(0.0, (second - first) / (len(many.targets) - len(few.targets)))
        found[name] = (float(first - each * len(few.targets)), float(each))
    call, _ = found["static"]
    return {name: Cost(max(0.0, once - call), each) for name, (once, each) in found.items()}


def _queries_to_tell(static: Way, alone: Setting, device: Device) -> int:
    asked = _asked(device, 4 * QUERIES)
    each = min(_milliseconds(static, alone, asked) for _ in range(ROUNDS)) / len(asked.targets)
    return round(min(max(ANSWERING_MS / each, 4 * QUERIES), MOST_QUERIES))


def _milliseconds(way: Way, alone: Setting, device: Device) -> float:
    fleet = alone.fleet([device])
    start = time.thread_time()
    way(alone, fleet)
    return 1e3 * (time.thread_time() - start)
