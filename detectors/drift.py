# ruff: noqa: ANN001
"""Drift: the world of a stream has changed for good, in how well it is forecast (residuals) or in what comes
in (inputs).

    points + verdicts ─► per series: means of blocks ─► Page–Hinkley ──────────┐
                                   └─► mean over all series ─► ADWIN,          ├─► Drift (evidence), then a cool-down
                                                   Page–Hinkley, KSWIN (river) ┘

One river object a series and point would cost more than the scoring. So each series is reduced, in one
compiled pass, to the mean of every ``BLOCK`` points, in units of what those means usually are, and
Page–Hinkley (Page 1954) runs over them as arrays (the same numbers as river's; a test compares them). The
pooled stream has one value for as many blocks as there are series: river's own ADWIN (Bifet & Gavaldà 2007)
and Page–Hinkley run on that, and KSWIN (Raab et al. 2020), which takes 0.2 ms a value, where at least
``AFFORDABLE`` blocks make one.

Inputs are taken against the series' own profile of the hour, weekdays and weekends apart: nights and Sundays
are no drift. An incident is no drift either: a flagged point counts for nothing and silences its series for
``MUTE_NS`` or ``MUTE_POINTS``, whichever is over first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import Points, State, Verdicts
from detectors.jit import kernel

BLOCK: Final = 32  # points of a block
LEARN: Final = 20  # blocks that say what is usual, anew after every drift
DELTA: Final = 0.5  # of Page–Hinkley, in usual sizes: what is no change
THRESHOLD: Final = 20.0
LARGEST: Final = 6.0  # usual sizes of one block
# series move together: a mean over them is not as steady as its parts suggest
POOL_LEARN, POOL_DELTA, POOL_THRESHOLD = 40, 1.0, 30.0
POOL_PAST: Final = 1_000  # pooled values after those, which are kept
AFFORDABLE: Final = 256  # blocks of a pooled value
KSWIN_WINDOW: Final = 100  # pooled values that it looks at
FADE: Final = 0.9999  # α of Page–Hinkley
HOUR_NS: Final = 3_600_000_000_000
MUTE_NS: Final = 24 * HOUR_NS
MUTE_POINTS: Final = 2_000
WATCHED: Final = 20_000  # lanes; the slots beyond are not looked at
SHARE: Final = 0.1  # of the series that must drift, unless the pool does
WINDOW_NS: Final = 3 * 86_400_000_000_000  # within which they do
BINS: Final = 48  # hours of a weekday, hours of a weekend
DAYS: Final = 3  # on which an hour must have been seen before it is known
RESIDUAL, INPUT = 0, 1
KINDS: Final = ("residual", "input")
# columns of "sums" (what a block has so far), of "page" (per kind: Page–Hinkley and the standard) and of
# "profile"
COUNT, ERRORS, MOVES, KNOWN = range(4)
N, MEAN, SQUARES, RUNS, LEVEL, UP, LOWEST, DOWN, HIGHEST, AFTER = range(10)
CENTRE, SPREAD, SEEN, LAST = range(4)


@dataclass(frozen=True, slots=True)
class SeriesDrift:
    """One series: before and after are means of blocks: absolute errors, or usual deviations from the
    profile of the hour.
    """

    slot: int
    channel: int
    kind: str  # residual | input
    statistic: float  # of Page–Hinkley; the threshold is ``THRESHOLD``
    since_ns: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Drift:
    """The evidence: who says so (such as ``pooled residual ADWIN`` or ``4 of 40 series``), since when, and
    the series that drifted most.
    """

    at_ns: int
    since_ns: int
    statistics: tuple[str, ...]
    series: tuple[SeriesDrift, ...]
    watched: int


class DriftWatch:
    """Watches one stream of ``channels`` channels.

    ``update`` takes every batch; memory is bounded by ``WATCHED`` lanes of 1 KB.
    """

    def __init__(self, channels: int = 1, cool_down_ns: int = 6 * 3_600_000_000_000) -> None:
        self.channels, self.cool_down_ns = channels, cool_down_ns
        self.most = max(1, WATCHED // channels)
        self._state = _initial(0)
        self._muted = _unmuted(0)
        self._pooled: State = {}
        self._alarms: dict[tuple[int, int, int], SeriesDrift] = {}
        self._said: dict[str, int] = {}
        self.quiet_until: int | None = None
        self._now = 0

    @cached_property
    def _pools(self) -> list[_Pool]:
        """Made with the first blocks: importing river takes longer than the rest of a daemon's start."""
        return [_Pool(kind, self._pooled.get(kind, ())) for kind in KINDS]

    def update(self, points: Points, verdicts: Verdicts) -> Drift | None:
        """One batch; evidence at most once a cool-down (in event time)."""
        if not len(points):
            return None
        self._grow(int(points.slot.max()) + 1)
        found = self._pass(points, verdicts.expected, verdicts.flag)
        self._now = max(self._now, int(points.time[-1]))
        if len(found[0]):
            self._collect(*found)
        return self._judge()

    def forget(self, slots: NDArray[np.int32]) -> None:
        """These slots have another series now, or none."""
        slots = slots[slots < len(self._muted)]
        rows = (slots[:, None] * self.channels + np.arange(self.channels)).ravel()
        for array in self._state.values():
            array[rows] = 0
        self._muted[slots] = _unmuted(len(slots))
        gone = set(slots.tolist())
        self._alarms = {key: alarm for key, alarm in self._alarms.items() if alarm.slot not in gone}

    def rows(self, slots: NDArray[np.int32]) -> State:
        """A copy of what is known of these series (a row each), for ``put``; slots that are not watched have
        none.
        """
        lanes = slots[:, None] * self.channels + np.arange(self.channels)
        return {name: array[lanes] for name, array in self._state.items()} | {"muted": self._muted[slots]}

    def put(self, slots: NDArray[np.int32], rows: State) -> None:
        """Go on with what ``rows`` gave for these series. Raises ValueError where it is of other shapes."""
        self._grow(int(slots.max(initial=-1)) + 1)
        known = self.rows(slots)
        if {name: array.shape for name, array in known.items()} != {
            name: array.shape for name, array in rows.items()
        }:
            raise ValueError("what was kept is of other shapes")
        lanes = slots[:, None] * self.channels + np.arange(self.channels)
        for name, array in self._state.items():
            array[lanes] = rows[name]
        self._muted[slots] = rows["muted"]

    def pooled(self) -> State:
        """By kind, what the pooled statistics rest on, for ``put_pooled``: the values that say what is usual,
        and the newest of those that came then.
        """
        return {pool.kind: pool.known() for pool in self._pools} if "_pools" in vars(self) else self._pooled

    def put_pooled(self, pooled: State) -> None:
        """Begin with what ``pooled`` gave; before the first batch."""
        self._pooled = pooled

    def watched(self, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        """Those of ``slots`` of which something is known."""
        return slots[slots < len(self._muted)]

    # ------------------------------------------------------------------------------------------------

    def _pass(
        self, points: Points, expected: NDArray[np.float32], flag: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], ...]:
        """What the blocks say that these points fill (see ``_blocks``)."""
        state = self._state
        found = _blocks(len(points) * self.channels // BLOCK + len(state["sums"]))
        before = (state["sums"], state["profile"], state["page"], state["since"], self._muted)
        used = _watch(*before, points.slot, points.time, points.values, expected, flag, *found)
        return tuple(column[:used] for column in found)

    def _grow(self, slots: int) -> None:
        have, want = len(self._muted), min(slots, self.most)
        if want > have:
            more = min(max(want, 2 * have), self.most) - have
            fresh = _initial(more * self.channels)
            self._state = {name: np.concatenate([array, fresh[name]]) for name, array in self._state.items()}
            self._muted = np.concatenate([self._muted, _unmuted(more)])

    def _collect(
        self,
        lane: NDArray,
        time: NDArray,
        values: NDArray,
        statistic: NDArray,
        since: NDArray,
        around: NDArray,
    ) -> None:
        active = int((self._state["page"][:, RESIDUAL, N] > 0).sum())
        for kind, pool in enumerate(self._pools):
            for name in pool.update(np.abs(values[:, kind]) if kind == INPUT else values[:, kind], active):
                self._said[name] = self._now
            for row in np.flatnonzero(statistic[:, kind] > THRESHOLD):
                one = int(lane[row])
                self._alarms[one, kind, 0] = SeriesDrift(
                    one // self.channels, one % self.channels, KINDS[kind], float(statistic[row, kind]), int(since[row, kind]),
                    float(around[row, kind, 0]), float(around[row, kind, 1]),
                )  # fmt: skip

    def _judge(self) -> Drift | None:
        if not self._alarms and not self._said:
            return None
        recent = {key: one for key, one in self._alarms.items() if one.since_ns >= self._now - WINDOW_NS}
        self._alarms = recent
        if self.quiet_until is not None and self._now < self.quiet_until:
            return None
        watched = (
            int((self._state["sums"].any(axis=1) | (self._state["page"][:, RESIDUAL, N] > 0)).sum())
            // self.channels
        )
        drifted = {one.slot for one in recent.values()}
        statistics = list(self._said)
        if len(drifted) >= max(1.0, SHARE * watched):
            statistics.append(f"{len(drifted)} of {watched} series")
        if not statistics:
            return None
        top = sorted(recent.values(), key=lambda one: -one.statistic)[:10]
        since = int(np.median([one.since_ns for one in top])) if top else min(self._said.values())
        self.quiet_until = self._now + self.cool_down_ns
        self._begin_anew()
        return Drift(self._now, since, tuple(statistics), tuple(top), watched)

    def _begin_anew(self) -> None:
        """What has come is the usual from now on."""
        self._alarms, self._said = {}, {}
        self._state["page"][:] = 0
        self._state["sums"][:] = 0
        self._pools = [_Pool(kind) for kind in KINDS]


def compile_kernels() -> None:
    """Compile before the first batch comes."""
    none, time = np.zeros(1, np.int32), np.zeros(1, np.int64)
    watch = DriftWatch()
    watch._grow(1)
    watch._pass(
        Points(none, time, np.zeros((1, 1)), none, time), np.zeros((1, 1), np.float32), np.zeros(1, np.bool_)
    )


class _Pool:
    """River's detectors on the mean over all series.

    Their state can only be pickled, so ``known`` gives what they were fed, and they are fed it again.
    """

    def __init__(self, kind: str, known: Sequence[float] | NDArray[np.float64] = ()) -> None:
        from river.drift import ADWIN, KSWIN, PageHinkley

        self.kind = kind
        page = PageHinkley(POOL_LEARN, POOL_DELTA, POOL_THRESHOLD, FADE, mode="up")
        self._detectors: dict[str, Any] = {"ADWIN": ADWIN(delta=1e-5), "Page–Hinkley": page}  # type: ignore[no-untyped-call]
        self._costly = {"KSWIN": KSWIN(alpha=1e-6, window_size=KSWIN_WINDOW, stat_size=30, seed=0)}
        self._waiting: list[NDArray] = []
        self._count = 0
        self._usual: list[float] = []
        self._past: deque[float] = deque(maxlen=POOL_PAST)
        self._centre, self._spread = 0.0, 1.0
        for left, value in zip(range(len(known), 0, -1), known, strict=True):
            self._one(float(value), self._detectors | (self._costly if left <= KSWIN_WINDOW else {}))

    def known(self) -> NDArray[np.float64]:
        """The pooled values that a new pool has to be given to go on where this one is."""
        return np.array([*self._usual, *self._past])

    def update(self, values: NDArray, size: int) -> list[str]:
        """Values of blocks, NaN where unknown; ``size`` of them make one pooled value.

        Names of what alarms.
        """
        self._waiting.append(values[~np.isnan(values)])
        self._count += len(self._waiting[-1])
        size = min(max(1, size), 4096)
        if self._count < size:
            return []
        waiting = np.concatenate(self._waiting)
        whole = len(waiting) // size * size
        self._waiting, self._count = [waiting[whole:]], len(waiting) - whole
        chosen = self._detectors | (self._costly if size >= AFFORDABLE else {})
        said = set()
        for value in waiting[:whole].reshape(-1, size).mean(1).tolist():
            said |= self._one(value, chosen)
        return sorted(said)

    def _one(self, value: float, detectors: dict[str, Any]) -> set[str]:
        if len(self._usual) < POOL_LEARN:
            self._usual.append(value)
            self._centre, self._spread = float(np.mean(self._usual)), max(float(np.std(self._usual)), 1e-3)
            return set()
        self._past.append(value)
        value = min(max((value - self._centre) / self._spread, -LARGEST), LARGEST)
        said = set()
        for name, detector in detectors.items():
            # ADWIN and KSWIN alarm on what gets better, too; only what gets worse needs a new model.
            detector.update(value)
            if detector.drift_detected and value > 0:
                said.add(f"pooled {self.kind} {name}")
        return said


def _initial(lanes: int) -> dict[str, NDArray[Any]]:
    return {
        "sums": np.zeros((lanes, 4), np.float32),
        "profile": np.zeros((lanes, BINS, 4), np.float32),
        "page": np.zeros((lanes, 2, 10), np.float64),
        # time of the last lowest and highest point of the two sums
        "since": np.zeros((lanes, 2, 2), np.int64),
    }


def _unmuted(slots: int) -> NDArray[np.int64]:
    """Until when each series is silent, and for how many points at most."""
    return np.tile(np.array([-(1 << 62), 0], np.int64), (slots, 1))


def _blocks(most: int) -> tuple[NDArray[Any], ...]:
    """Room for what whole blocks say: lane, time, standardised value, statistic, since (per kind), before and
    after.
    """
    shapes: tuple[tuple[tuple[int, ...], type], ...] = (
        ((most,), np.int32), ((most,), np.int64), ((most, 2), np.float32), ((most, 2), np.float32), ((most, 2), np.int64), ((most, 2, 2), np.float32),
    )  # fmt: skip
    return tuple(np.empty(shape, kind) for shape, kind in shapes)


@kernel
def _watch(  # type: ignore[no-untyped-def]
    sums,
    profile,
    page,
    since,
    muted,
    slot,
    time,
    values,
    expected,
    flag,
    lanes,
    at,
    z,
    statistic,
    begun,
    around,
):
    """One pass over a batch; returns how many blocks were filled."""
    used, channels = 0, values.shape[1]
    hour, day, bin_, begin, end = np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for i in range(len(slot)):
        s = slot[i]
        if s >= len(muted):
            continue
        left = muted[s, 1] > 0 and time[i] < muted[s, 0]
        # What goes on being flagged is silenced once: an alarm that never ends is a change, too.
        if flag[i] and not left and time[i] >= muted[s, 0] + MUTE_NS:
            muted[s, 0], muted[s, 1], left = time[i] + MUTE_NS, MUTE_POINTS, True
        muted[s, 1] -= left
        if left or flag[i]:
            continue
        if time[i] < begin or time[i] >= end:  # most points are of the hour of the one before
            hour = time[i] // HOUR_NS
            begin, end, day = hour * HOUR_NS, (hour + 1) * HOUR_NS, hour // 24
            bin_ = hour % 24 + (24 if (day + 3) % 7 >= 5 else 0)  # the epoch began on a Thursday
        for c in range(channels):
            x, lane = values[i, c], s * channels + c
            error = abs(x - np.float64(expected[i, c]))
            if np.isnan(error):
                continue
            b, usual = sums[lane], page[lane, 0, MEAN]
            b[ERRORS] += min(error, LARGEST * usual) if page[lane, 0, N] >= LEARN and usual > 0 else error
            off = _against(profile[lane, bin_], x, np.float32(day % 16_000_000))
            if not np.isnan(off):
                b[MOVES] += off
                b[KNOWN] += 1
            b[COUNT] += 1
            if b[COUNT] >= BLOCK:
                lanes[used], at[used] = lane, time[i]
                known = b[KNOWN] >= BLOCK / 2
                found = (b[ERRORS] / b[COUNT], b[MOVES] / b[KNOWN] if known else np.float32(np.nan))
                for kind in range(2):
                    z[used, kind], statistic[used, kind] = page_hinkley(
                        page[lane, kind],
                        since[lane, kind],
                        found[kind],
                        time[i],
                        kind,
                        begun[used],
                        around[used, kind],
                    )
                b[:] = 0
                used += 1
    return used


@kernel
def _against(p, x, day):  # type: ignore[no-untyped-def]
    """Deviation of x from its hour's profile in usual deviations, bounded; NaN while the hour is not known.

    The profile learns slowly.
    """
    if p[SEEN] == 0:
        p[CENTRE], p[SPREAD], p[SEEN], p[LAST] = x, 0, 1, day
        return np.float32(np.nan)
    off = np.float32(x - p[CENTRE])
    known = p[SEEN] > DAYS and p[SPREAD] > 0
    if p[LAST] != day:
        p[SEEN], p[LAST] = p[SEEN] + 1, day
    rate = np.float32(0.002) if known else np.float32(0.1)
    bound = 4 * p[SPREAD] if known else np.float32(np.inf)
    p[CENTRE] += rate * min(max(off, -bound), bound)
    p[SPREAD] += rate * (min(abs(off), bound) - p[SPREAD])
    return min(max(off / p[SPREAD], np.float32(-4)), np.float32(4)) if known else np.float32(np.nan)


@kernel
def page_hinkley(p, since, value, now, kind, begun, around):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """One block: its value in usual sizes and the statistic (NaN, 0 while the usual is not known).

    Residuals are watched upwards only, inputs both ways. Fills when the change began and the means before and
    after.
    """
    if np.isnan(value):
        return np.float32(np.nan), np.float32(0)
    p[N] += 1
    if p[N] <= LEARN:
        off = value - p[MEAN]
        p[MEAN] += off / p[N]
        p[SQUARES] += off * (value - p[MEAN])
        return np.float32(np.nan), np.float32(0)
    spread = max(np.sqrt(p[SQUARES] / (LEARN - 1)), 1e-6 + 0.01 * abs(p[MEAN]))
    z = min(max((value - p[MEAN]) / spread, -LARGEST), LARGEST)
    p[RUNS] += 1
    p[LEVEL] += (z - p[LEVEL]) / p[RUNS]
    p[UP] = FADE * p[UP] + z - p[LEVEL] - DELTA
    p[DOWN] = FADE * p[DOWN] + z - p[LEVEL] + DELTA
    if p[RUNS] == 1 or p[UP] < p[LOWEST]:
        p[LOWEST], since[0] = p[UP], now
    if p[RUNS] == 1 or p[DOWN] > p[HIGHEST]:
        p[HIGHEST], since[1] = p[DOWN], now
    up, down = p[UP] - p[LOWEST], p[HIGHEST] - p[DOWN]
    p[AFTER] += 0.2 * (value - p[AFTER]) if p[RUNS] > 1 else value
    statistic = max(up, down) if kind == 1 else up
    begun[kind] = since[0] if up >= down or kind == 0 else since[1]
    around[0], around[1] = p[MEAN], p[AFTER]
    if statistic > THRESHOLD:
        p[:] = 0
    return np.float32(z), np.float32(statistic)
