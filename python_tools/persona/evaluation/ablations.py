"""Parts of the method switched off, one at a time: what each is worth is a row in the table.

An ablation trains everything after the backbone anew, on the same devices, without its part.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from persona.registry import UnknownNameError
from persona.training.config import RunConfig


def _adapter(**changes: Any) -> Callable[[RunConfig], RunConfig]:
    return lambda config: replace(config, adapter=replace(config.adapter, **changes))


def _prototypes(**changes: Any) -> Callable[[RunConfig], RunConfig]:
    return lambda config: replace(config, prototypes=replace(config.prototypes, **changes))


def _as_published(config: RunConfig) -> RunConfig:
    """The paper's method: no prior seed, no gate, no hardening, no joint refinement."""
    plain = replace(config.adapter, prior_seed=False, strength=False, hardening=(), familiarity=1.0)
    return replace(config, adapter=plain, prototypes=replace(config.prototypes, joint_steps=0))


ABLATIONS: dict[str, Callable[[RunConfig], RunConfig]] = {
    "cross-layer transfer": _adapter(cross_layer=False),
    "prior seed": _adapter(prior_seed=False),
    "gate": _adapter(strength=False, familiarity=1.0),
    "hardening": _adapter(hardening=()),
    "joint refinement": _prototypes(joint_steps=0),
    "several prototypes": _prototypes(count=1),
    "everything that the paper lacks": _as_published,
}


def without(config: RunConfig, part: str) -> RunConfig:
    """The configuration with one part switched off. Raises UnknownNameError for another name."""
    if part not in ABLATIONS:
        raise UnknownNameError(f"no ablation is called {part!r}; there are: {', '.join(ABLATIONS)}")
    return ABLATIONS[part](config)
