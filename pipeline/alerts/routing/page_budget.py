"""Budget of pages: the anomalies that page, so that undisturbed data pages at the rate of the budget.

Every anomaly is a *candidate* with a surprise. Its p-value is conformal (Vovk, Gammerman & Shafer 2005): the
share of the stream's own past candidates, over all its series, that were at least as surprising; however the
scores are calibrated, an undisturbed candidate is below α with probability α. It pages if p ≤ α with

    α = (B / λ) · exp(−g · D / B),    B wanted pages a day,  λ candidates a day,  D pages so far − pages planned so far

The first factor is per-family error-rate control over time: B expected false pages a day, as in
alpha-spending, and unlike the false discovery rate it does not depend on how many true anomalies there are
(Rebjock et al., NeurIPS 2021, discuss why that matters where anomalies are rare). The second is the feedback
of adaptive conformal inference (Gibbs & Candès, NeurIPS 2021): drift, dependence and a wrong λ move D, and D
moves α back; D is bounded, so that no bad day can silence the next one.

Candidates far beyond the pool (p ≤ α/100 by the tail of the pool) always page, do not enter the pool (an
incident must not become the normal case) and do not use up the budget; on undisturbed data that is one page
in a hundred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY_NS = 86_400e9

_BIN_WIDTH = 0.05  # decades of surprise
_BIN_COUNT = 500  # up to a surprise of 25; beyond is one bin
_POOL_TIME_CONSTANT_NS = 10 * DAY_NS  # time constant of pool and rate
_FAST_TIME_CONSTANT_NS = DAY_NS / 24  # time constant of the fast rate
_MIN_COVERED_NS = DAY_NS / 1440
_FEEDBACK_GAIN = 0.5  # g: a debt of one day's pages changes α by e^−.5
_MAX_DEBT_DAYS = 4.0  # days' worth of pages
_STRONG_RATIO = 100.0
_TAIL_SHARE = 0.1  # share of the pool that the tail is fitted to, but no fewer than _MIN_TAIL_COUNT
_MIN_TAIL_COUNT = 30.0
_LEAST_COUNT = 1e-6  # of a bin; below it the bin is empty
_MIN_COUNTED = 10  # so many candidates at least as surprising are enough to count instead of fitting


@dataclass(frozen=True, slots=True)
class BudgetDecision:
    """Decision whether a candidate pages, with its p-value and the threshold of that moment.

    ``strong``: far beyond the pool, so it pages whatever the budget.
    """

    pages: bool
    strong: bool
    p_value: float
    threshold: float


@dataclass(slots=True)
class AlertBudget:
    """State of one budget.

    Times are ns; ``per_day`` is B. A value: read from the database, changed, written back.
    """

    per_day: float
    started_ns: float
    updated_ns: float
    pool: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_BIN_COUNT))
    elapsed: float = 0.0  # decayed time that the pool covers, ns
    recent: float = 0.0  # decayed count with the short memory
    debt: float = 0.0  # pages so far − planned so far
    paged_ns: list[int] = field(default_factory=list)  # of the last 24 hours
    # Part of the pool in a bin or above it; computed on demand.
    _beyond: NDArray[np.float64] | None = None

    @classmethod
    def new(cls, per_day: float, now_ns: int) -> AlertBudget:
        """Return the state of a new budget."""
        return cls(per_day, float(now_ns), float(now_ns))

    def advance(self, now_ns: int) -> None:
        """Advance the clock: decay the pool and the rates, and count the pages that were planned."""
        passed = now_ns - self.updated_ns
        if passed <= 0:  # the clock was set back
            return
        fade = math.exp(-passed / _POOL_TIME_CONSTANT_NS)
        self.pool *= fade
        self.pool[self.pool < _LEAST_COUNT] = 0.0
        self._beyond = None
        self.elapsed = self.elapsed * fade + _POOL_TIME_CONSTANT_NS * (1 - fade)
        self.recent *= math.exp(-passed / _FAST_TIME_CONSTANT_NS)
        self.debt -= self.per_day * passed / DAY_NS
        self.debt = max(self.debt, -_MAX_DEBT_DAYS * self.per_day)
        self.paged_ns = [t for t in self.paged_ns if t > now_ns - DAY_NS]
        self.updated_ns = float(now_ns)

    def observe(self, surprise: float, now_ns: int) -> None:
        """Add the peak of a candidate that has ended to the pool, unless it was strong."""
        self.advance(now_ns)
        if not self.decide(surprise).strong:
            self.pool[_bin(surprise)] += 1.0
            self._beyond = None
            self.recent += 1.0

    def decide(self, surprise: float) -> BudgetDecision:
        """Return whether a candidate with this peak pages; nothing changes."""
        p, threshold = self.p_value(surprise), self.threshold()
        # A pool that is still small has no tail to be far beyond.
        strong = self._count() >= _MIN_TAIL_COUNT and self._tail(surprise) <= threshold / _STRONG_RATIO
        return BudgetDecision(strong or p <= threshold, strong, p, threshold)

    def record_page(self, decision: BudgetDecision, now_ns: int) -> None:
        """Count a page that is sent."""
        self.advance(now_ns)
        self.paged_ns.append(now_ns)
        if not decision.strong:
            self.debt = min(self.debt + 1.0, _MAX_DEBT_DAYS * self.per_day)

    def p_value(self, surprise: float) -> float:
        """Return the conformal p-value of a peak.

        Where fewer than ten of the pool were as surprising, the exponential tail of the pool gives it.
        """
        count, at = self._count(), _bin(surprise)
        # Half of its own bin: a bin is far narrower than the pool, ties are broken evenly.
        above = float(self._above()[at] - 0.5 * self.pool[at])
        counted = (above + 1.0) / (count + 1.0)
        return (
            counted if above >= _MIN_COUNTED or count < _MIN_COUNTED else min(self._tail(surprise), counted)
        )

    def threshold(self) -> float:
        """Return α: p-values up to it page."""
        feedback = math.exp(-_FEEDBACK_GAIN * self.debt / self.per_day)
        return min(self.per_day / self.candidates_per_day() * feedback, 1.0)

    def candidates_per_day(self) -> float:
        """Return λ, the rate of candidates.

        The rate of the last hour is used if even its lower bound is greater, so that new series do not page
        for days.
        """
        slow = (self._count() + 1.0) / (self.elapsed / DAY_NS + 1.0 / self.per_day)
        covered = _FAST_TIME_CONSTANT_NS * -math.expm1(
            -(self.updated_ns - self.started_ns) / _FAST_TIME_CONSTANT_NS
        )
        fast = (self.recent - 2.0 * math.sqrt(self.recent)) / max(covered, _MIN_COVERED_NS) * DAY_NS
        return float(max(slow, fast))

    def used(self, now_ns: int) -> int:
        """Count the pages of the last 24 hours."""
        return sum(t > now_ns - DAY_NS for t in self.paged_ns)

    def dump(self) -> dict[str, Any]:
        """Return the state as JSON values; of the pool only bins that are not empty.

        Counts are exact: a p-value jumps where the candidates at least as surprising become ten.
        """
        filled = np.flatnonzero(self.pool)
        return {
            "version": 1,
            "started_ns": self.started_ns,
            "updated_ns": self.updated_ns,
            "pool": [[int(i), float(self.pool[i])] for i in filled],
            "elapsed": self.elapsed,
            "recent": self.recent,
            "debt": self.debt,
            "paged_ns": self.paged_ns,
        }

    @classmethod
    def load(cls, state: dict[str, Any], per_day: float) -> AlertBudget:
        """Restore a state that ``dump`` returned; ``per_day`` is that of the configuration of today."""
        made = cls(per_day, state["started_ns"], state["updated_ns"])
        for at, count in state["pool"]:
            made.pool[at] = count
        made.elapsed, made.recent, made.debt = state["elapsed"], state["recent"], state["debt"]
        made.paged_ns = list(state["paged_ns"])
        return made

    def _above(self) -> NDArray[np.float64]:
        if self._beyond is None:
            self._beyond = np.cumsum(self.pool[::-1])[::-1]
        return self._beyond

    def _count(self) -> float:
        return float(self._above()[0])

    def _tail(self, surprise: float) -> float:
        """Return the tail probability by an exponential fitted above the 90 % quantile of the pool.

        It is fitted by the median of the excess, which a few true anomalies in the pool do not move (cf. peaks
        over threshold, Siffer et al., KDD 2017).
        """
        count, beyond = self._count(), self._above()
        start = max(
            int(np.searchsorted(-beyond, -max(_TAIL_SHARE * count, _MIN_TAIL_COUNT), side="right")) - 1, 0
        )
        middle = int(np.searchsorted(-beyond, -beyond[start] / 2, side="right")) - 1
        scale = max(middle - start, 1) * _BIN_WIDTH / math.log(2.0)
        excess = max(surprise - start * _BIN_WIDTH, 0.0)
        return float(min(beyond[start] / count, 1.0) * math.exp(-excess / scale)) if count else 1.0


def _bin(surprise: float) -> int:
    return (
        min(int(max(surprise, 0.0) / _BIN_WIDTH), _BIN_COUNT - 1)
        if math.isfinite(surprise)
        else _BIN_COUNT - 1
    )
