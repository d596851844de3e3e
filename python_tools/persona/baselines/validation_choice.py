"""How rivals choose their settings: by the task's own metric on validation devices alone."""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor

from persona.baselines.base import Setting
from persona.evaluation.metrics import score
from persona.training.devices import Fleet

Option = TypeVar("Option")

MOST_DEVICES = 100
"""Validation devices that settings are tried on: enough to choose among a few, and affordable."""


def held_back(setting: Setting) -> Fleet:
    """The validation devices that settings are tried on, at most `MOST_DEVICES`."""
    whole = setting.validation
    index = torch.arange(min(len(whole.devices), MOST_DEVICES))
    return Fleet(whole.devices[: len(index)], whole.tensors.subset(index))


def best(setting: Setting, answers: Iterable[tuple[Option, Tensor]]) -> Option:
    """The option whose outputs [D, q, ...] for the devices of `held_back` score best on average.

    Of equal options the first: name the mildest first.
    """
    tensors = held_back(setting).tensors
    scored = [
        (option, float(score(setting.task, said, tensors.targets, tensors.absent).mean()))
        for option, said in answers
    ]
    return max(scored, key=lambda pair: pair[1])[0]
