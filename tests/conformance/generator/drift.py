"""Windows that a device's gate compares with what it last told the cloud, and what it decides."""

import math
from typing import Any

import numpy as np

from . import wire

BUNDLE = wire.digest("persona conformance: drift")
SPECS: dict[str, dict[str, Any]] = {
    "pooled": {
        "kind": "pooled",
        "features": 2,
        "classes": 2,
        "min_count": 1,
        "max_count": 1000,
        "training_mass": [0.5, 0.5],
    },
    "items": {"kind": "items", "vocabulary": 6, "min_count": 1, "max_count": 100},
}
NOW = "2026-06-01T12:00:00Z"
WEEK = {"issued_at": "2026-05-31T12:00:00Z", "expires_at": "2026-06-07T12:00:00Z", "runs": True}

Document = dict[str, Any]


def single(value: float) -> float:
    """The nearest number of binary32."""
    return float(np.float32(value))


def items(*ids: int) -> Document:
    """A window of item ids."""
    return {"format": "persona.observation/1", "bundle": BUNDLE, "kind": "items", "items": ids}


def pooled(
    count: int,
    mean: tuple[float, float] = (0.0, 0.0),
    deviation: tuple[float, float] = (1.0, 1.0),
    prior: float = 0.5,
) -> Document:
    """A window of `count` samples, of which `prior` are of the first class."""
    return {
        "format": "persona.observation/1",
        "bundle": BUNDLE,
        "kind": "pooled",
        "count": count,
        "mean": [single(value) for value in mean],
        "deviation": [single(value) for value in deviation],
        "class_mass": [0.5, 0.5],
        "class_prior": [single(prior), single(1 - prior)],
        "class_mean": [[0.0, 0.0], [0.0, 0.0]],
    }


class Drifts:
    """The cases, and the observations that they name; two cases may share one."""

    def __init__(self) -> None:
        self.cases: list[Document] = []
        self.files: dict[str, bytes] = {}

    def add(
        self,
        name: str,
        about: str,
        told: Document | None,
        observed: Document,
        decision: str,
        drift: float | None = None,
        **other: Any,
    ) -> None:
        """A case. drift: where the gate comes to look at it, as worked out by hand."""
        case: Document = {
            "name": name,
            "about": about,
            "spec": observed["kind"],
            "told": None if told is None else self._file(f"{name}.told", told),
            "observed": self._file(f"{name}.observed", observed),
            "kept": None,
            "now": NOW,
            "decision": decision,
        }
        if drift is not None:
            case["drift"] = drift
        self.cases.append(case | other)

    def _file(self, name: str, document: Document) -> str:
        data = wire.compact(document).encode()
        same = (path for path, known in self.files.items() if known == data)
        path = next(same, f"drift/{name}.json")
        self.files[path] = data
        return path


def drift_cases() -> Drifts:
    """All cases of the gate."""
    cases = Drifts()
    _items(cases)
    _means(cases)
    _mixes(cases)
    _time(cases)
    return cases


def _items(cases: Drifts) -> None:
    told = items(1, 2, 3, 4)
    cases.add("items-same", "the same items in another order", told, items(4, 2, 3, 1), "stay", 0.0)
    cases.add("items-quarter", "a quarter of them is new: the limit itself asks",
              told, items(1, 2, 3, 3), "drifted", 1.0)  # fmt: skip
    eight = items(1, 2, 3, 4, 1, 2, 3, 4)
    cases.add("items-eighth", "an eighth is new", eight, items(1, 2, 3, 4, 1, 2, 3, 5), "stay", 0.5)
    cases.add("items-longer", "shares count, not numbers: the same items twice",
              told, eight, "stay", 0.0)  # fmt: skip
    cases.add("items-all", "nothing is as it was, which is as far as items drift",
              told, items(5, 6), "drifted", 4.0)  # fmt: skip
    cases.add("items-short", "no allowance for sampling: one item in place of another",
              items(1), items(2), "drifted", 4.0)  # fmt: skip
    # Shares are numbers of binary32, as in the vector: a third is 0x1.555556p-2.
    third, sixth = single(1 / 3), single(1 / 6)
    cases.add("items-thirds", "shares are rounded to binary32 before they are compared",
              items(1, 2, 3), items(1, 1, 2, 2, 3, 4), "stay",
              (abs(third - sixth) + sixth) / 2 / 0.25)  # fmt: skip


def _means(cases: Drifts) -> None:
    told = pooled(100)
    cases.add("pooled-same", "the same statistics", told, told, "stay", 0.0)
    cases.add("pooled-both-means", "both means by a deviation: the mean square is 1, ν is 1/50",
              told, pooled(100, (1.0, 1.0)), "drifted", math.sqrt(1 - 2 * 0.02) / 0.5)  # fmt: skip
    cases.add("pooled-one-mean", "one of two by 3/4 the other way: the mean square is 9/32",
              told, pooled(100, (-0.75, 0.0)), "stay",
              math.sqrt(9 / 32 - 2 * 0.02) / 0.5)  # fmt: skip
    cases.add("pooled-counts", "the numbers of samples differ: ν = 1/100 + 1/8",
              told, pooled(8, (1.0, 1.0)), "drifted",
              math.sqrt(1 - 2 * (0.01 + 0.125)) / 0.5)  # fmt: skip
    cases.add("pooled-within-sampling", "3/16 of a deviation in 100 samples: below √(2ν) = 1/5",
              told, pooled(100, (0.1875, 0.1875)), "stay", 0.0)  # fmt: skip
    cases.add("pooled-beyond-sampling", "1/4 of a deviation is above it",
              told, pooled(100, (0.25, 0.25)), "stay", math.sqrt(1 / 16 - 0.04) / 0.5)  # fmt: skip
    cases.add("pooled-at-the-limit", "ν = 1/4 + 1/8, so a mean square of 1 leaves 1/4: that asks",
              pooled(4), pooled(8, (1.0, -1.0)), "drifted", 1.0)  # fmt: skip
    cases.add("pooled-deviations", "variances are averaged, not deviations: 1 and 7 make 5",
              pooled(1000, (0.0, 0.0), (1.0, 7.0)), pooled(1000, (2.5, 0.0), (7.0, 1.0)), "stay",
              math.sqrt(0.5**2 / 2 - 2 * 0.002) / 0.5)  # fmt: skip
    cases.add("pooled-constant-feature", "a deviation of 0 counts as 10⁻⁶",
              pooled(1000, (0.0, 0.0), (0.0, 1.0)), pooled(1000, (2.0**-20, 0.0), (0.0, 1.0)),
              "drifted", math.sqrt((2.0**-20 / 1e-6) ** 2 / 2 - 2 * 0.002) / 0.5)  # fmt: skip
    cases.add("pooled-one-sample", "one sample each: ν is 2, and two deviations are no drift",
              pooled(1), pooled(1, (2.0, 2.0)), "stay", 0.0)  # fmt: skip


def _mixes(cases: Drifts) -> None:
    def mixed(p: float, q: float, sampling: float) -> float:
        """Of two classes, both terms of either sum are the same."""
        return (abs(p - q) - 2 * math.sqrt(2 * sampling * p * (1 - p) / math.pi)) / 0.25

    half = pooled(100)
    cases.add("mix-both", "a half becomes 7/8", half, pooled(100, prior=0.875), "drifted",
              mixed(0.5, 0.875, 0.02))  # fmt: skip
    cases.add("mix-some", "a half becomes 3/4: less, and within what sampling may do",
              half, pooled(100, prior=0.75), "stay", mixed(0.5, 0.75, 0.02))  # fmt: skip
    cases.add("mix-many-samples", "the same in windows of 1000 samples each",
              pooled(1000), pooled(1000, prior=0.75), "stay", mixed(0.5, 0.75, 0.002))  # fmt: skip
    cases.add("mix-told", "noise is that of the mix which was told: 7/8 varies less than 1/2",
              pooled(100, prior=0.875), half, "drifted", mixed(0.875, 0.5, 0.02))  # fmt: skip
    cases.add("mix-one-class", "a mix of one class has no noise, so a quarter is the limit",
              pooled(10, prior=1.0), pooled(10, prior=0.75), "drifted", 1.0)  # fmt: skip
    told, now = (single(0.1), single(1 - 0.1)), (single(0.3), single(1 - 0.3))
    noise = sum(math.sqrt(2 * 0.1 * p * (1 - p) / math.pi) for p in told)
    cases.add("mix-tenth", "1 − p is taken in binary64, of p in binary32",
              pooled(20, prior=0.1), pooled(20, prior=0.3), "stay",
              (abs(told[0] - now[0]) / 2 + abs(told[1] - now[1]) / 2 - noise) / 0.25)  # fmt: skip
    cases.add("mix-short", "in ten samples each a half that becomes 1/4 may be chance",
              pooled(10), pooled(10, prior=0.25), "stay", 0.0)  # fmt: skip
    cases.add("mix-and-means", "the greater of the two drifts counts, here the means'",
              pooled(100), pooled(100, (1.0, 1.0), prior=0.75), "drifted",
              math.sqrt(1 - 2 * 0.02) / 0.5)  # fmt: skip


def _time(cases: Drifts) -> None:
    told, other = items(1, 2, 3, 4), items(5, 6)
    cases.add("told-nothing", "the cloud was told nothing yet", None, told, "never_asked")
    cases.add("told-nothing-kept", "that comes before the edit's time", None, told, "never_asked",
              kept=WEEK, now="2026-06-08T12:00:00Z")  # fmt: skip
    for name, about, now, decision in (
        ("kept", "six days are left of seven", NOW, "stay"),
        ("tenth", "exactly a tenth, 60,480 s, is left", "2026-06-06T19:12:00Z", "stay"),
        ("less-than-a-tenth", "one second less", "2026-06-06T19:12:01Z", "expiring"),
    ):
        drift = 0.0 if decision == "stay" else None
        cases.add(name, about, told, told, decision, drift, kept=WEEK, now=now)
    over = {**WEEK, "runs": False}
    cases.add("over", "its time is over, and it has stopped", told, told, "expiring", kept=over,
              now="2026-06-08T12:00:00Z")  # fmt: skip
    cases.add("from-future", "it rests because the clock was set back", told, told, "expiring",
              kept=over, now="2026-05-30T12:00:00Z")  # fmt: skip
    cases.add("expiring-and-drifted", "time is looked at before the window", told, other,
              "expiring", kept=WEEK, now="2026-06-07T11:00:00Z")  # fmt: skip
    cases.add("kept-and-drifted", "an edit with time left does not keep it from asking", told,
              other, "drifted", 4.0, kept=WEEK)  # fmt: skip
