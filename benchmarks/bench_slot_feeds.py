"""Claim: by one feed or another, base and edited with dense slots cost at most 3 % more than baked.

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
                best[sample.name] = min(best.get(sample.name, max(found)), max(found))
    if len(chosen) == len(SAMPLES):
        _draw(rows)
    print(json.dumps({"claim": CLAIM, "best_dense_feed": best}))
    return 0 if all(ratio <= CLAIM for ratio in best.values()) else 1


def _draw(rows: dict[str, tuple[float, float]]) -> None:
    """One line a feed: base and edited as points, a claim that holds left of the dotted line."""
    figure, axes = plt.subplots(figsize=(7.5, 0.23 * len(rows) + 1.1), layout="constrained")
    places = np.arange(len(rows))
    base, edited = np.array(list(rows.values())).T
    farther = np.maximum(base, edited)
    axes.hlines(places, np.minimum(base, edited), farther, color="#bbbbbb", linewidth=1.2)
    axes.plot(base, places, "o", color="#0072b2", mfc="white", ms=5, label="base ÷ baked")
    axes.plot(edited, places, "o", color="#d55e00", ms=4, label="edited ÷ baked")
    for place, at, ratio in zip(places, farther, edited, strict=True):
        axes.annotate(
            f"{ratio:.3f}",
            (at, place),
            (6, -2.5),
            textcoords="offset points",
            fontsize=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.axvline(CLAIM, color="black", linewidth=0.8, linestyle=":", label=f"claim, {CLAIM}")
    names = [name.split("\n") for name in rows]
    shown = [
        f"{name}   {feed}" if i % len(FEEDS) == 0 else feed for i, (name, feed) in enumerate(names)
    ]
    axes.set_yticks(places, shown, fontsize=7)
    axes.set_ylim(len(rows) - 0.3, -0.7)
    for place in places[:: len(FEEDS)][1:]:
        axes.axhline(place - 0.5, color="#dddddd", linewidth=0.6)
    axes.set_xlim(min(0.9, base.min(), edited.min()) - 0.02, farther.max() + 0.05)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("time of a call ÷ that of the same model with baked weights (one thread)")
    figure.legend(fontsize=7, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(CHART, dpi=130)
    plt.close(figure)
    print(f"chart: {CHART}")


if __name__ == "__main__":
    sys.exit(main())
