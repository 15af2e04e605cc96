"""The trend of a price: told while it goes on, and neither after a jump nor on daily bars."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec, build, contract
from detectors.base import CAUSES, Points, Verdicts
from detectors.stages.usual_range.ordinary import TREND_ROWS, moved_trend
from detectors.stages.usual_range.visits import DAY_NS

EVERY_NS, FAULT, LENGTH = 5 * contract.MINUTE_NS, 4_000, 60
SPREAD = 0.001


def prices(seed: int, change: float = 0.0, rows: int = FAULT + 4 * LENGTH) -> np.ndarray:
    """Return a random walk that also moves by ``change`` a row in ``LENGTH`` rows from ``FAULT`` on."""
    steps = np.random.default_rng(seed).normal(0, SPREAD, rows)
    steps[FAULT : FAULT + LENGTH] += change
    return np.asarray(100 * np.exp(np.cumsum(steps)))


def verdicts_of(
    values: np.ndarray, tier: str = "standard", every_ns: int = EVERY_NS, cuts: tuple[int, ...] = ()
) -> Verdicts:
    n = len(values)
    zeros, every = np.zeros(n, np.int32), np.full(n, every_ns, np.int64)
    time = np.arange(n, dtype=np.int64) * every_ns
    detector = build(DetectorSpec(tier=tier, preset="stock", channels=("close",), decision="usual_range"))
    return contract.run_batches(detector, Points(zeros, time, values[:, None], zeros.copy(), every), cuts)


def trend_rows(verdicts: Verdicts) -> np.ndarray:
    return np.flatnonzero(verdicts.flag & (verdicts.cause == CAUSES.index("trend")))


@pytest.mark.parametrize("tier", ["light", "standard"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_trend_of_usual_steps_is_told_with_its_direction(tier: str, sign: int):
    verdicts = verdicts_of(prices(1, sign * 5 * SPREAD), tier)
    rows = trend_rows(verdicts)
    assert not len(rows[rows < FAULT])
    during = rows[(rows >= FAULT) & (rows < FAULT + LENGTH)]
    assert len(during) > 3
    assert set(verdicts.side[during]) == {sign}
    observed = verdicts.observed[during]
    beyond = observed > verdicts.usual_high[during] if sign > 0 else observed < verdicts.usual_low[during]
    assert beyond.all()
    # It ends with the movement, though the price is far from its former mean for some time.
    assert len(rows[rows >= FAULT + LENGTH + TREND_ROWS / 2]) <= 3


@pytest.mark.parametrize("jumps", [(FAULT,), (FAULT, FAULT + 1)])
def test_a_jump_and_a_wrong_tick_leave_no_trend(jumps: tuple[int, ...]):
    values = prices(2)
    values[jumps[0] : jumps[1] if len(jumps) > 1 else None] *= 1.2
    verdicts = verdicts_of(values)
    assert verdicts.flag[FAULT]
    assert not verdicts.flag[FAULT + 1]  # after a wrong tick the way back
    assert not len(trend_rows(verdicts))


def test_a_trend_of_days_is_the_ordinary_course_of_a_price():
    assert not len(trend_rows(verdicts_of(prices(1, 5 * SPREAD), every_ns=DAY_NS)))


def test_a_trend_does_not_depend_on_batches():
    values = prices(3, 5 * SPREAD)
    whole, cut = verdicts_of(values), verdicts_of(values, cuts=(7, 3_999, 4_020, 4_021))
    assert len(trend_rows(whole))
    np.testing.assert_array_equal(whole.ratio, cut.ratio)
    np.testing.assert_array_equal(whole.observed, cut.observed)


def test_a_trend_follows_the_mean_of_its_rows():
    trend, step, nan = np.float32(0), np.float32(0.01), np.float32(np.nan)
    for _ in range(400):
        trend = moved_trend(trend, step, step)
    assert trend == pytest.approx(0.01 * TREND_ROWS, rel=0.01)
    assert moved_trend(trend, np.float32(-0.5), np.float32(0.02)) == pytest.approx(-0.02)
    assert moved_trend(trend, nan, nan) < trend
    # A wrong tick and its way back, of the size that is usual, leave nothing.
    tick = moved_trend(np.float32(-0.001), np.float32(0.05), np.float32(0.05))
    assert abs(moved_trend(tick, np.float32(-0.05), np.float32(0.05))) < 0.003
