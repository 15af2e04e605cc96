"""The contract suite that every detector passes.

``check(detector)`` raises ``CheckFailed`` with the first violation:

    causality       a change of the future changes no verdict of the past
    determinism     the same points give the same verdicts
    batching        batch boundaries change no verdict, not even its last bits (see ``detectors.row_product``)
    round trip      a state that was stored as bytes continues with the same verdicts
    independence    series do not influence each other, whatever their rows in the state
    robustness      missing, constant and huge values give finite surprises, scores in [0, 1], contributions that sum to 1 or 0

Labels cannot leak: ``Points`` has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from detectors.base import CAUSES, FORECASTERS, Detector, Points, State, Verdicts

MINUTE_NS = 60_000_000_000
START_NS = 1_700_000_000_000_000_000
RANGE_COLUMNS = ("ratio", "observed", "usual_low", "usual_high", "rarity", "channel_rarity")
EXAMPLE_ROWS = 700


class CheckFailed(AssertionError):
    """A detector broke the contract of ``detectors.base.Detector``."""


def make_points(slot: NDArray[np.int32], values: NDArray[np.float64], row: NDArray[np.int64]) -> Points:
    """Return points at a cadence of one minute.

    ``row`` (N,) numbers the points of each series.
    """
    n = len(slot)
    return Points(
        slot, START_NS + row * MINUTE_NS, values, np.zeros(n, np.int32), np.full(n, MINUTE_NS, np.int64)
    )


def example_points(channels: int, series: int = 3, rows: int = EXAMPLE_ROWS, seed: int = 0) -> Points:
    """Return interleaved series with the usual disturbances.

    They have a season, noise, a spike, a level shift, missing values and a flatline.

    Args:
        channels: Number of channels of a series.
        series: Number of series.
        rows: Number of points of a series.
        seed: Seed of the values.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(rows)
    x = (
        rng.normal(size=(rows, series, channels))
        + 8 * np.sin(t / 6.0)[:, None, None] * np.arange(1, series + 1)[:, None]
    )
    x[rows // 2] += 60
    x[int(rows * 0.7) :] += 25
    x[rng.random(x.shape) < 0.02] = np.nan
    x[int(rows * 0.85) : int(rows * 0.9)] = 3.0
    slot = np.tile(np.arange(series, dtype=np.int32), rows)
    return make_points(slot, x.reshape(-1, channels), np.repeat(t, series))


def select_rows(given: Points, rows: NDArray[np.bool_] | slice) -> Points:
    """Return the given rows of all columns."""
    return Points(*(getattr(given, f.name)[rows] for f in fields(Points)))


def run_batches(
    detector: Detector, given: Points, cuts: tuple[int, ...] = (), state: State | None = None
) -> Verdicts:
    """Return the verdicts of ``given``, taken in batches.

    Args:
        detector: The detector.
        given: All points.
        cuts: Rows at which a batch ends.
        state: State to begin with; by default that of a new detector.
    """
    state = detector.initial(int(given.slot.max()) + 1) if state is None else state
    parts, start = [], 0
    for end in (*cuts, len(given)):
        state, verdicts = detector.step(state, select_rows(given, slice(start, end)))
        parts.append(verdicts)
        start = end
    return Verdicts(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Verdicts)))


def require_equal(
    left: Verdicts,
    right: Verdicts,
    what: str,
    rows: slice | NDArray[np.bool_] = slice(None),
    tolerance: float = 0.0,
) -> None:
    """Require equal verdicts.

    Args:
        left: One run.
        right: The other run.
        what: Beginning of the message.
        rows: Rows to compare.
        tolerance: Largest difference, relative to 1 + |left|.

    Raises:
        CheckFailed: at the first difference.
    """
    for name in ("score", "surprise", "expected", "contribution", "lower", "upper", *RANGE_COLUMNS):
        a, b = (np.asarray(getattr(v, name), np.float64)[rows] for v in (left, right))
        off = np.abs(a - b) > tolerance * (1 + np.abs(a))
        off |= np.isnan(a) != np.isnan(b)
        if off.any():
            where = np.argwhere(off)[0]
            raise CheckFailed(
                f"{what}: {name} of row {where[0]} is {a[tuple(where)]:.9g} in one run and {b[tuple(where)]:.9g} in the other"
            )
    if (differ := np.flatnonzero(left.flag[rows] != right.flag[rows])).size:
        raise CheckFailed(f"{what}: row {differ[0]} is flagged in one run only")
    for name in ("channel", "side"):
        # Two channels whose ratios are equal but for rounding may change places.
        apart = (getattr(left, name)[rows] != getattr(right, name)[rows]) & (left.flag[rows])
        if (differ := np.flatnonzero(apart)).size:
            raise CheckFailed(f"{what}: {name} of row {differ[0]} differs")


def causality(detector: Detector) -> None:
    """Require that a change of the future changes no verdict of the past."""
    given = example_points(len(detector.spec.channels))
    past = len(given) * 3 // 5
    changed = select_rows(given, slice(None))
    changed.values = given.values.copy()
    changed.values[past:] = -1000.0 - 3.0 * given.values[past:]
    require_equal(
        run_batches(detector, given),
        run_batches(detector, changed),
        "a change of the future changes the past",
        slice(0, past),
        1e-6,
    )
    cut = select_rows(given, slice(0, past))
    require_equal(
        run_batches(detector, given),
        run_batches(detector, cut),
        "later points change the past",
        slice(0, past),
    )


def determinism(detector: Detector) -> None:
    """Require that two runs over the same points agree."""
    given = example_points(len(detector.spec.channels))
    require_equal(
        run_batches(detector, given),
        run_batches(detector, given),
        "two runs over the same points",
    )


def batching(detector: Detector) -> None:
    """Require that batch boundaries change no verdict."""
    given = example_points(len(detector.spec.channels))
    whole = run_batches(detector, given)
    require_equal(
        whole, run_batches(detector, given, (1, 2, 50, 51, 600, 1111)), "the points cut into batches"
    )
    require_equal(
        whole,
        run_batches(detector, given, tuple(range(97, len(given), 97))),
        "the points cut into batches of 97",
    )


def round_trip(detector: Detector) -> None:
    """Require that a state stored as bytes continues with the same verdicts."""
    given = example_points(len(detector.spec.channels))
    half = len(given) // 2
    state, _ = detector.step(detector.initial(3), select_rows(given, slice(0, half)))
    again = load(save({name: np.ascontiguousarray(array) for name, array in state.items()}))
    rest = select_rows(given, slice(half, None))
    require_equal(
        run_batches(detector, rest, state=state),
        run_batches(detector, rest, state=again),
        "the state after a round trip through bytes",
    )


def independence(detector: Detector) -> None:
    """Require that series do not influence each other."""
    given = example_points(len(detector.spec.channels))
    together = run_batches(detector, given)
    for series in range(3):
        rows = given.slot == series
        alone = select_rows(given, rows)
        alone.slot = np.full(len(alone), 4 - 2 * series % 5, np.int32)
        require_equal(
            Verdicts(*(getattr(together, f.name)[rows] for f in fields(Verdicts))),
            run_batches(detector, alone),
            f"series {series} alone in another slot",
        )
    before = detector.initial(5)
    kept = {name: array.copy() for name, array in before.items()}
    after, _ = detector.step(before, given)
    for name, array in after.items():
        if not np.array_equal(array[3:], kept[name][3:], equal_nan=array.dtype.kind == "f"):
            raise CheckFailed(f"a step writes to rows of {name} without a point")


def require_sound(verdicts: Verdicts, what: str) -> None:
    """Require finite surprises, scores in [0, 1] and sound contributions.

    Contributions of a point sum to 1 or 0.
    """
    if not (np.isfinite(verdicts.surprise).all() and (verdicts.surprise >= 0).all()):
        raise CheckFailed(f"{what}: a surprise is negative or not finite")
    if not ((verdicts.score >= 0) & (verdicts.score <= 1)).all():
        raise CheckFailed(f"{what}: a score lies outside [0, 1]")
    total = verdicts.contribution.sum(axis=1)
    if not (np.isclose(total, 1, atol=1e-4) | np.isclose(total, 0)).all():
        raise CheckFailed(
            f"{what}: contributions sum to {total.min():.3g} … {total.max():.3g}, not to 1 or 0"
        )
    if np.isinf(verdicts.expected).any():
        raise CheckFailed(f"{what}: an expected value is infinite")
    for rarity in (verdicts.rarity, verdicts.channel_rarity):
        if not (np.isfinite(rarity).all() and (rarity >= 0).all()):
            raise CheckFailed(f"{what}: a rarity is negative or not finite")
    unknown = verdicts.ratio == 0
    for name in ("observed", "usual_low", "usual_high"):
        if not np.isnan(getattr(verdicts, name)[unknown]).all():
            raise CheckFailed(f"{what}: {name} is a number where no quantity was judged")
    # An impossible value of a series without a past has no range.
    outside = (verdicts.ratio > 1) & ~(np.isnan(verdicts.usual_low) | np.isnan(verdicts.usual_high))
    below, above = verdicts.observed < verdicts.usual_low, verdicts.observed > verdicts.usual_high
    if (outside & ~(below | above)).any():
        raise CheckFailed(f"{what}: an observed value lies inside the usual range that it is said to leave")
    if (outside & ((below & (verdicts.side > 0)) | (above & (verdicts.side < 0)))).any():
        raise CheckFailed(f"{what}: a stated side contradicts observed value and usual range")
    if verdicts.forecaster.max(initial=0) >= len(FORECASTERS):
        raise CheckFailed(f"{what}: a forecaster is not an index into FORECASTERS")
    if verdicts.cause.max(initial=0) >= len(CAUSES):
        raise CheckFailed(f"{what}: a cause is not an index into CAUSES")


def robustness(detector: Detector) -> None:
    """Require sound verdicts on unusual values."""
    channels, rows = len(detector.spec.channels), np.arange(400)
    slot = np.zeros(400, np.int32)
    wave = 100 + np.sin(rows / 5.0)
    cases = {
        "constant": np.full(400, 7.0),
        "zeros": np.zeros(400),
        "all missing": np.full(400, np.nan),
        "first half missing": np.where(rows < 200, np.nan, wave),
        "huge": wave * 1e300,
        "one huge spike": np.where(rows == 300, 1e308, wave),
        "tiny": wave * 1e-300,
        "constant, then a step": np.where(rows < 300, 5.0, 6.0),
    }
    quiet = {"constant", "all missing"}
    if detector.spec.preset != "stock":  # no price is 0
        quiet.add("zeros")
    for what, x in cases.items():
        verdicts = run_batches(detector, make_points(slot, np.repeat(x[:, None], channels, axis=1), rows))
        require_sound(verdicts, what)
        if what in quiet and verdicts.flag.any():
            raise CheckFailed(f"{what}: no event, and row {int(np.argmax(verdicts.flag))} is flagged")
    require_sound(run_batches(detector, example_points(channels)), "the example")


CHECKS: tuple[Callable[[Detector], None], ...] = (
    causality,
    determinism,
    batching,
    round_trip,
    independence,
    robustness,
)


def check(detector: Detector) -> None:
    """Run every check.

    Raises:
        CheckFailed: with the first violation.
    """
    for one in CHECKS:
        one(detector)
