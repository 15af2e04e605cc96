"""Who forecasts: a series climbs from its mean so far to the season, to a running Gaussian and to the LSTM's readout, by skill.

Each rung's recent error decides: a higher rung takes over once its error is the smallest, whatever the series is called. The Gaussian rung is
river's ``anomaly.GaussianScorer`` (its ``proba.Gaussian``: Welford's mean and variance) as arrays: river keeps one Python object a series and takes
one point at a time, 54,000 to 1.2 million points a second and no batched state; ``tests/unit/test_detectors_ladder.py`` checks ours against river's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.kernel import kernel
from detectors.lanes import Floats, Lanes

STATIC, SEASONAL, RIVER, LSTM = 1, 2, 3, 4  # places in ``detectors.base.GUARDS``
RECENT = 200.0
WARM = 8
LARGEST = 1e4
N, MEAN, SQUARES = range(3)


class Ladder:
    """Chooses among the rungs' forecasts of each row. State: 40 bytes a lane."""

    tracks: tuple[str, ...] = ("surplus",)

    def initial(self, lanes: int) -> State:
        return {"ladder.gauss": np.zeros((lanes, 3)), "ladder.error": np.zeros((lanes, 4), np.float32)}

    def run(self, state: State, lanes: Lanes, readout: Floats | None, out: Floats) -> tuple[Floats, NDArray[np.uint8]]:
        """Residual |v − expected| in steps into ``out`` (M, 1); returns expected in the units of v (M,) and the guard (M,)."""
        m = len(lanes)
        expected, guard = np.full(m, np.nan, np.float32), np.zeros(m, np.uint8)
        if readout is None:
            readout = expected.copy()
        _ladder(state["ladder.gauss"], state["ladder.error"], lanes.lane, lanes.v, lanes.step, lanes.season, readout, out, expected, guard)
        return expected, guard


@kernel
def _ladder(gauss, error, lane, v, step, season, readout, out, expected, guard):  # type: ignore[no-untyped-def]  # noqa: ANN001
    guesses = np.empty(4, np.float32)
    for i in range(len(lane)):
        g, e = gauss[lane[i]], error[lane[i]]
        n = g[N]
        guesses[0] = g[MEAN]
        guesses[1] = season[i] if not np.isnan(season[i]) else g[MEAN]
        guesses[2] = g[MEAN]
        guesses[3] = readout[i]
        best = -1
        if n > 0:
            best = 0 if n < WARM else 2
            if n >= WARM and not np.isnan(season[i]) and e[1] <= e[2]:
                best = 1
            if not np.isnan(readout[i]) and e[3] <= e[best]:
                best = 3
        if best >= 0:
            expected[i], guard[i] = guesses[best], best + 1
        out[i, 0] = np.nan
        if np.isnan(v[i]):
            continue
        if n >= WARM:  # before that the size of a step is not known either
            out[i, 0] = min(abs(v[i] - guesses[best]) / step[i], np.float32(LARGEST))
            for k in range(4):
                if np.isnan(guesses[k]):
                    continue
                miss = min(abs(v[i] - guesses[k]) / step[i], np.float32(LARGEST))
                if e[k] > 0:
                    miss = min(miss, 6 * e[k] + np.float32(0.1))
                e[k] += (miss - e[k]) / min(n - WARM + 1, RECENT)
        g[N] += 1
        off = v[i] - g[MEAN]
        g[MEAN] += off / g[N]
        g[SQUARES] += off * (v[i] - g[MEAN])
