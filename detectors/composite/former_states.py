"""Conversion of stored states of former forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.forecasters.ar_expert import AR_REGRESSORS
from detectors.forecasters.hidden_state import pack_states
from detectors.scorers.volatility import COL_LAST, COL_SPLIT, USUAL_VOLUME
from detectors.stages.tail_calibration import HALVING_ROWS, MIDDLES_ORIGIN
from detectors.stages.usual_range.lane import (
    COL_CELL,
    COL_VISITS,
    TIME_VISIT,
    WHOLE_ALTERNATIVE,
    WHOLE_DAY_VISITS,
    WHOLE_SHIFT,
)
from detectors.stages.usual_range.phase_profile import MISSING
from detectors.stages.usual_range.quantities import Layout
from detectors.stages.usual_range.residual_events import EVENT_SIZE, STEPS_PER_OCTAVE

Array = NDArray[Any]
#: Changes rows of a stored state, given those of an empty one.
Conversion = Callable[[State, State], State]
LEVELS_OF_EVIDENCE, EVENTS = "usual.own", "usual.events"
DEPARTURES, VALUES_SEEN, VALUES_USED = "usual.departures", "bounds.seen", "bounds.used"
USUAL_HEAD, WHOLE, WEEKDAY_MEANS = "usual.head", "usual.whole", "usual.means"
TIME, PROFILE, VISITS, RECENT = "usual.time", "usual.profile", "usual.visits", "usual.recent"
#: Former columns of the head that are the first ones of "usual.whole".
FORMER_WHOLE = [14, 15, 16, 19, 21, 25]
FORMER_STEPS_PER_OCTAVE = 2
FORMER_MASS, FORMER_ZEROS, FORMER_LOWEST, FORMER_QUARANTINED = range(4)  # of "calibration.head"
FORMER_LAST = 3  # of "ladder.gauss"
HEAD, COUNTS, STEADY_STATE = "calibration.head", "calibration.counts", "settled."


def convert_wider_arrays(rows: State, has_cycle: bool) -> State:
    """Return the arrays of a state of version 5 in the types and shapes of version 6.

    Counts of errors become whole numbers, and the state of the shared LSTM is rounded to 16 bits. What was
    stored twice or never used is left out. ``has_cycle``: the tier finds a cycle beside the period.
    """
    state = dict(rows)
    for name in [name for name in rows if name.endswith(COUNTS)]:
        prefix = name.removesuffix(COUNTS)
        keeps_quarantine = prefix.endswith(STEADY_STATE)
        state[name], state[prefix + HEAD] = _calibration(rows[name], rows[prefix + HEAD], keeps_quarantine)
    for name, convert in _CONVERSIONS.items():
        if name in rows:
            state[name] = convert(rows)
    if "hidden.own" in rows:
        state["hidden.h"], state["hidden.c"] = pack_states(rows["hidden.h"], rows["hidden.c"])
    if not state["rhythm.partial"].size:
        del state["rhythm.partial"]
    if not has_cycle:
        state["rhythm.peak"] = rows["rhythm.peak"][..., :1, :, :].copy()
    return state


def reset_levels_of_evidence(rows: State, empty: State) -> State:
    """Return the state with empty levels of evidence."""
    return rows | {LEVELS_OF_EVIDENCE: empty[LEVELS_OF_EVIDENCE]}


def start_usual_volume(rows: State, _: State) -> State:
    """Return the state with the last volume as the usual one."""
    return rows | {USUAL_VOLUME: rows["market.moments"][..., COL_LAST].astype(np.float32)}


def start_splits(rows: State, _: State) -> State:
    """Return the state without a split so far: its values are in today's shares."""
    return rows | {"market.moments": np.insert(rows["market.moments"], COL_SPLIT, 0.0, axis=-1)}


def refine_event_sizes(rows: State, _: State) -> State:
    """Return the state with the sizes of large residuals in today's finer steps."""
    events = rows[EVENTS].copy()
    sizes = events[..., EVENT_SIZE].astype(np.int64) * (int(STEPS_PER_OCTAVE) // FORMER_STEPS_PER_OCTAVE)
    events[..., EVENT_SIZE] = (sizes + 128) % 256 - 128
    return rows | {EVENTS: events}


def add_weekdays(rows: State, empty: State) -> State:
    """Return the state with the kinds of day as they begin.

    Small whole numbers of the head are bytes.
    """
    head, whole = rows[USUAL_HEAD], empty[WHOLE].copy()
    numbers = np.clip(head[..., FORMER_WHOLE], -128, 127)
    whole[..., : len(FORMER_WHOLE)] = numbers.astype(np.int8)
    return rows | {
        USUAL_HEAD: np.delete(head, FORMER_WHOLE, axis=-1),
        WHOLE: whole,
        WEEKDAY_MEANS: empty[WEEKDAY_MEANS],
    }


def start_departures(rows: State, empty: State) -> State:
    """Return the state without a departure so far."""
    return rows | {DEPARTURES: empty[DEPARTURES]}


def thin_out_values(rows: State, empty: State) -> State:
    """Return the state with as many values of the novelty scorer as today.

    They are chosen evenly from the sorted ones, with the lowest and the highest. A market has none.
    """
    if VALUES_SEEN not in rows:
        return rows
    used, size = rows[VALUES_USED], empty[VALUES_SEEN].shape[-1]
    kept = np.minimum(used, size)
    every = np.maximum(used - 1, 0) / np.maximum(kept - 1, 1)
    at = np.minimum(np.rint(np.arange(size) * every[..., None]), np.maximum(used - 1, 0)[..., None])
    seen = np.take_along_axis(rows[VALUES_SEEN], at.astype(np.int64), axis=-1)
    return rows | {VALUES_SEEN: seen, VALUES_USED: kept}


def merge_bins(rows: State, empty: State, *, layout: Layout, former_bins: int) -> State:
    """Return the state with wider bins of the day.

    A bin has the union of the ranges of its parts.

    Args:
        rows: Stored state.
        empty: Empty state of today.
        layout: Places of the quantities, with the bins of today.
        former_bins: Bins of a day in ``rows``, a multiple of today's.
    """
    parts, recent = former_bins // layout.bins, empty[RECENT].shape[-2]
    head, whole, time = (rows[name].copy() for name in (USUAL_HEAD, WHOLE, TIME))
    known = head[..., COL_VISITS] >= recent * parts
    turned = (head[..., COL_VISITS, None] + np.arange(recent * parts)) % (recent * parts)
    oldest_first = np.take_along_axis(rows[RECENT], turned.astype(np.int64)[..., None], axis=-2)
    spans = oldest_first.reshape(*oldest_first.shape[:-2], recent, parts, 2)
    ends = np.stack([np.fmin.reduce(spans[..., 0], -1), np.fmax.reduce(spans[..., 1], -1)], axis=-1)
    head[..., COL_VISITS] = np.where(known, recent, 0)
    head[..., COL_CELL] //= parts
    whole[..., [WHOLE_SHIFT, WHOLE_ALTERNATIVE, WHOLE_DAY_VISITS]] //= parts
    time[..., TIME_VISIT] //= parts
    profile = rows[PROFILE].reshape(*empty[PROFILE].shape[:-1], parts, -1)
    merged = profile.max(axis=-2)  # a missing end is the least number
    for low in layout.number[:, 0][layout.number[:, 0] >= 0]:
        column = profile[..., low]
        least = np.where(column == MISSING, np.iinfo(np.int16).max, column).min(axis=-1)
        merged[..., low] = np.where((column == MISSING).all(axis=-1), MISSING, least)
    return rows | {
        USUAL_HEAD: head,
        WHOLE: whole,
        TIME: time,
        PROFILE: merged,
        VISITS: rows[VISITS].reshape(*empty[VISITS].shape, parts).max(axis=-1),
        RECENT: np.where(known[..., None, None], ends, empty[RECENT]),
    }


def _calibration(counts: Array, head: Array, keeps_quarantine: bool) -> tuple[Array, Array]:
    """Return whole counts and their head; the mass is their sum."""
    whole = np.rint(np.minimum(counts, HALVING_ROWS)).astype(np.uint16)
    zeros = np.rint(head[..., FORMER_ZEROS])
    columns = [zeros + whole.sum(axis=-1), zeros, head[..., FORMER_LOWEST] + MIDDLES_ORIGIN]
    # Before the first error above 0 the lowest bin has no meaning.
    columns += [np.minimum(head[..., FORMER_QUARANTINED], HALVING_ROWS)] if keeps_quarantine else []
    return whole, np.stack(columns, axis=-1).astype(np.uint16)


def _lower_triangle(rows: State) -> Array:
    row, column = np.tril_indices(AR_REGRESSORS)
    return np.ascontiguousarray(rows["inputs.covariance"][..., row, column])


def _errors_and_last(rows: State) -> Array:
    last = rows["ladder.gauss"][..., FORMER_LAST:].astype(np.float32)
    return np.concatenate([rows["ladder.error"], last], axis=-1)


_CONVERSIONS: dict[str, Callable[[State], Array]] = {
    "inputs.covariance": _lower_triangle,
    "ladder.gauss": lambda rows: rows["ladder.gauss"][..., :2].copy(),
    "ladder.error": _errors_and_last,
    "rhythm.count": lambda rows: rows["rhythm.count"][..., 0].copy(),
    "rhythm.partial": lambda rows: rows["rhythm.partial"][..., :-1].copy(),
}
