"""Latency of base against edited, call by call in turn, in one run on one thread."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from persona.bundles import Bundle
from persona.device.engine import Engine
from persona.device.live import LiveModel
from persona.formats.measurement import Host, Latency, Measurement

WARM_UP = 50


def measure(
    live: LiveModel,
    inputs: Sequence[NDArray[Any]],
    iterations: int,
    edit_to_active_ms: float | None = None,
) -> Measurement:
    """Time `iterations` calls of each, after a warm-up, with the state that is live now."""
    engine = live.engine
    base, edited = interleaved(
        lambda: engine.predict_baked(inputs), lambda: engine.predict(inputs), iterations
    )
    summaries = Latency.of(base, WARM_UP), Latency.of(edited, WARM_UP)
    delegation = engine.program.delegation.get(engine.program.method, {})
    return Measurement(
        format="persona.measurement/1",
        model=live.bundle.manifest.model,
        bundle=live.bundle.digest,
        target=engine.program.target,
        precision=engine.program.precision,
        delegates=("XnnpackBackend",) * int(delegation.get("delegates", 0)),
        host=Host(
            system=platform.system(),
            machine=platform.machine(),
            cores=os.cpu_count() or 1,
            threads=1,
            thermal="unknown",
        ),
        base=summaries[0],
        edited=summaries[1],
        ratio=summaries[1].p50_us / summaries[0].p50_us,
        load_ms=load_time_ms(live.bundle),
        edit_to_active_ms=edit_to_active_ms,
    )


def interleaved(
    first: Callable[[], object], second: Callable[[], object], iterations: int
) -> tuple[list[float], list[float]]:
    """Microseconds of each call, the two in turn, so that a noisy moment hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(WARM_UP + iterations):
        for call, found in zip((first, second), times, strict=True):
            start = time.perf_counter_ns()
            call()
            if index >= WARM_UP:
                found.append((time.perf_counter_ns() - start) / 1e3)
    return times


def load_time_ms(bundle: Bundle) -> float:
    """Milliseconds to read the program and make its methods ready."""
    start = time.perf_counter()
    Engine(bundle)
    return (time.perf_counter() - start) * 1e3
