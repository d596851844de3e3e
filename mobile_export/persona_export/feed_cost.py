"""What feeding slots costs on this machine: fed against baked, call by call in turn, one thread.

Times are of the thread, not of the clock, so that a busy machine changes the ratio little.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from persona_export.executorch_runtime import LoadedMethod

WARM_UP = 20
CALLS = 200


def chain(methods: Sequence[LoadedMethod], inputs: Sequence[torch.Tensor]) -> Callable[[], None]:
    """A call of the methods one after the other, each bound once to what the one before gives.

    A method's outputs stay where they are in memory, so the next reads them in place. The call
    keeps programs and bound tensors alive, which the runtime does not.
    """
    alive: list[tuple[LoadedMethod, list[torch.Tensor]]] = []
    bound = list(inputs)
    for loaded in methods:
        alive.append((loaded, bound))
        loaded.method.set_inputs(bound)
        loaded.method.execute()
        bound = loaded.method.get_outputs(clone_outputs=False)

    def call() -> None:
        for loaded, _ in alive:
            loaded.method.execute()

    return call


def ratios(baked: Callable[[], None], fed: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Median time of each way of feeding ÷ median time of the baked program."""
    calls = {"": baked, **fed}
    times: dict[str, list[int]] = {name: [] for name in calls}
    for index in range(WARM_UP + CALLS):
        for name, call in calls.items():
            start = time.thread_time_ns()
            call()
            if index >= WARM_UP:
                times[name].append(time.thread_time_ns() - start)
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {name: round(medians[name] / medians[""], 3) for name in fed}
