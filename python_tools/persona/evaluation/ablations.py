"""Parts of the method switched off, one at a time: what each is worth is a row in the table.

An ablation trains everything after the backbone anew, on the same devices, without its part.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from persona.formats.slots import SlotSpec
from persona.registry import UnknownNameError
from persona.training.config import RunConfig, SlotConfig


def _adapter(**changes: Any) -> Callable[[RunConfig], RunConfig]:
    return lambda config: replace(config, adapter=replace(config.adapter, **changes))


def _prototypes(**changes: Any) -> Callable[[RunConfig], RunConfig]:
    return lambda config: replace(config, prototypes=replace(config.prototypes, **changes))


def _dense_slots(kind: Literal["low-rank", "affine"]) -> Callable[[RunConfig], RunConfig]:
    """Dense slots become ones of another kind, with the same bounds."""

    def changed(config: RunConfig) -> RunConfig:
        slots = (replace(s, kind=kind) if s.kind == "dense" else s for s in config.backbone.slots)
        return replace(config, backbone=replace(config.backbone, slots=tuple(slots)))

    return changed


def _as_published(config: RunConfig) -> RunConfig:
    """The paper's method: no prior seed, gate, hardening, ranker or joint refinement."""
    plain = replace(
        config.adapter,
        prior_seed=False,
        strength=False,
        hardening=(),
        familiarity=1.0,
        exposure=False,
        encoder_steps=0,
    )
    return replace(config, adapter=plain, prototypes=replace(config.prototypes, joint_steps=0))


ABLATIONS: dict[str, Callable[[RunConfig], RunConfig]] = {
    "cross-layer transfer": _adapter(cross_layer=False),
    "prior seed": _adapter(prior_seed=False),
    "ranker that reads histories": _adapter(encoder_steps=0),
    "gate": _adapter(strength=False, familiarity=1.0, exposure=False),
    "strength": _adapter(strength=False),
    "familiarity": _adapter(familiarity=1.0, exposure=False),
    "exposure": _adapter(exposure=False),
    "hardening": _adapter(hardening=(), exposure=False),
    "joint refinement": _prototypes(joint_steps=0),
    "several prototypes": _prototypes(count=1),
    "dense edits, low-rank instead": _dense_slots("low-rank"),
    "dense edits, affine instead": _dense_slots("affine"),
    "everything that the paper lacks": _as_published,
}


def with_named_slots(config: RunConfig, slots: tuple[SlotSpec, ...]) -> RunConfig:
    """The configuration with the slots written out, also where the backbone chose them."""
    named = tuple(
        SlotConfig(s.name, s.kind.value, s.rank or SlotConfig.rank, s.bound, s.bias_bound)
        for s in slots
    )
    return replace(config, backbone=replace(config.backbone, slots=named))


def without(config: RunConfig, part: str) -> RunConfig:
    """The configuration with one part switched off. Raises UnknownNameError for another name."""
    if part not in ABLATIONS:
        raise UnknownNameError(f"no ablation is called {part!r}; there are: {', '.join(ABLATIONS)}")
    return ABLATIONS[part](config)
