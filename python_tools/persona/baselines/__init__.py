"""Rivals: what one would do otherwise. One file each, registered by name."""

from persona.baselines.base import Rival, Setting, rivals

__all__ = ["Rival", "Setting", "rivals"]
