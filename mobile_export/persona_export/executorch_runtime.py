"""ExecuTorch's runtime on this machine, on one thread: a method as a callable on arrays."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from persona.formats.slots import Array
from persona.quiet import quietly
from persona_export.targets.base import ExportError

Run = Callable[[Sequence[NDArray[Any]]], list[Array]]


class LoadedMethod:
    """A method of a program; it keeps the program's bytes alive, which the runtime does not."""

    def __init__(self, program: bytes | Path, name: str) -> None:
        with quietly():
            from executorch.extension.pybindings import portable_lib

            # Only before anything is loaded: a thread pool that changes under a method breaks it.
            if portable_lib._threadpool_get_thread_count() != 1:
                portable_lib._unsafe_reset_threadpool(1)
            self._bytes = program if isinstance(program, bytes) else program.read_bytes()
            try:
                self._program = portable_lib._load_program_from_buffer(self._bytes)
                self.method = self._program.load_method(name)
            except RuntimeError as error:
                raise ExportError(
                    f"ExecuTorch cannot load method {name!r} of this program: {error}"
                ) from None

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> list[Array]:
        """Run on arrays, bound anew."""
        return [output.numpy() for output in self.tensors([_tensor(a) for a in arrays])]

    def tensors(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The same on tensors."""
        self.method.set_inputs(list(inputs))
        self.method.execute()
        outputs: list[torch.Tensor] = self.method.get_outputs()
        return outputs


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array, order="C"))
