"""What every command shares: the terminal, progress, JSON for machines, and errors with a code.

People read stderr (progress, messages) and stdout (results). With `--json` stdout holds exactly
one JSON object, also when the command fails: {"error": {"code": ..., "message": ...}}.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from persona.durable import PlaceError
from persona.formats.errors import FormatError
from persona.registry import UnknownNameError

F = TypeVar("F", bound=Callable[..., Any])

DONE, CHECK_FAILED, WRONG_USAGE = 0, 1, 2

# A descriptor of our own: exporters are silenced by redirecting descriptor 2.
stderr = Console(file=os.fdopen(os.dup(2), "w"))
stdout = Console()

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
)


class CheckFailedError(Exception):
    """A check that the user asked for did not pass; `code` is stable.

    found: what the check found, for --json.
    """

    def __init__(self, code: str, message: str, found: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.found = found or {}


def say_json(value: Any) -> None:
    """The one JSON object of a command."""
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")
    sys.stdout.flush()


def _wrong_usage() -> tuple[type[Exception], ...]:
    """Errors of other packages that mean wrong usage; only packages in use are looked at."""
    names = {
        "persona.training.config": "ConfigError",
        "persona.data.base": "DataError",
        "persona.runs": "RunError",
        "persona.training.stages": "TrainingError",
        "persona.evaluation.study": "StudyError",
        "persona.issuing": "OtherModelError KeyNotInBundleError",
        "persona.method.slots": "SlotError",
        "persona.signing": "SigningKeyError",
        "persona.refined": "RefinementError",
        "persona.offline_edits": "PlanError",
        "persona.offline_ray": "RayError",
        "persona.device.client": "AddressError",
        "persona.device.engine": "EngineError",
        "persona_cloud.serving": "ListenError ServerFailedError",
        "persona_cloud.database": "StoreError",
    }
    return tuple(
        getattr(sys.modules[module], name)
        for module, found in names.items()
        if module in sys.modules
        for name in found.split()
    )


def _classify(error: Exception) -> tuple[int, str] | None:
    """Exit code and stable code of an error that is the user's to mend; None for our own bugs."""
    if isinstance(error, FormatError | CheckFailedError):
        return CHECK_FAILED, str(error.code)
    if isinstance(error, PlaceError | UnknownNameError | PermissionError):
        return WRONG_USAGE, "usage.place" if isinstance(error, OSError) else "usage.name"
    if isinstance(error, _wrong_usage()):
        return WRONG_USAGE, f"usage.{type(error).__name__.removesuffix('Error').lower()}"
    export_error = getattr(sys.modules.get("persona_export.targets.base"), "ExportError", ())
    if isinstance(error, export_error):
        return CHECK_FAILED, "export.failed"
    return None


def command(function: F) -> F:
    """Turn errors into messages and exit codes; Ctrl-C leaves with 130 and nothing half written."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            stderr.print("[yellow]interrupted; nothing half written remains[/]")
            sys.exit(130)
        except click.ClickException:
            raise
        except Exception as error:
            found = _classify(error)
            if found is None:
                if as_json:
                    message = f"{type(error).__name__}: {error}"
                    say_json({"error": {"code": "internal", "message": message}})
                raise
            exit_code, code = found
            message = error.args[0] if isinstance(error, FormatError) else str(error)
            if as_json:
                details = error.found if isinstance(error, CheckFailedError) else {}
                say_json({"error": {"code": code, "message": message}, **details})
            stderr.print(f"[red]error[/] [dim]\\[{code}][/] {_plain(message)}", highlight=False)
            sys.exit(exit_code)

    return run  # type: ignore[return-value]


def _plain(message: str) -> str:
    return message.replace("[", "\\[")


def unseen_device_options(function: F) -> F:
    """Add --data and --seed: which unseen device a command plays."""
    seed = click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Which unseen device to be.",
    )
    data = click.option(
        "--data", type=click.Path(path_type=Path), help="The data that the run trained on."
    )
    return data(seed(function))


class Stages:
    """A progress bar a stage, with the seconds that each took."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._name = ""
        self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> Callable[[int, int], None]:
        """Begin a stage; returns what is called with steps done and steps in all."""
        self.finish()
        task = self._progress.add_task(name, total=None)
        self._task, self._name, self._start = task, name, time.perf_counter()

        def advance(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=total)

        return advance

    def finish(self) -> None:
        """End the stage that is under way."""
        if self._task is not None:
            self._progress.update(self._task, completed=1, total=1)
            self.seconds[self._name] = time.perf_counter() - self._start
            self._task = None


@contextmanager
def progress_stages() -> Iterator[Stages]:
    """Progress bars on stderr while the block runs."""
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=stderr) as progress:
        stages = Stages(progress)
        yield stages
        stages.finish()
