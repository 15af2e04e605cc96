"""Inputs of a network from the clock and from earlier days.

All times are those of the wall clock of a zone, so that "yesterday at 8" stays 8 o'clock over a clock change.
They are those of the next row, which the network forecasts:

    hour      sine and cosine of one, two, four and eight turns a day
    weekday   one input for each day of the week, Monday first
    holiday   1 on a public holiday, the day after one, and a week after one
    lags      for yesterday and a week ago: the value at the same time relative to the last value, as asinh of
              units, and 1 if it is known and that day was a holiday as well, or as little as the row's

Earlier values are kept in quarters of an hour, as the mean of the rows of each. A quarter that a clock change
skips is unknown; of one that it repeats the second pass counts.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.forecasters.lstm_features import FEATURES, MAX_ABS_UNITS, FeatureRows
from detectors.forecasters.network_spec import EXTRA_INPUTS, ExtraInputs, NetworkSpec
from detectors.jit import kernel
from detectors.local_time import holiday_days, local_ns

#: Begins the names of the state arrays. They do not depend on the weights.
LAG_PREFIX: Final = "lag_"
QUARTER_NS: Final = 900_000_000_000
QUARTERS_PER_DAY: Final = 96
DAY_NS: Final = QUARTERS_PER_DAY * QUARTER_NS
KEPT_QUARTERS: Final = 8 * QUARTERS_PER_DAY
MINUTE_NS: Final = 60_000_000_000
FIRST_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday; Monday is 0
LAG_QUARTERS: Final = np.array([QUARTERS_PER_DAY, 7 * QUARTERS_PER_DAY])
#: Of each lag, and of the last value.
GATES: Final = len(LAG_QUARTERS) + 1
#: Days before a row at which a holiday is an input.
HOLIDAY_DAYS: Final = np.array([0, 1, 7])
TURNS: Final = (1, 2, 4, 8)
#: Gates of lags beyond it have the same weight.
MAX_GATE: Final = 30.0
#: Factor of the gates: they begin nearly closed, and a training of few updates has to open them.
GATE_RATE: Final = 8.0

_ANGLE: Final = np.arange(1440)[:, None] * (2 * np.pi / 1440) * np.array(TURNS)
#: Inputs of the hour by minute of the day.
_HOURS: Final = np.concatenate([np.sin(_ANGLE), np.cos(_ANGLE)], 1).astype(np.float32)


class CalendarInputs:
    """The inputs of a spec that depend on time, in the order calendar, lags.

    State per channel slot, with lags: means of the last 8 days' quarters of an hour, number of the newest
    quarter and of its rows, and the value that means are relative to; 3.1 KB.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        """Prepare the inputs of ``spec``. Raises ValueError for an unknown country."""
        self.calendar, self.lags = (one in spec.extra_inputs for one in ExtraInputs)
        self.zone, self.holidays = spec.zone, holiday_days(spec.holidays)
        self.width = sum(EXTRA_INPUTS[one] for one in spec.extra_inputs)
        #: Number of columns of ``gate_inputs``, and of the column of the first lag.
        self.gate_width = spec.width + self.width + len(LAG_QUARTERS)
        self.lag_columns = FEATURES + self.width - EXTRA_INPUTS[ExtraInputs.LAGS] if self.lags else -1

    def initial(self, slots: int) -> State:
        """Return the state of ``slots`` channel slots without points; {} without lags."""
        if not self.lags:
            return {}
        return {
            "lag_values": np.full((slots, KEPT_QUARTERS), np.nan, np.float32),
            "lag_newest": np.full((slots, 2), -1, np.int64),
            "lag_anchor": np.full(slots, np.nan, np.float64),
        }

    def advance(
        self,
        state: State,
        slot: Ints,
        clock: tuple[NDArray[np.int64], NDArray[np.int64]],
        x: NDArray[np.float64],
        rows: FeatureRows,
    ) -> Floats:
        """Return the inputs of N points behind those of ``rows`` (N, F + width).

        The state changes in place.

        Args:
            state: Arrays of ``initial``.
            slot: Channel slot of each point (N,).
            clock: Event times (N,) and cadences (N,) in ns; cadence 0: unknown.
            x: Values (N,), NaN where one is missing.
            rows: Inputs of ``lstm_features`` for the same points.
        """
        if not self.width:
            return rows.features
        time, every = clock
        out = np.zeros((len(slot), FEATURES + self.width), np.float32)
        out[:, :FEATURES] = rows.features
        following = local_ns(self.zone, time + every)
        if self.calendar:
            _fill_calendar(following, self.holidays, out[:, FEATURES:])
        if self.lags:
            kept = (state["lag_values"], state["lag_newest"], state["lag_anchor"])
            moments = (local_ns(self.zone, time), following)
            _fill_lags(
                kept, slot, moments, self.holidays, (x, rows.last, rows.unit), out[:, self.lag_columns :]
            )
        return out


def _fill_calendar(local: NDArray[np.int64], holidays: NDArray[np.int64], out: Floats) -> None:
    """Write the inputs of local times (N,) to the first columns of ``out``."""
    days = local // DAY_NS
    hours = _HOURS.shape[1]
    out[:, :hours] = _HOURS[(local - days * DAY_NS) // MINUTE_NS]
    out[:, hours : hours + 7] = (days + FIRST_WEEKDAY)[:, None] % 7 == np.arange(7)
    off = np.isin(days[:, None] - HOLIDAY_DAYS, holidays)
    out[:, hours + 7 : hours + 7 + len(HOLIDAY_DAYS)] = off


@kernel
def _is_holiday(holidays, local):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return whether a local time is on one of ``holidays``, which are sorted days."""
    day = local // DAY_NS
    at = np.searchsorted(holidays, day)
    return at < len(holidays) and holidays[at] == day


@kernel
def _fill_lags(state, slot, moments, holidays, values, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Keep the value of each row, and write those of earlier days to ``out`` (N, 2 L).

    A holiday is compared with holidays only, and another day with other days.
    """
    kept, newest, anchor = state
    now, following = moments
    x, last, unit = values
    for i in range(len(slot)):
        s, number = slot[i], now[i] // QUARTER_NS
        ring = kept[s]
        if np.isfinite(x[i]):
            if np.isnan(anchor[s]):
                anchor[s] = x[i]
            before, count = newest[s, 0], newest[s, 1]
            if number != before or count < 0:
                if count >= 0:
                    for k in range(1, min(max(number - before, 1), KEPT_QUARTERS)):
                        ring[(number - k) % KEPT_QUARTERS] = np.nan
                ring[number % KEPT_QUARTERS] = 0
                count = 0
            count += 1
            place = number % KEPT_QUARTERS
            ring[place] += np.float32(((x[i] - anchor[s]) - ring[place]) / count)
            newest[s, 0], newest[s, 1] = number, count
        for k in range(len(LAG_QUARTERS)):
            wanted = following[i] // QUARTER_NS - LAG_QUARTERS[k]
            if newest[s, 1] < 0 or wanted > newest[s, 0] or wanted <= newest[s, 0] - KEPT_QUARTERS:
                continue
            then = following[i] - LAG_QUARTERS[k] * QUARTER_NS
            if len(holidays) and _is_holiday(holidays, then) != _is_holiday(holidays, following[i]):
                continue
            value = ring[wanted % KEPT_QUARTERS]
            if np.isfinite(value) and np.isfinite(last[i]) and unit[i] > 0:
                apart = (np.float64(value) + anchor[s] - last[i]) / unit[i]
                out[i, 2 * k] = np.arcsinh(min(max(apart, -MAX_ABS_UNITS), MAX_ABS_UNITS))
                out[i, 2 * k + 1] = 1


def gate_inputs(hidden: Floats, inputs: Floats, first: int) -> Floats:
    """Return what the gates of lags see (N, W + extra + L).

    It is the hidden vector, the inputs that depend on time, and the sizes of the lags.
    ``inputs`` (N, F + extra) have the lags from column ``first`` on.
    """
    sizes = np.abs(inputs[:, first : first + 2 * len(LAG_QUARTERS) : 2])
    return np.concatenate([hidden, inputs[:, FEATURES:], sizes], 1)


@kernel
def blend_lags(found, gates, inputs, first) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Blend the next step's forecast with earlier values, in place.

    The weights are the softmax of 0 for the forecast, and of a gate for each lag that is known and for the
    last value.

    Args:
        found: Forecasts (N, K); the first column is the next step.
        gates: Gates (N, L + 1), that of the last value at the end.
        inputs: Inputs of the points, the lags from column ``first`` on.
        first: Column of the first lag.
    """
    for i in range(len(found)):
        lags = gates.shape[1] - 1
        total = 1.0 + np.exp(min(GATE_RATE * np.float64(gates[i, lags]), MAX_GATE))
        mean = np.float64(found[i, 0])
        for k in range(lags):
            gate = min(GATE_RATE * np.float64(gates[i, k]), MAX_GATE)
            weight = inputs[i, first + 2 * k + 1] * np.exp(gate)
            mean += weight * np.sinh(np.float64(inputs[i, first + 2 * k]))
            total += weight
        found[i, 0] = mean / total
