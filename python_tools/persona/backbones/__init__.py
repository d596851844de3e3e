"""Backbones: one file each, registered by name."""

from persona.backbones.base import Backbone, DynamicDim, InputSpec, backbones

__all__ = ["Backbone", "DynamicDim", "InputSpec", "backbones"]
