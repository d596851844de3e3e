"""Claim: a small model with an edit takes less time than a static one of four times its operations.

Rival: the same family, twice as wide, with baked weights; both exported, one process, one thread,
one sample a call, call by call in turn. At one sample overheads rule, so the share of the time is
far above the share of the operations, which is printed beside it. What the two are worth is in
docs/results.md: rows `edited` and `static-larger` of `motion-sense` and `motion-sense-habits`.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import torch
from sample_models import Sample
from sample_programs import calls
from torch.utils.flop_counter import FlopCounterMode

from persona_export.feed_cost import ratios

HEAD = ("head.0", "head.2")
PAIRS = (
    (
        Sample("sensor-net", {"width": 16}, HEAD, "trunk.stages.1.norm"),
        Sample("sensor-net", {"width": 32}, HEAD, "trunk.stages.1.norm"),
    ),
    (
        Sample("conv-net", {"size": 32, "channels": 3, "width": 8}, HEAD, "trunk.stages.1.norm"),
        Sample("conv-net", {"size": 32, "channels": 3, "width": 16}, HEAD, "trunk.stages.1.norm"),
    ),
)
ROUNDS = 5


def operations(sample: Sample) -> int:
    """Multiply-accumulates of one forward."""
    backbone = sample.backbone()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone(*backbone.example_inputs())
    return counter.get_total_flops() // 2


def share_of_time(small: Sample, large: Sample) -> float:
    """Time of the small edited program ÷ that of the larger baked one, median over rounds."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        edited = calls(small, "dense", "inputs", Path(first))["edited"]
        larger = calls(large, "dense", "inputs", Path(second))["baked"]
        rounds = [ratios(larger, {"edited": edited})["edited"] for _ in range(ROUNDS)]
    return statistics.median(rounds)


def main() -> int:
    """Print a row a family; 1 where the small edited model takes as long as the larger one."""
    torch.set_num_threads(1)
    shares = []
    print(f"{'family':12} {'width':>9} {'operations':>11} {'time':>6}   small and edited ÷ larger")
    for small, large in PAIRS:
        shares.append(share_of_time(small, large))
        widths = f"{small.settings['width']} ÷ {large.settings['width']}"
        share = operations(small) / operations(large)
        print(f"{small.name:12} {widths:>9} {share:11.3f} {shares[-1]:6.3f}", flush=True)
    return 0 if all(share < 1 for share in shares) else 1


if __name__ == "__main__":
    sys.exit(main())
