"""Whether backbones had converged: an undertrained static model flatters every edit.

Judged in every training by how much held-out loss still fell in the last third, at its best.
"""

from collections.abc import Mapping
from statistics import median
from typing import Any

from persona.evaluation.figures import share
from persona.evaluation.results import Results
from persona.formats import schema

CONVERGED = 0.05
"""Largest relative fall of held-out loss in the last third of a training that has converged."""


def _late(curve: Mapping[str, Any]) -> tuple[float, float] | None:
    """The least loss before the last third, and of all; None where it was looked at too seldom."""
    steps, loss = curve["steps"], curve["loss"]
    before = [v for s, v in zip(steps, loss, strict=True) if s <= steps[-1] * 2 / 3]
    return (min(before), min(loss)) if before else None


def late_falls(results: Results) -> dict[str, tuple[float | None, ...]]:
    """Stage or rival -> by how much of itself its loss still fell late, in every training."""
    found: dict[str, list[float | None]] = {}
    for curves in (results.curves, *results.further_curves):
        for name, curve in schema.encode(curves).items():
            late = _late(curve)
            fall = None if late is None else (late[0] - late[1]) / late[0]
            found.setdefault(name, []).append(fall)
    return {name: tuple(falls) for name, falls in found.items()}


def convergence(results: Results) -> str | None:
    """Whether the static model had converged in every training, and how rivals' backbones did."""
    falls = late_falls(results)
    if "backbone" not in falls:
        return None
    found = [fall for fall in falls["backbone"] if fall is not None]
    if len(found) < len(falls["backbone"]):
        return "The static model was checked too seldom to tell whether it had converged."
    late = sum(fall > CONVERGED for fall in found)
    begun = "In the last third of its training the static model’s held-out loss fell by "
    if len(found) == 1:
        before, after = _late(schema.encode(results.curves)["backbone"]) or (0.0, 0.0)
        said = f"{begun}{share(found[0])} ({before:.4f} to {after:.4f})"
        who = "it may"
    else:
        said = (
            f"{begun}{share(median(found))} in the median of {len(found)} trainings and "
            f"{share(max(found))} at most"
        )
        who = f"{late} of them may"
    if late:
        said += f": {who} not have converged, and an undertrained model flatters every edit."
    else:
        said += ": it had converged, so gains are not those of an undertrained model."
    rivals = {n: [f for f in v if f is not None] for n, v in falls.items() if n in results.rivals}
    others = [f"that of {name} by {share(max(v))} at most" for name, v in rivals.items() if v]
    return f"{said} Likewise {', '.join(others)}." if others else said
