"""The cases of the probe: what the edited program answered, and what was expected."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import wire

TOLERANCE = 0.0009765625


def probe_cases() -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Cases and the one file that they read: tensors `NAME.expected`, `.output` and `.base`."""
    cases, tensors = [], {}
    expected = np.array([[1.0, -8.0, 0.5]], "<f4")
    base = np.array([[1.0, -7.0, 0.25]], "<f4")
    small, inf, nan = expected / np.float32(16), np.inf, np.nan
    edge = np.float32(TOLERANCE)
    mismatch, no_effect = "probe.mismatch", "probe.no_effect"

    def shifted(values: NDArray[Any], by: float) -> NDArray[Any]:
        return (values + np.array([[by, 0, 0]])).astype("<f4")

    for name, about, wanted, output, before, zero, verdict in (
        ("same", "exactly what was expected", expected, expected, base, False, "ok"),
        ("at-tolerance", "off by tolerance × 8, the largest magnitude expected",
         expected, shifted(expected, 8 * edge), base, False, "ok"),
        ("beyond-tolerance", "off by a little more",
         expected, shifted(expected, 8 * edge + 2.0**-22), base, False, mismatch),
        ("below", "off in the other direction",
         expected, shifted(expected, -8 * edge - 2.0**-22), base, False, mismatch),
        ("small-at-tolerance", "the magnitude counts as 1 where it is less",
         small, shifted(small, edge), base, False, "ok"),
        ("small-beyond", "and a little more is too much",
         small, shifted(small, edge + 2.0**-22), base, False, mismatch),
        ("zero-same", "an edit of zeros leaves the base", base, base, base, True, "ok"),
        ("no-effect", "an edit that changes something leaves the base", base, base, base, False,
         no_effect),
        ("no-effect-within", "so it does within the tolerance", shifted(base, edge), base, base,
         False, no_effect),
        ("no-effect-but-mismatch", "the mismatch is found first", expected, base, base, False,
         mismatch),
        ("zero-mismatch", "an edit of zeros must match too", expected, base, base, True, mismatch),
        ("negative-zero", "0 and -0 are the same answer", np.array([[0.0, 0, 0]], "<f4"),
         np.array([[-0.0, 0, 0]], "<f4"), np.array([[0.0, 0, 0]], "<f4"), False, no_effect),
        ("nan", "the program answers NaN", expected, shifted(expected, nan), base, False, mismatch),
        ("inf", "the program answers infinity", expected, shifted(expected, inf), base, False,
         mismatch),
        ("shape", "the program answers with another shape", expected, expected[0], base, False,
         mismatch),
        ("broadcast", "one number is not three equal ones", np.ones((1, 3), "<f4"),
         np.ones((1, 1), "<f4"), np.zeros((1, 1), "<f4"), False, mismatch),
        ("transposed", "nor is a column a row", expected, expected.T.copy(), base, False, mismatch),
    ):  # fmt: skip
        tensors |= {f"{name}.expected": wanted, f"{name}.output": output, f"{name}.base": before}
        cases.append(
            {"name": name, "about": about, "tolerance": TOLERANCE, "zero": zero, "verdict": verdict}
        )
    return cases, {"probes/probes.safetensors": wire.container(tensors, None)}
