"""Makes docs/results.md: every study's tables, each with the command that made it and its seconds.

    python benchmarks/results_page.py DATA OUT [--jobs N] [--seeds N]

DATA holds one folder a data set, named as in `SETTINGS`. Studies whose data are not there are left
out, loudly. A study that was interrupted goes on; one that is done is only read.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from persona.evaluation.figures import duration, share
from persona.evaluation.markdown import render_markdown
from persona.evaluation.results import Results, Table
from persona.formats import schema
from persona.formats.strict_json import strict_json

SETTINGS = {
    "digits-parts": None,
    "digits-as-published": None,
    "digits-drift": None,
    "cifar10": "cifar10",
    "cifar10-as-published": "cifar10",
    "mnist-writers": "mnist",
    "motion-sense-habits": "motionsense",
    "motion-sense": "motionsense",
    "movielens-new-session-1": "ml1m",
    "movielens-new-session-3": "ml1m",
    "movielens-full-window": "ml1m",
    "amazon-beauty": "beauty",
}
"""Preset -> the folder of its data under DATA; None where it needs none."""

FINDINGS = Path(__file__).with_name("results_findings.md")
"""What people read in the tables: written by hand, set before them."""

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
GATE = "<!-- gate -->"
"""Where in the findings the gate's table goes."""

STREAM = "stream: "
ALLOWED = 0.02
"""The goal: so many more devices may lose than chance alone would make."""


def study(preset: str, data: Path | None, out: Path, jobs: int, seeds: int | None) -> Results:
    """Run, or go on with, one study through the command that its section names."""
    command = ["persona", "evaluate", preset, "--out", str(out), "--jobs", str(jobs)]
    if data is not None:
        command += ["--data", str(data)]
    if seeds is not None:
        command += ["--seeds", str(seeds)]
    subprocess.run(command, check=True)
    found = strict_json((out / "results.json").read_text(encoding="utf-8"))
    return schema.decode(Results, found, preset)


def section(preset: str, folder: str | None, results: Results) -> str:
    """The study's tables under the command that makes them."""
    data = "" if folder is None else f" --data {folder}"
    seeds = f" --seeds {len(results.seeds)}"
    spent = duration(results.stages["trainings"])
    return (
        f"{render_markdown(results)}\n"
        f"`persona evaluate {preset}{data}{seeds} --out {preset}`; {results.trainings} trainings, "
        f"{spent} of one core in all.\n"
    )


def gate_table(studies: Mapping[str, Results]) -> str:
    """Devices that lose under gated edits, and in brackets by chance, in streams gone wrong."""
    streams = sorted({n for r in studies.values() for n in r.conditions if n.startswith(STREAM)})
    lines = [
        ["", "unseen devices", *(name.removeprefix(STREAM) for name in streams)],
        ["---", *["---:"] * (1 + len(streams))],
    ]
    for preset, results in studies.items():
        if any(name in results.conditions for name in streams):
            tables = [results.table, *(results.conditions.get(name) for name in streams)]
            lines.append([preset, *("" if t is None else _losers(t) for t in tables)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _losers(table: Table) -> str:
    found, limit = table.rows["edited"].losers, table.chance + ALLOWED
    shown = f"{share(found.mean)} ({share(table.chance)})"
    return shown if found.mean <= limit else f"**{shown}**"


def page(studies: Mapping[str, Results]) -> str:
    """All of docs/results.md: findings, the gate over all studies, then each study's tables."""
    findings = FINDINGS.read_text(encoding="utf-8").replace(GATE, gate_table(studies))
    return "\n".join([findings, *(section(p, SETTINGS[p], r) for p, r in studies.items())])


def main() -> int:
    """Write docs/results.md; 1 where a study was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, help="fewer trainings than the presets ask for")
    given = parser.parse_args()
    studies, missing = {}, []
    for preset, folder in SETTINGS.items():
        data = None if folder is None else given.data / folder
        if data is not None and not data.exists():
            print(f"LEFT OUT: {preset}: there is no {data}", file=sys.stderr)
            missing.append(preset)
            continue
        studies[preset] = study(preset, data, given.out / preset, given.jobs, given.seeds)
    PAGE.write_text(page(studies), encoding="utf-8")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
