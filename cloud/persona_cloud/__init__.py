"""The cloud adapter over HTTP: devices enrol, send observations, and get signed edits back."""

from persona_cloud.app import create_app
from persona_cloud.config import CloudConfig

__all__ = ["CloudConfig", "create_app"]
