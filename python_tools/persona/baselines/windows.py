"""Windows and queries of many devices as tensors, for rivals that run the backbone themselves."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from persona.baselines.base import Setting
from persona.data import Device

_AT_ONCE = 25
"""Devices that are worked on together: gradients through images need the memory."""

Inputs = tuple[Tensor, ...]


def _stacked(rows: Sequence[tuple[np.ndarray, ...]]) -> Inputs:
    return tuple(torch.from_numpy(np.stack(columns)) for columns in zip(*rows, strict=True))


def groups(setting: Setting, devices: Sequence[Device]) -> Iterator[tuple[Tensor, Inputs, Inputs]]:
    """Devices with equally long windows, some at a time: their places [d], windows, queries.

    Windows [d, w, ...] hold the newest samples, as many as an observation may; queries [d, q, ...].
    """
    newest = [tuple(w[-setting.observation.max_count :] for w in d.window) for d in devices]
    for places in equally_long([len(window[0]) for window in newest]):
        yield (
            places,
            _stacked([newest[i] for i in places.tolist()]),
            _stacked([devices[i].queries for i in places.tolist()]),
        )


def equally_long(lengths: Sequence[int]) -> Iterator[Tensor]:
    """Places of equal lengths together, some at a time."""
    known = torch.tensor(lengths)
    for length in known.unique():
        yield from (known == length).nonzero().flatten().split(_AT_ONCE)


def in_order(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Places and outputs of groups -> outputs [D, q, ...] in the order of the devices."""
    places, outputs = (torch.cat(column) for column in zip(*parts, strict=True))
    return outputs[places.argsort()]
