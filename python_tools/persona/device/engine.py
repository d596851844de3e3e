"""A bundle's ExecuTorch program on this machine: inputs copied into place, slots bound once.

Slot tensors are bound to the program when they change, not on each call, so that an edited
forward costs what a baked one does. A bound tensor must live as long as the binding. Where the
program is in two, slots of the head are patched into a copy of its bytes, and the head loaded anew.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from persona.bundles import Bundle
from persona.formats.manifest import Feed, Head, Program, patched_head
from persona.formats.observation import PooledSpec
from persona.formats.slots import Array
from persona.quiet import quietly

TARGET = "executorch-xnnpack"
BAKED_METHOD = "base"
"""The method with baked weights: the same model without slots, to measure against."""


class EngineError(RuntimeError):
    """A program that cannot be loaded or run here."""


class _Method:
    """One loaded method with its bound tensors."""

    def __init__(self, program: Any, name: str) -> None:
        self._method = program.load_method(name)
        self._name = name
        self._slots: list[torch.Tensor] = []
        self._inputs: list[torch.Tensor] | None = None

    def bind(self, slots: Sequence[Array]) -> None:
        """Bind slot values. Takes effect with the next call, all at once."""
        self._slots = [torch.from_numpy(np.array(s, np.float32, order="C")) for s in slots]
        self._inputs = None

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> list[Array]:
        given = [torch.from_numpy(np.array(x, order="C")) for x in inputs]
        return [output.numpy() for output in self.run(given)]

    def run(self, given: list[torch.Tensor], *, copied: bool = True) -> list[torch.Tensor]:
        """copied: whether outputs outlive the next call."""
        if self._inputs is None or _forms(self._inputs) != _forms(given):
            self._set_inputs(given)
        else:
            for bound, x in zip(self._inputs, given, strict=True):
                bound.copy_(x)
        self._method.execute()
        outputs: list[torch.Tensor] = self._method.get_outputs(clone_outputs=copied)
        return outputs

    def _set_inputs(self, inputs: list[torch.Tensor]) -> None:
        """Bind inputs and slots. After a failure nothing counts as bound."""
        self._inputs = None
        try:
            self._method.set_inputs([*inputs, *self._slots])
        except RuntimeError as error:
            came = ", ".join(f"{str(dtype)[6:]}{list(shape)}" for shape, dtype in _forms(inputs))
            raise EngineError(
                f"method {self._name!r} does not take inputs of {came or 'nothing'}: {error}; "
                "the manifest says its inputs"
            ) from None
        self._inputs = inputs


class _PatchedHead:
    """The second half of a program in two. Its bytes live as long as it is loaded."""

    def __init__(self, file: bytes, head: Head) -> None:
        self._file, self._head, self._bytes = file, head, file
        self._loaded: _Method | None = None

    def patch(self, program: Program, values: Mapping[str, Array]) -> None:
        """Load the head with these slots. The head before must be gone first: XNNPACK's cache
        holds packed weights by name for as long as any module with that name lives.
        """
        changed = patched_head(self._file, program, values)
        self._loaded = None
        self._bytes = changed  # the runtime does not keep them
        self._loaded = _Method(_load(self._bytes), self._head.method)

    def __call__(self, hidden: list[torch.Tensor]) -> list[Array]:
        if self._loaded is None:
            raise EngineError("the head of this program has not been given its slots yet")
        return [output.numpy() for output in self._loaded.run(hidden)]


def _load(program: bytes) -> Any:
    from executorch.extension.pybindings import portable_lib

    return portable_lib._load_program_from_buffer(program)


def _forms(tensors: Sequence[torch.Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(x.shape, x.dtype) for x in tensors]


def _index(feed: Feed) -> int:
    if feed.index is None:
        raise EngineError(f"{TARGET} wants the index of {feed.tensor!r}; export the bundle again")
    return feed.index


class Engine:
    """Runs one program of a bundle on one thread."""

    def __init__(self, bundle: Bundle) -> None:
        try:
            self.program: Program = bundle.manifest.program(TARGET)
        except LookupError as error:
            raise EngineError(f"{error.args[0]}; export it with `--target {TARGET}`") from None
        fed = [feed for feed in self.program.feeds if feed.patch is None]
        self._feeds = sorted(fed, key=_index)
        spec = bundle.manifest.observation
        self._observed = (spec.features, spec.classes) if isinstance(spec, PooledSpec) else ()
        path = str(bundle.path / self.program.path)
        with quietly():
            from executorch.extension.pybindings import portable_lib

            if portable_lib._threadpool_get_thread_count() != 1:
                portable_lib._unsafe_reset_threadpool(1)
            try:
                loaded = portable_lib._load_program(path)
                self._forward = _Method(loaded, self.program.method)
                self._baked = _Method(loaded, BAKED_METHOD)
                observe = self.program.observe_method
                self._observe = None if observe is None else _Method(loaded, observe)
                head = self.program.head
                self._head = (
                    None
                    if head is None
                    else _PatchedHead((bundle.path / head.path).read_bytes(), head)
                )
            except RuntimeError as error:
                raise EngineError(f"ExecuTorch cannot load {path}: {error}") from None

    def bind(self, values: Mapping[str, Array]) -> None:
        """Set every slot tensor: `SLOT.SUFFIX` -> base + prototype + edit."""
        if self._head is not None:
            self._head.patch(self.program, values)
        self._forward.bind([values[feed.tensor].reshape(feed.shape) for feed in self._feeds])

    def predict(self, inputs: Sequence[NDArray[Any]]) -> Array:
        """One sample's inputs, in the manifest's order -> output [1, outputs]."""
        if self._head is None:
            return self._forward(inputs)[0]
        given = [torch.from_numpy(np.array(x, order="C")) for x in inputs]
        return self._head(self._forward.run(given, copied=False))[0]

    def predict_baked(self, inputs: Sequence[NDArray[Any]]) -> Array:
        """The same by the method whose weights are constants: the base."""
        return self._baked(inputs)[0]

    def observe(self, window: Sequence[NDArray[Any]]) -> tuple[Array, Array]:
        """A window's inputs [w, ...] -> features [w, F], posterior [w, C], sample by sample."""
        if self._observe is None:
            raise EngineError("this bundle observes item ids; it has no observe program")
        rows = [self._observe([x[i : i + 1] for x in window]) for i in range(len(window[0]))]
        none = [np.zeros((0, size), np.float32) for size in self._observed]
        features, posterior = zip(none, *rows, strict=True)
        return np.concatenate(features), np.concatenate(posterior)
