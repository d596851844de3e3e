"""Claim: an edited forward costs at most 5 % more than the same model with baked weights.

One process, one thread, the two called in turn; the median ratio of several runs is printed.
The rival is the `base` method of the same program, whose weights are constants.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import torch

from persona.bundles import open_bundle
from persona.device.live import LiveModel
from persona.device.measure import measure
from persona.runs import load_run, save_run
from persona.training.config import load_config
from persona.training.pipeline import open_dataset, train
from persona_export.export import Wanted, export_bundle

CLAIM = 1.05
RUNS = 5
ITERATIONS = 3000


def main() -> int:
    """Print the ratio for the demo's model; 1 where the claim does not hold."""
    torch.set_num_threads(1)
    config, _ = load_config("digits-quick")
    data = open_dataset(config, None)
    with tempfile.TemporaryDirectory() as folder:
        run, bundle = Path(folder) / "run", Path(folder) / "bundle"
        trained = train(config, data, None, lambda _: lambda _done, _total: None)
        save_run(trained, data.backbone_settings(), run, None)
        export_bundle(load_run(run), (Wanted("executorch-xnnpack"),), bundle, lambda _: None)
        live = LiveModel(open_bundle(bundle))
        live.use_prototype(0)
        golden = live.bundle.golden.inputs[0]
        inputs = [golden[port.name] for port in live.bundle.manifest.inputs]
        ratios = [measure(live, inputs, ITERATIONS).ratio for _ in range(RUNS)]
    ratio = statistics.median(ratios)
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"edited ÷ baked: {ratio:.3f} (median of {RUNS} runs, {spread}); claim: ≤ {CLAIM}")
    return 0 if ratio <= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
