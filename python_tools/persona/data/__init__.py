"""Data sets: streams of devices. One file each, registered by name."""

from persona.data.base import DataError, Dataset, Device, datasets

__all__ = ["DataError", "Dataset", "Device", "datasets"]
