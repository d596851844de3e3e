"""Claim: as the exporter feeds dense slots by itself, base and edited cost at most 3 % over baked.

Rival: the method `base` of the same program, the same model with constant weights. One process, one
thread, call by call in turn; times are of the thread. MobileNetV3-small's classifier is the hard
case. Beside it, without a claim, the feeds that the exporter did not take, and other kinds of slot.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import torch
from sample_models import SAMPLES, Sample
from sample_programs import calls_of, export_sample

from persona_export.feed_cost import ratios
from persona_export.targets import ExportError

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CLAIM = 1.03
ROUNDS = 9
CHART = Path(__file__).parents[1] / "docs" / "slot-feeds.png"
AUTO = "dense auto"

Quartiles = tuple[float, float, float]
Found = dict[str, Quartiles]
"""`base` and `edited` ÷ baked: lower quartile, median and upper quartile over rounds."""


def measured(sample: Sample, kind: str, feed: str) -> tuple[str, Found]:
    """The feed that was taken, and what it costs."""
    with tempfile.TemporaryDirectory() as folder:
        program = export_sample(sample, kind, feed, Path(folder))
        made = calls_of(sample, kind, program, Path(folder))
        baked = made.pop("baked")
        rounds = [ratios(baked, made) for _ in range(ROUNDS)]
    found = {name: np.quantile([r[name] for r in rounds], (0.25, 0.5, 0.75)) for name in made}
    return str(program.slot_feed["chosen"]), {n: tuple(q.tolist()) for n, q in found.items()}


def rows_of(sample: Sample) -> Iterator[tuple[str, Found]]:
    """What the exporter takes by itself and the other feed of dense slots; then other kinds."""
    chosen, found = measured(sample, "dense", "auto")
    yield f"{AUTO}: {chosen}", found
    other = "inputs" if chosen == "patched" else "patched"
    try:
        yield f"dense {other}", measured(sample, "dense", other)[1]
    except ExportError as error:
        print(f"{sample.name:20} dense {other}: {error}")
    for kind in ("low-rank", "affine"):
        chosen, found = measured(sample, kind, "auto")
        yield f"{kind} auto: {chosen}", found


def main() -> int:
    """Print the table and draw it; 1 where the exporter's own feed of dense slots costs more."""
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or [sample.name for sample in SAMPLES]
    table: dict[tuple[str, str], Found] = {}
    print(f"{'÷ baked, median [quartiles]':42} {'base':^20}  {'edited':^20}")
    for sample in (s for s in SAMPLES if s.name in chosen):
        for feed, found in rows_of(sample):
            table[sample.name, feed] = found
            ratios = "  ".join(f"{m:.3f} [{a:.3f} {b:.3f}]" for a, m, b in found.values())
            print(f"{sample.name:20} {feed:21} {ratios}", flush=True)
    if len(chosen) == len(SAMPLES):
        _draw(table)
    claimed = {
        name: max(median for _, median, _ in found.values())
        for (name, feed), found in table.items()
        if feed.startswith(AUTO)
    }
    print(json.dumps({"claim": CLAIM, "dense_auto": claimed}))
    return 0 if all(ratio <= CLAIM for ratio in claimed.values()) else 1


def _draw(table: dict[tuple[str, str], Found]) -> None:
    """One line a feed: base and edited as points, a claim that holds left of the dotted line."""
    figure, axes = plt.subplots(figsize=(7.5, 0.23 * len(table) + 1.1), layout="constrained")
    places = np.arange(len(table))
    base, edited = (np.array([found[x][1] for found in table.values()]) for x in ("base", "edited"))
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
    first = [place for place, (_, feed) in enumerate(table) if feed.startswith(AUTO)]
    shown = [f"{n}   {feed}" if i in first else feed for i, (n, feed) in enumerate(table)]
    axes.set_yticks(places, shown, fontsize=7)
    axes.set_ylim(len(table) - 0.3, -0.7)
    for row in first:
        axes.get_yticklabels()[row].set_fontweight("bold")
        axes.axhline(row - 0.5, color="#dddddd", linewidth=0.6)
    axes.set_xlim(min(0.9, base.min(), edited.min()) - 0.02, farther.max() + 0.05)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("time of a call ÷ that of the same model with baked weights (one thread)")
    figure.legend(fontsize=7, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(CHART, dpi=130)
    plt.close(figure)
    print(f"chart: {CHART}")


if __name__ == "__main__":
    sys.exit(main())
