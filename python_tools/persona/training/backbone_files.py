"""A user's own backbone: one Python file that registers a class, named in the configuration."""

import importlib.util
import sys
from pathlib import Path

from persona.backbones import Backbone, backbones
from persona.training.config import BackboneConfig, ConfigError


def backbone_file(config: BackboneConfig, folder: Path | None) -> Path | None:
    """Where the user's file is, if the configuration names one."""
    if config.file is None:
        return None
    path = (folder or Path()) / config.file
    if not path.is_file():
        raise ConfigError(f"backbone.file: there is no {path}")
    return path


def find_backbone(config: BackboneConfig, folder: Path | None) -> type[Backbone]:
    """The configured backbone class, after importing the user's file where there is one."""
    path = backbone_file(config, folder)
    if path is not None:
        spec = importlib.util.spec_from_file_location(f"persona_user_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ConfigError(
                f"backbone.file: {path} cannot be imported: {_said(error)}"
            ) from error
    return backbones[config.name]


def _said(error: Exception) -> str:
    """The error with its kind, and the line where a file is not Python."""
    place = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}{place}: {error}"
