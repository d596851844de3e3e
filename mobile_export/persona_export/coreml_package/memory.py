"""What a package's activations need at most, told from shapes.

An estimate: Core ML plans its memory on the phone, fuses operations and may copy what they share.
"""

import math

import numpy as np

from persona_export.coreml_package.interpreter import Package
from persona_export.coreml_package.program import TensorType


def activation_bytes(package: Package) -> int:
    """The largest sum of results that are alive at once, operation by operation in their order.

    Inputs and constants are left out. Sizes known only at run time count as the largest of them.
    """
    program = package.program
    open_sizes = [high for feature in program.inputs for low, high in feature.limits if low < high]
    largest = max(open_sizes, default=1)
    last = {name: i for i, operation in enumerate(program.operations) for name in operation.uses()}
    last |= dict.fromkeys(program.results, len(program.operations))
    alive: dict[str, int] = {}
    peak = 0
    for index, operation in enumerate(program.operations):
        if operation.is_constant:
            continue
        alive |= {output.name: _bytes(output.type, largest) for output in operation.outputs}
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, index) > index}
    return peak


def _bytes(declared: TensorType, open_size: int) -> int:
    sizes = [open_size if size is None else size for size in declared.shape]
    return int(np.dtype(declared.dtype).itemsize * math.prod(sizes))
