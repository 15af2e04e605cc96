"""Kernels of ``pipeline.windows.aggregation``: fold points into open intervals, close intervals."""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Functions of a channel, by number. open and close are the first and the last value by time.
KIND_ROWS, KIND_COUNT, KIND_NUNIQUE, KIND_SUM, KIND_MEAN, KIND_MIN, KIND_MAX, KIND_FIRST, KIND_LAST = range(9)
NEVER = np.iinfo(np.int64).min

#: Series, interval and group (−1: an empty interval) of points.
PointIndex = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@njit(cache=True)
def fold_points(points, sources, kinds, newest, groups, n_groups, group_of):
    """Fold points (N,) with sources (N, C) into groups (G,), and return the number of groups.

    There is one group per series and interval; new ones are appended. ``points`` are codes, intervals, times,
    offsets and heads; ``group_of`` (N,) receives the group of each point. ``newest`` (series,) and ``older``
    (G,) link the few open groups of a series. Points are folded in arrival order, so that a sum does not
    depend on how they were cut into batches.
    """
    codes, bins, times, offsets, heads = points
    older, group_code, group_bin, group_offset, group_heads, group_rows, acc, seen, at = groups
    for i in range(len(codes)):
        g = newest[codes[i]]
        while g >= 0 and group_bin[g] != bins[i]:
            g = older[g]
        if g < 0:
            g = n_groups
            n_groups += 1
            group_code[g], group_bin[g] = codes[i], bins[i]
            group_heads[g] = group_rows[g] = 0
            seen[g, :] = 0
            older[g], newest[codes[i]] = newest[codes[i]], g
        group_of[i] = g
        group_offset[g] = offsets[i]
        group_heads[g] += heads[i]
        group_rows[g] += 1
        for c in range(len(kinds)):
            value = sources[i, c]
            if np.isnan(value):
                continue
            kind = kinds[c]
            if seen[g, c] == 0:
                acc[g, c], at[g, c] = value, times[i]
            elif kind in (KIND_SUM, KIND_MEAN):
                acc[g, c] += value
            elif kind == KIND_MIN:
                acc[g, c] = min(acc[g, c], value)
            elif kind == KIND_MAX:
                acc[g, c] = max(acc[g, c], value)
            elif (kind == KIND_FIRST and times[i] < at[g, c]) or (kind == KIND_LAST and times[i] >= at[g, c]):
                acc[g, c], at[g, c] = value, times[i]
            seen[g, c] += 1
    return n_groups


@njit(cache=True)
def finish_groups(group_rows, acc, seen, kinds, out):
    """Write the values of closed groups, (G, C)."""
    for g in range(len(acc)):
        for c in range(len(kinds)):
            kind = kinds[c]
            if kind == KIND_ROWS:
                out[g, c] = group_rows[g]
            elif kind in (KIND_COUNT, KIND_NUNIQUE):
                out[g, c] = seen[g, c]
            elif seen[g, c] == 0:
                out[g, c] = np.nan
            else:
                out[g, c] = acc[g, c] / seen[g, c] if kind == KIND_MEAN else acc[g, c]


@njit(cache=True)
def max_empty_points(first, last, idle):
    """Return the most empty points in a row of a series: the intervals it was known for, up to ``idle``."""
    return min(last - first + 1, idle)


@njit(cache=True)
def close_intervals(
    start,
    stop,
    last_live,
    hole,
    idle,
    with_empty_points,
    first,
    last,
    order,
    group_code,
    group_bin,
    out_code,
    out_bin,
    out_group,
):
    """Close the intervals ``start`` … ``stop`` − 1, in order.

    Writes series, interval and group (−1: an empty interval) of each point, as far as there is room.
    ``order`` lists the closing groups by (interval, series). ``first`` and ``last`` (series,) are updated.
    Returns the number of points and the greatest interval with a record.
    """
    n, p, b = 0, 0, start
    room = len(out_code)
    while b < stop:
        if p < len(order) and group_bin[order[p]] == b:
            last_live = b
        elif last_live == NEVER or b - last_live > hole:
            # The whole partition is silent: a hole in the log, not silence of its series.
            b = group_bin[order[p]] if p < len(order) else stop
            continue
        while p < len(order) and group_bin[order[p]] == b:
            code = group_code[order[p]]
            if first[code] == NEVER or b - last[code] - 1 > max_empty_points(first[code], last[code], idle):
                first[code] = b
            last[code] = b
            if n < room:
                out_code[n], out_bin[n], out_group[n] = code, b, order[p]
            n += 1
            p += 1
        if with_empty_points:
            for code in range(len(first)):
                if (
                    first[code] != NEVER
                    and last[code] < b
                    and b - last[code] <= max_empty_points(first[code], last[code], idle)
                ):
                    if n < room:
                        out_code[n], out_bin[n], out_group[n] = code, b, -1
                    n += 1
        b += 1
    return n, last_live


@njit(cache=True)
def relink_groups(group_code, newest, older):
    """Link the groups of each series again."""
    newest[:] = -1
    for g in range(len(group_code)):
        older[g], newest[group_code[g]] = newest[group_code[g]], g


@njit(cache=True)
def has_points(closed, group_bin, limits, known):
    """Return whether the first open interval has points if no record comes.

    Args:
        closed: The interval.
        group_bin: Intervals of the open groups (G,).
        limits: Greatest interval with a record, and most empty intervals in a row of the partition and of a
            series.
        known: First and last interval with a record of each series.
    """
    (last_live, hole, idle), (first, last) = limits, known
    for g in range(len(group_bin)):
        if group_bin[g] <= closed:
            return True
    if last_live == NEVER or closed - last_live > hole:
        return False
    for code in range(len(first)):
        if (
            first[code] != NEVER
            and last[code] < closed
            and closed - last[code] <= max_empty_points(first[code], last[code], idle)
        ):
            return True
    return False


def no_points() -> PointIndex:
    """Return the index of no points."""
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)


def empty_groups(n: int, functions: int) -> dict[str, NDArray[Any]]:
    """Allocate ``n`` groups in the order that ``fold_points`` needs.

    There is one for each series and open interval.
    """
    names = ("older", "code", "bin", "offset", "heads", "rows")
    columns: dict[str, NDArray[Any]] = {name: np.zeros(n, np.int64) for name in names}
    return columns | {
        "acc": np.zeros((n, functions)),
        "seen": np.zeros((n, functions), np.int64),
        "at": np.zeros((n, functions), np.int64),
    }


def with_room(groups: dict[str, NDArray[Any]], used: int, n: int) -> dict[str, NDArray[Any]]:
    """Return the first ``used`` groups with room for ``n`` further ones."""
    if used + n <= len(groups["code"]):
        return groups
    more = empty_groups(max(n, used), groups["acc"].shape[1])
    return {name: np.concatenate([column[:used], more[name]]) for name, column in groups.items()}
