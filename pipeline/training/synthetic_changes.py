"""Detection power from synthetic changes on copies of series.

A copy of a series gets a change of known kind and size and is scored from a copy of the series' state. Sizes
are in robust standard deviations of the series' last values, so that all series are disturbed alike. All
trials of a series run in one step of the detector, each in its own slot, beside an undisturbed copy.

This module is kept apart from ``pipeline.evaluate.inject``, whose faults are fixed and labelled, and from the
detectors, which must not depend on these changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector, Points, State
from pipeline.core.types import Power

KINDS: Final = ("spike", "dip", "shift", "drift", "flat")
SIZES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
ROWS: Final = 48  # of one trial
LEAD: Final = 8  # undisturbed rows at its beginning
DRIFT_RAMP_ROWS: Final = 20  # a drift grows to its size over them
MAX_SUDDEN_DELAY_ROWS: Final = 3  # a spike or a dip must be flagged within them


def disturb(x: NDArray[np.float64], kind: str, size: float, row: int) -> NDArray[np.float64]:
    """Return ``x`` (T,) with a change from ``row`` on.

    Args:
        x: values (T,).
        kind: one of ``KINDS``.
        size: size in units of x; its sign is the direction.
        row: first changed row.
    """
    out = x.copy()
    if kind in ("spike", "dip"):
        out[row] += size if kind == "spike" else -size
    elif kind == "shift":
        out[row:] += size
    elif kind == "drift":
        out[row:] += size * np.minimum(np.arange(1, len(x) - row + 1) / DRIFT_RAMP_ROWS, 1.0)
    elif kind == "flat":
        out[row:] = out[row - 1] if row else out[0]
    else:
        raise ValueError(f"no change is called {kind!r}; there are {', '.join(KINDS)}")
    return out


def robust_deviation(x: NDArray[np.float64]) -> float:
    """Return the robust standard deviation of ``x`` (T,); 0 for a constant series."""
    x = x[np.isfinite(x)]
    if not len(x):
        return 0.0
    return max(
        1.4826 * float(np.median(np.abs(x - np.median(x)))), 0.5 * float(np.mean(np.abs(x - x.mean())))
    )


def probe(
    detector: Detector,
    state: State,
    slot: int,
    points: Points,
    name: str,
    deviation: NDArray[np.float64],
    seed: int,
) -> list[Power]:
    """Try every kind and size of change on one series.

    ``state`` and ``points`` are not modified. The channel and the direction of shifts and drifts are drawn by
    ``seed``. A size at which the undisturbed copy is flagged too counts as not detected.

    Args:
        detector: the detector.
        state: state that holds the series.
        slot: slot of the series in ``state``.
        points: the next points, all of this series.
        name: name of the series.
        deviation: robust standard deviation by channel (C,).
        seed: seed of the draws.
    """
    rng = np.random.default_rng(seed)
    channel = int(rng.choice(np.flatnonzero(deviation > 0))) if (deviation > 0).any() else -1
    if channel < 0 or len(points) <= LEAD:
        return []
    sign, channel_name = float(rng.choice((-1.0, 1.0))), detector.spec.channels[channel]
    trials = [(kind, size) for kind in KINDS for size in (SIZES if kind != "flat" else (0.0,))]
    plain = points.values
    values = [plain]
    for kind, size in trials:
        changed = plain.copy()
        step = size * deviation[channel] * (sign if kind in ("shift", "drift") else 1.0)
        changed[:, channel] = disturb(plain[:, channel], kind, step, LEAD)
        values.append(changed)
    flags = _flags(detector, {key: array[[slot]] for key, array in state.items()}, points, values)
    flags[1:, :LEAD] = False
    found = []
    for kind in KINDS:
        reach = LEAD + MAX_SUDDEN_DELAY_ROWS if kind in ("spike", "dip") else len(points)
        rows = [i + 1 for i, (other, _) in enumerate(trials) if other == kind]
        delays = [_delay(flags[i], flags[0], reach) for i in rows]
        sizes = [trials[i - 1][1] for i in rows]
        found.append(_power(name, channel_name, kind, delays, sizes, float(deviation[channel])))
    return found


def _flags(
    detector: Detector, row: State, points: Points, values: Sequence[NDArray[np.float64]]
) -> NDArray[np.bool_]:
    """Return the flags (V, T) of V versions of the points, each from the same state."""
    count, length = len(values), len(points)
    state = {key: np.repeat(array, count, axis=0) for key, array in row.items()}
    slot = np.repeat(np.arange(count, dtype=np.int32), length)
    columns = (
        np.tile(points.time, count),
        np.concatenate(values),
        np.tile(points.missed, count),
        np.tile(points.every, count),
    )
    _, verdicts = detector.step(state, Points(slot, *columns))
    return verdicts.flag.reshape(count, length)


def _delay(flags: NDArray[np.bool_], plain: NDArray[np.bool_], reach: int) -> int | None:
    """Return the rows from the change to the first flag that it caused, or None."""
    hits = np.flatnonzero(flags[LEAD:reach] & ~plain[LEAD:reach])
    return int(hits[0]) if len(hits) else None


def _power(
    series: str,
    channel: str,
    kind: str,
    delays: Sequence[int | None],
    sizes: Sequence[float],
    deviation: float,
) -> Power:
    minimum_size, delay = None, None
    for one, size in zip(reversed(delays), reversed(sizes), strict=True):
        if one is None:
            break
        minimum_size, delay = size, one
    detected = sum(one is not None for one in delays) / len(delays)
    return Power(series, channel, kind, minimum_size, delay, detected, deviation)
