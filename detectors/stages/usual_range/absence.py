"""Absence: a peak or a trough that did not come in the last hours."""

from __future__ import annotations

import numpy as np

from detectors.jit import inlined_kernel
from detectors.stages.usual_range.lane import COL_VISITS
from detectors.stages.usual_range.phase_profile import model_of
from detectors.stages.usual_range.quantities import Q_HIGHEST, Q_LOWEST, Q_VALUE

ABSENCE_MIN_DAYS = 2.0  # before an absence is judged
MAX_FLAT_SHARE = np.float32(0.5)  # of the usual distance of highest and lowest value: see ``is_flat``
NAN = np.float32(np.nan)


@inlined_kernel
def measure_extremes(lane, layout, work, v) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill the highest and lowest value of the last visits, once all of them are known.

    Args:
        lane: State of the channel slot.
        layout: Places of the quantities.
        work: Buffers; two quantities of the row are filled.
        v: Value of the row.
    """
    if len(lane.recent) == 0 or lane.head[COL_VISITS] < len(lane.recent):
        return
    low = high = v
    for j in range(len(layout.quantity)):
        if layout.quantity[j] == Q_VALUE and not np.isnan(lane.visit[j, 0]):
            low, high = min(low, lane.visit[j, 0]), max(high, lane.visit[j, 1])
    for n in range(len(lane.recent)):
        if not np.isnan(lane.recent[n, 0]):
            low, high = min(low, lane.recent[n, 0]), max(high, lane.recent[n, 1])
    work.now[Q_HIGHEST], work.now[Q_LOWEST] = high, low


@inlined_kernel
def is_flat(lane, layout, work, logarithmic):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Say whether the values of the last hours are closer together than usual at this time of day.

    A peak or a trough is absent only then. Otherwise all values have moved: the value and its mean show it.

    Args:
        lane: State of the channel slot.
        layout: Places of the quantities.
        work: Buffers with the quantities of the row and the ranges in force.
        logarithmic: Whether the values are logarithms.
    """
    usual_low = usual_high = NAN
    for j in range(len(layout.quantity)):
        if layout.quantity[j] in (Q_HIGHEST, Q_LOWEST):
            m = model_of(lane.model, work.ranges, j)
            middle = np.float32(0.5) * (work.ranges[j, m, 0] + work.ranges[j, m, 1])
            if layout.quantity[j] == Q_HIGHEST:
                usual_high = middle
            else:
                usual_low = middle
    usual, now = usual_high - usual_low, work.now[Q_HIGHEST] - work.now[Q_LOWEST]
    if logarithmic:
        # In units of the input, over the usual highest value.
        usual = 1 - np.exp(-usual)
        now = np.exp(work.now[Q_HIGHEST] - usual_high) - np.exp(work.now[Q_LOWEST] - usual_high)
    return now < MAX_FLAT_SHARE * usual
