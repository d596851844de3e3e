"""Claim: with the feed that the exporter takes, base and edited cost at most 3 % more than baked.

Rival: the method `base` of the same program, the same model with constant weights. One process, one
thread, call by call in turn; times are of the thread. MobileNetV3-small's classifier is the case
where plain inputs do not hold the claim.
"""

import json
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch
from sample_models import SAMPLES, Sample
from sample_programs import calls

from persona_export.feed_cost import ratios
from persona_export.targets import ExportError

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CLAIM = 1.03
ROUNDS = 5
CHART = Path(__file__).parents[1] / "docs" / "slot-feeds.png"
FEEDS = (("dense", "inputs"), ("dense", "patched"), ("low-rank", "inputs"), ("affine", "inputs"))


def measured(sample: Sample, kind: str, feed: str) -> tuple[float, float]:
    """base ÷ baked and edited ÷ baked, each the median over rounds."""
    with tempfile.TemporaryDirectory() as folder:
        made = calls(sample, kind, feed, Path(folder))
        baked = made.pop("baked")
        rounds = [ratios(baked, made) for _ in range(ROUNDS)]
    return tuple(float(np.median([r[name] for r in rounds])) for name in ("base", "edited"))  # type: ignore[return-value]


def main() -> int:
    """Print the table and draw it; 1 where a backbone has no feed for dense slots within reach."""
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or [sample.name for sample in SAMPLES]
    rows: dict[str, tuple[float, float]] = {}
    best: dict[str, float] = {}
    print(f"{'backbone':20} {'slots':9} {'feed':8} {'base':>6} {'edited':>6}  ÷ baked")
    for sample in SAMPLES:
        if sample.name not in chosen:
            continue
        for kind, feed in FEEDS:
            try:
                found = measured(sample, kind, feed)
            except ExportError as error:
                print(f"{sample.name:20} {kind:9} {feed:8} {error}")
                continue
            rows[f"{sample.name}\n{kind} {feed}"] = found
            print(f"{sample.name:20} {kind:9} {feed:8} {found[0]:6.3f} {found[1]:6.3f}", flush=True)
            if kind == "dense":
                best[sample.name] = min(best.get(sample.name, found[1]), found[1])
    if len(chosen) == len(SAMPLES):
        _draw(rows)
    print(json.dumps({"claim": CLAIM, "best_dense_feed": best}))
    return 0 if all(ratio <= CLAIM for ratio in best.values()) else 1


def _draw(rows: dict[str, tuple[float, float]]) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 0.34 * len(rows) + 1.1))
    places = np.arange(len(rows))
    for offset, index, label in ((-0.2, 0, "base ÷ baked"), (0.2, 1, "edited ÷ baked")):
        bars = axes.barh(places + offset, [row[index] for row in rows.values()], 0.38, label=label)
        axes.bar_label(bars, fmt="%.2f", fontsize=5, padding=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.axvline(CLAIM, color="black", linewidth=0.8, linestyle=":", label=f"claim, {CLAIM}")
    axes.set_yticks(places, [name.replace("\n", ", slots ") for name in rows], fontsize=7)
    axes.set_xlim(0.8, max(1.2, 1.08 * max(max(row) for row in rows.values())))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("thread time ÷ the same model with baked weights (one thread, this machine)")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.08), ncols=3, frameon=False)
    figure.tight_layout()
    figure.savefig(CHART, dpi=110)
    plt.close(figure)
    print(f"chart: {CHART}")


if __name__ == "__main__":
    sys.exit(main())
