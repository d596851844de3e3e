"""Commands in this process or in one of their own, and what they printed for machines."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from persona.cli import main

Said = tuple[int, Any]


@pytest.fixture(scope="session")
def persona() -> Callable[..., Said]:
    """Run a command with --json; gives its exit code and the one JSON object on stdout."""

    def run(*arguments: object) -> Said:
        result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, json.loads(result.stdout)

    return run


@pytest.fixture(scope="session")
def refused(persona: Callable[..., Said]) -> Callable[..., str]:
    """Run a command that must fail with this exit code and stable code; gives its message."""

    def run(exit_code: int, code: str, *arguments: object) -> str:
        found, said = persona(*arguments)
        assert (found, said["error"]["code"]) == (exit_code, code), said
        return said["error"]["message"]

    return run


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Start a command in a process of its own, which hears Ctrl-C also where we do not: a shell
    without job control has its background jobs ignore it.
    """

    def popen(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "persona", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return popen


@pytest.fixture
def below_a_file(tmp_path: Path) -> Path:
    """A path where nobody can write, not even root."""
    file = tmp_path / "file"
    file.write_text("")
    return file / "out"
