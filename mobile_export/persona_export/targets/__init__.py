"""Targets: one file each, registered by name."""

from persona_export.targets.base import (
    Executor,
    ExportError,
    Precision,
    Source,
    Target,
    targets,
)

__all__ = ["Executor", "ExportError", "Precision", "Source", "Target", "targets"]
