"""Targets: one file each, registered by name."""

from persona_export.targets.base import (
    Executor,
    ExportError,
    NotRunnableError,
    Precision,
    SlotFeed,
    Source,
    Target,
    targets,
)

__all__ = [
    "Executor",
    "ExportError",
    "NotRunnableError",
    "Precision",
    "SlotFeed",
    "Source",
    "Target",
    "targets",
]
