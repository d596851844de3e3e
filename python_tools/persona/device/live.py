"""The live model: what runs now, swapped atomically, proven by the probe, taken back on failure.

effective = base + prototype + edit
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.bundles import Bundle
from persona.device.engine import Engine
from persona.formats.edit import Edit
from persona.formats.errors import Code, FormatError
from persona.formats.slots import Array, effective, zero_edit
from persona.formats.verify import changes_nothing, check_probe


@dataclass(frozen=True)
class OnBase:
    """No edit: the backbone as it was shipped."""


@dataclass(frozen=True)
class OnPrototype:
    """A group edit, chosen on the device."""

    index: int


@dataclass(frozen=True)
class OnEdit:
    """The device's own edit, around its prototype."""

    edit: Edit


State = OnBase | OnPrototype | OnEdit


class LiveModel:
    """An engine and the state that it is in. A prediction sees one state, never a mixture."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.engine = Engine(bundle)
        self.state: State = OnBase()
        self._lock = threading.Lock()
        self._slots = bundle.manifest.slots
        self._nothing = zero_edit(self._slots)
        self._bind(OnBase())
        self._check_golden()
        self._base_output = self._run_golden(0)

    def predict(self, inputs: Sequence[NDArray[Any]]) -> Array:
        """One sample's inputs, in the manifest's order -> output [1, outputs]."""
        with self._lock:
            return self.engine.predict(inputs)

    def resume(self, state: State) -> None:
        """Back to the base or to another state that has run before, bit for bit."""
        with self._lock:
            self._bind(state)

    def use_prototype(self, index: int) -> None:
        """Run with a group edit alone."""
        with self._lock:
            self._swap(OnPrototype(index), self.bundle.golden.prototypes[index][0])

    def use_edit(self, edit: Edit) -> None:
        """Swap to a verified edit. If its probe fails, what ran before runs on, and it raises."""
        with self._lock:
            self._swap(OnEdit(edit), edit.probe)

    def _swap(self, state: OnPrototype | OnEdit, expected: Array) -> None:
        before = self.state
        try:
            self._bind(state)
            check_probe(
                expected,
                self._run_golden(0),
                self._base_output,
                self.engine.program.tolerance,
                zero=changes_nothing(self._slots, *self._changes(state)),
            )
        except BaseException:
            self._bind(before)
            raise

    def _bind(self, state: State) -> None:
        self.engine.bind(effective(self._slots, self.bundle.base, *self._changes(state)))
        self.state = state

    def _changes(self, state: State) -> tuple[dict[str, Array], dict[str, Array]]:
        """Prototype and edit of a state, as changes."""
        prototypes = self.bundle.prototypes.changes
        match state:
            case OnBase():
                return self._nothing, self._nothing
            case OnPrototype(index):
                return prototypes[index], self._nothing
            case OnEdit(edit):
                group = edit.info.prototype
                return (self._nothing if group is None else prototypes[group]), edit.tensors

    def _run_golden(self, index: int) -> Array:
        inputs = self.bundle.golden.inputs[index]
        return self.engine.predict([inputs[port.name] for port in self.bundle.manifest.inputs])

    def _check_golden(self) -> None:
        """The health check: every golden output must come before anything else runs."""
        golden = self.bundle.golden
        prototypes = self.bundle.prototypes.changes
        states = [
            (self._nothing, self._nothing, golden.base),
            *((p, self._nothing, e) for p, e in zip(prototypes, golden.prototypes, strict=True)),
            (self._nothing, golden.edit, golden.edited),
        ]
        for prototype, edit, expected in states:
            self.engine.bind(effective(self._slots, self.bundle.base, prototype, edit))
            for index, output in enumerate(expected):
                self._compare(f"output {index}", output, self._run_golden(index))
        self._bind(OnBase())
        observed = zip(golden.inputs, golden.features, golden.posterior, strict=False)
        for index, (inputs, features, posterior) in enumerate(observed):
            names = [port.name for port in self.bundle.manifest.inputs]
            found = self.engine.observe([inputs[name] for name in names])
            self._compare(f"features {index}", features, found[0])
            self._compare(f"posterior {index}", posterior, found[1])

    def _compare(self, what: str, expected: Array, output: Array) -> None:
        scale = max(1.0, float(np.abs(expected).max()))
        difference = float(np.abs(expected - output).max()) / scale
        if not difference <= self.engine.program.tolerance:
            raise FormatError(
                Code.BUNDLE_GOLDEN,
                f"golden {what} is {difference:.2g} away from what it must be; "
                f"{self.engine.program.tolerance:g} is allowed. Export the bundle again, and if "
                "that does not help, this processor needs another target",
            )
