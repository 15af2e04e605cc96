"""Calibration of verdicts: frequency of rare rows, coverage of intervals.

On undisturbed rows, a rarity of k decades comes in one of 10^k rows, and the stated share of the values lies
inside the prediction interval. The functions are pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from detectors.base import Verdicts

DECADES: Final = (1, 2, 3, 4)
MAX_FACTORS: Final = (2.0, 2.0, 2.0, 3.0)  # between observed and nominal frequency, by decade
#: Rows of a series that are young, and the first row that is old.
YOUNG_ROWS: Final = (200, 2_000)
CONFIDENCE: Final = 0.95
#: A rarity of k decades is stated as such, whatever rounding to 32 bits did.
ROUNDING: Final = 1e-4


def calibrated_decades(verdicts: Verdicts, decision: str) -> NDArray[np.float32]:
    """Return the stated −log10 of the probability of each row.

    Under the decision "usual_range" the surprise only ranks rows; the rarity is the probability.
    """
    return verdicts.rarity if decision == "usual_range" else verdicts.surprise


def rows_by_age(seen: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Return the young and the old ones of rows, given their numbers (N,) in their series."""
    return {"young": (seen >= YOUNG_ROWS[0]) & (seen <= YOUNG_ROWS[1]), "old": seen > YOUNG_ROWS[1]}


@dataclass(frozen=True, slots=True)
class RareFrequency:
    """Observed frequency of rows with p ≤ 10^−decade.

    ``low`` and ``high`` are the ends of the binomial interval, which holds for independent rows. Rows of a
    series are not, so that it is too narrow.
    """

    decade: int
    rows: int
    rare: int
    low: float
    high: float

    @property
    def frequency(self) -> float:
        """Share of the rows, NaN without rows."""
        return self.rare / self.rows if self.rows else float("nan")

    @property
    def factor(self) -> float:
        """Observed over nominal frequency."""
        return self.frequency * 10.0**self.decade

    @property
    def within(self) -> bool | None:
        """True if the frequency is within ``MAX_FACTORS``, None without rows."""
        most = MAX_FACTORS[self.decade - 1]
        return 1 / most <= self.factor <= most if self.rows else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        names = ("decade", "rows", "rare", "frequency", "low", "high", "factor", "within")
        return {name: getattr(self, name) for name in names}


@dataclass(slots=True)
class CalibrationCounts:
    """Counts of rows by rarity, and of values by their place in the interval."""

    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(DECADES), np.int64))
    rare: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(DECADES), np.int64))
    values: int = 0
    inside: int = 0

    def add_rarity(self, rarity: NDArray[np.float32], seen: NDArray[np.int64]) -> None:
        """Count rows by rarity (N,).

        ``seen`` (N,) is the number of the row in its series. A rarity of k decades is not stated before
        10^k rows, so that earlier rows do not count for it.
        """
        for i, decade in enumerate(DECADES):
            able = seen >= 10**decade
            self.rows[i] += int(able.sum())
            self.rare[i] += int((rarity[able] >= decade - ROUNDING).sum())

    def add_interval(
        self, value: NDArray[np.float64], lower: NDArray[np.float32], upper: NDArray[np.float32]
    ) -> None:
        """Count values (N,) inside their interval; values and intervals that are unknown do not count."""
        known = np.isfinite(value) & np.isfinite(lower) & np.isfinite(upper)
        # The ends have 32 bits: a value is compared in the same precision.
        most = float(np.finfo(np.float32).max)
        x = np.clip(value[known], -most, most).astype(np.float32)
        self.values += int(known.sum())
        self.inside += int(((x >= lower[known]) & (x <= upper[known])).sum())

    @property
    def coverage(self) -> float:
        """Share of the values inside the interval, NaN without values."""
        return self.inside / self.values if self.values else float("nan")

    def frequencies(self) -> list[RareFrequency]:
        """Return the frequency of each decade."""
        return [
            RareFrequency(decade, rows, rare, *_binomial_interval(rare, rows))
            for decade, rows, rare in zip(DECADES, self.rows.tolist(), self.rare.tolist(), strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "frequencies": [one.as_dict() for one in self.frequencies()],
            "values": self.values,
            "coverage": self.coverage,
        }


def _binomial_interval(count: int, total: int) -> tuple[float, float]:
    """Return the ends of the Wilson interval (Wilson 1927)."""
    if not total:
        return float("nan"), float("nan")
    found = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)
