"""What made results: configuration, data, software, code and machine; no host's or user's name."""

import hashlib
import os
import platform
from functools import cache
from importlib import resources
from pathlib import Path

import torch

from persona.durable import sha256_of
from persona.formats import schema
from persona.runs import Run, versions


def made_by(run: Run) -> dict[str, object]:
    """What made the results of a run."""
    return {
        "config": schema.encode(run.record.config),
        "data_fingerprint": run.record.data_fingerprint,
        "trained_with": run.record.versions,
        "evaluated_with": versions(),
        "code": code_digest(),
        "machine": machine(),
    }


@cache
def code_digest() -> str:
    """The first 12 digits of a sha256 over the package's modules and presets: what really ran,
    which a version number does not tell.
    """
    with resources.as_file(resources.files("persona")) as package:
        files = sorted(p for p in package.rglob("*") if p.suffix in (".py", ".toml"))
        parts = [f"{p.relative_to(package).as_posix()} {sha256_of(p)}" for p in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def machine() -> dict[str, object]:
    """What the figures were computed on."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's model as Linux names it, else what the platform tells."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
