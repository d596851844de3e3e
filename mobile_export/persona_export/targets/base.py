"""What a target is: a runtime and processor that a bundle has a program for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from persona.backbones import Backbone
from persona.formats.manifest import Program
from persona.formats.slots import Array, SlotSpec
from persona.registry import Registry

Precision = Literal["fp32", "fp16", "int8"]
SlotFeed = Literal["auto", "inputs", "patched"]
"""How slots reach a program: as its inputs, patched into a head of its own, or as costs least."""

Executor = Callable[[Mapping[str, NDArray[Any]], Mapping[str, Array]], Array]
"""Inputs by name and slot values by tensor -> output. Values as the program's feeds carry them."""


class ExportError(RuntimeError):
    """A backbone that does not become a right program; the message says where it went wrong."""


class NotRunnableError(ExportError):
    """A program that no runtime on this machine executes; nothing is said against it."""


@dataclass(frozen=True)
class Source:
    """What is exported."""

    backbone: Backbone
    slots: tuple[SlotSpec, ...]
    pooled: bool
    """Whether a program that computes the observation's features is needed."""
    slot_feed: SlotFeed = "auto"


class Target(ABC):
    """Writes programs for one runtime, and runs them where this machine can."""

    precisions: ClassVar[tuple[Precision, ...]]
    lacks: ClassVar[Mapping[Precision, str]] = {}
    """Why the other precisions are not among them."""
    slot_feeds: ClassVar[tuple[SlotFeed, ...]] = ("inputs",)
    run_in_cpp: ClassVar[bool] = False
    """Whether the C++ runner takes its programs."""

    @abstractmethod
    def export(self, source: Source, precision: Precision, bundle: Path) -> Program:
        """Write the program under `bundle` and describe it. Raises ExportError."""

    @abstractmethod
    def executor(self, bundle: Path, program: Program) -> Executor:
        """A callable that runs the program on this machine.

        A target whose programs nothing here executes runs the graph that went into the delegate,
        right after it exported one; afterwards it raises NotRunnableError.
        """

    def features(
        self, bundle: Path, program: Program
    ) -> Callable[[Mapping[str, NDArray[Any]]], tuple[Array, Array]]:
        """A callable that runs the observe program: inputs -> features and posterior."""
        raise ExportError(f"{program.target} has no observe program here: {bundle}")

    def faults(self, bundle: Path, program: Program) -> list[str] | None:  # noqa: ARG002
        """What is wrong with how a program's files are built, that running it might not tell.

        None where nothing here can look into them.
        """
        return None


targets: Registry[type[Target]] = Registry("target", "persona_export.targets")
