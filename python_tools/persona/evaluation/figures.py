"""How figures are written for people: scores and gains in a metric's unit, sizes, times.

A minus is U+2212, and a number never parts from its unit at the end of a line.
"""

import math
from dataclasses import dataclass

from persona.evaluation.results import Estimate

SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
LEVEL = f"95{SPACE}%"
"""The level of every interval."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Metric:
    """A score's name in a sentence, and how its values and their differences are written.

    factor: what a stored value is multiplied by. unit, gain_unit: after a score, after a gain.
    """

    name: str
    factor: float
    decimals: int
    unit: str
    gain_unit: str

    @classmethod
    def named(cls, name: str) -> "Metric":
        """Accuracy in per cent and points; any other metric as it is, with 3 decimals."""
        if name == "accuracy":
            return cls("accuracy", 100.0, 1, "%", "points")
        return cls(name.upper(), 1.0, 3, "", "")

    @property
    def title(self) -> str:
        """The name at the beginning of a sentence."""
        return self.name[0].upper() + self.name[1:]

    def number(self, value: float) -> str:
        """A score without its unit."""
        return decimal(value * self.factor, self.decimals)

    def score(self, value: float) -> str:
        """A score: `86.4 %`, `0.561`."""
        return _with(self.number(value), self.unit)

    def range(self, estimate: Estimate) -> str:
        """The interval of a score: `84.9 to 87.8 %`."""
        low, high = self.number(estimate.low), self.number(estimate.high)
        return _with(f"{low} to {high}", self.unit)

    def signed(self, value: float) -> str:
        """A gain without its unit, with its sign."""
        text = decimal(value * self.factor, self.decimals)
        return text if text.startswith(MINUS) or not text.strip("0.") else f"+{text}"

    def gain(self, value: float) -> str:
        """A gain: `+4.6 points`."""
        return _with(self.signed(value), self.gain_unit)

    def gain_range(self, estimate: Estimate) -> str:
        """The interval of a gain: `+3.8 to +5.4 points`."""
        return _with(f"{self.signed(estimate.low)} to {self.signed(estimate.high)}", self.gain_unit)

    def amount(self, value: float) -> str:
        """A difference whose direction the sentence tells: `4.6 points`."""
        return _with(self.number(abs(value)), self.gain_unit)

    def threshold(self, value: float) -> str:
        """A round limit: `5 points`, `0.05`."""
        return _with(f"{value * self.factor:g}", self.gain_unit)


class Gains(Metric):
    """Differences in a metric, written with their sign wherever a score would be."""

    @classmethod
    def of(cls, metric: Metric) -> "Gains":
        """Differences in `metric`."""
        unit = metric.gain_unit
        return cls(f"gain in {metric.name}", metric.factor, metric.decimals, unit, unit)

    def number(self, value: float) -> str:
        return Metric.signed(self, value)

    def signed(self, value: float) -> str:
        return self.number(value)


def decimal(value: float, decimals: int) -> str:
    """A number with a true minus sign; what rounds to zero has none."""
    text = f"{value:.{decimals}f}"
    return text.replace("-", MINUS if text.strip("-0.") else "")


def thousandths(value: float) -> str:
    """A number with three decimals, as metrics without a unit are written."""
    return decimal(value, 3)


def share(value: float) -> str:
    """A share of 1 as per cent: `7.0 %`."""
    return _with(decimal(100 * value, 1), "%")


def share_range(estimate: Estimate) -> str:
    """The interval of a share of 1, as per cent without their sign: `[4.5, 10.0]`."""
    return f"[{decimal(100 * estimate.low, 1)}, {decimal(100 * estimate.high, 1)}]"


def shares(estimate: Estimate) -> str:
    """A share of 1 with its interval: `7.0 % [4.5, 10.0]`."""
    return f"{share(estimate.mean)} {share_range(estimate)}"


def size(count: float) -> str:
    """Bytes in decimal units: `812 bytes`, `3.1 kB`, `1.24 MB`."""
    if count < 1_000:
        return _with(f"{count:.0f}", "bytes")
    return _with(f"{count / 1e3:.1f}", "kB") if count < 1e6 else _with(f"{count / 1e6:.2f}", "MB")


def quantity(value: float) -> str:
    """About three digits, thousands set apart: `4.21`, `42.1`, `421`, `4 213`."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def milliseconds(value: float) -> str:
    """A time without its unit: `0.019`, `5.46`, `136`."""
    return decimal(value, 3) if 0 < value < 1 else quantity(value) if value else "0"


def duration(seconds: float) -> str:
    """`0.84 s`, `12.3 s`, `2 min 05 s`."""
    if seconds < 100:
        return _with(quantity(seconds), "s")
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{SPACE}min{SPACE}{rest:02d}{SPACE}s"


def scientific(value: float) -> str:
    """A tiny number: `1.2 × 10⁻⁶`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}{SPACE}×{SPACE}10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def _with(text: str, unit: str) -> str:
    return f"{text}{SPACE}{unit}" if unit else text
