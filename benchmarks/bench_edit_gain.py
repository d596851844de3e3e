"""Claim: on devices never trained on, the edit beats the static model and another device's edit.

The demo's preset, trained anew with each of five seeds (backbone and adapter), each scored on 200
unseen devices of its own; checkpoints are chosen on validation devices. Prints each seed's paired
gain and the interval over seeds (Student's t), which judges the claim. About ten minutes.
"""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import t

from persona.evaluation.protocol import evaluate
from persona.evaluation.results import Results
from persona.runs import load_run, save_run
from persona.training.config import RunConfig, load_config
from persona.training.pipeline import open_dataset, train

SEEDS = range(5)
DEVICES = 200
CLAIMED = ("edited_minus_static", "edited_minus_other")


def trained_and_scored(config: RunConfig) -> Results:
    """One training and its evaluation."""
    data = open_dataset(config, None)
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        trained = train(config, data, None, lambda _: lambda _done, _total: None)
        save_run(trained, data.backbone_settings(), run, None)
        return evaluate(
            load_run(run), data, DEVICES, (config.seed,), lambda _: lambda _done, _total: None
        )


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds."""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - half, mean + half


def main() -> int:
    """Print gains in points; 1 where an interval includes zero."""
    torch.set_num_threads(1)
    config, _ = load_config("digits")
    found: dict[str, list[float]] = {name: [] for name in (*CLAIMED, "prototype_minus_static")}
    for seed in SEEDS:
        results = trained_and_scored(replace(config, seed=seed))
        for name, values in found.items():
            values.append(100 * getattr(results, name).mean)
        gains = ", ".join(f"{name} {values[-1]:+.1f}" for name, values in found.items())
        levels = f"static {100 * results.static.mean:.1f}, edited {100 * results.edited.mean:.1f}"
        rivals = ", ".join(f"{n} {100 * e.mean:.1f}" for n, e in results.rivals.items())
        print(f"seed {seed}: {levels}; {gains}; {rivals}", flush=True)
    intervals = {name: interval(values) for name, values in found.items()}
    for name, (mean, low, high) in intervals.items():
        print(f"{name}: {mean:+.1f} points [{low:+.1f}, {high:+.1f}] over {len(SEEDS)} seeds")
    return 0 if all(intervals[name][1] > 0 for name in CLAIMED) else 1


if __name__ == "__main__":
    sys.exit(main())
