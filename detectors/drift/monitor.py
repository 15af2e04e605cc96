"""Drift monitor of one stream.

It combines single series, the pool of all series, and the cool-down into evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import Points, State, Verdicts
from detectors.drift.block_kernels import (
    ALARM_THRESHOLD,
    BLOCK_POINTS,
    HOUR_NS,
    INPUT,
    PH_BLOCKS,
    RESIDUAL,
    empty_blocks,
    fill_blocks,
    initial,
    not_muted,
)
from detectors.drift.pooled import PooledDrift

MAX_CHANNEL_SLOTS: Final = 20_000  # the slots beyond are not monitored
MIN_DRIFTED_SHARE: Final = 0.1  # of the series, unless the pool drifts
DRIFT_WINDOW_NS: Final = 3 * 24 * HOUR_NS  # within which their drifts must begin
COOL_DOWN_NS: Final = 6 * HOUR_NS
MAX_REPORTED_SERIES: Final = 10
KINDS: Final = ("residual", "input")


@dataclass(frozen=True, slots=True)
class SeriesDrift:
    """Drift of one channel of one series.

    ``before`` and ``after`` are means of blocks: of absolute errors, or of usual deviations from the profile
    of the hour.
    """

    slot: int
    channel: int
    kind: str  # residual | input
    statistic: float  # of Page–Hinkley; the threshold is ``ALARM_THRESHOLD``
    since_ns: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Drift:
    """Evidence of a drift.

    ``statistics`` names what alarmed, such as ``pooled residual ADWIN`` or ``4 of 40 series``. ``series`` are
    those that drifted most.
    """

    at_ns: int
    since_ns: int
    statistics: tuple[str, ...]
    series: tuple[SeriesDrift, ...]
    watched: int


class DriftMonitor:
    """Monitor of one stream of ``channels`` channels.

    ``update`` takes every batch. Memory is bounded by ``MAX_CHANNEL_SLOTS`` of 1 KB.
    """

    def __init__(self, channels: int = 1, cool_down_ns: int = COOL_DOWN_NS) -> None:
        self.channels, self.cool_down_ns = channels, cool_down_ns
        self.most = max(1, MAX_CHANNEL_SLOTS // channels)
        self._state = initial(0)
        self._muted = not_muted(0)
        self._pooled: State = {}
        self._alarms: dict[tuple[int, int, int], SeriesDrift] = {}
        self._pool_alarms: dict[str, int] = {}
        self.quiet_until: int | None = None
        self._now = 0

    @cached_property
    def _pools(self) -> list[PooledDrift]:
        """One pool a kind, made with the first blocks because importing river is slow."""
        return [PooledDrift(kind, self._pooled.get(kind, ())) for kind in KINDS]

    def update(self, points: Points, verdicts: Verdicts) -> Drift | None:
        """Take in one batch; return evidence at most once a cool-down (in event time)."""
        if not len(points):
            return None
        self._grow(int(points.slot.max()) + 1)
        blocks = self._fill_blocks(points, verdicts.expected, verdicts.flag)
        self._now = max(self._now, int(points.time[-1]))
        if len(blocks[0]):
            self._collect_alarms(*blocks)
        return self._evidence()

    def forget(self, slots: NDArray[np.int32]) -> None:
        """Reset the series slots ``slots``, which have another series now, or none."""
        slots = slots[slots < len(self._muted)]
        rows = self._rows(slots).ravel()
        for array in self._state.values():
            array[rows] = 0
        self._muted[slots] = not_muted(len(slots))
        gone = set(slots.tolist())
        self._alarms = {key: alarm for key, alarm in self._alarms.items() if alarm.slot not in gone}

    def export(self, slots: NDArray[np.int32]) -> State:
        """Return a copy of the state of these series, a row each, for ``restore``.

        All of ``slots`` must be monitored (see ``monitored``).
        """
        rows = self._rows(slots)
        return {name: array[rows] for name, array in self._state.items()} | {"muted": self._muted[slots]}

    def restore(self, slots: NDArray[np.int32], state: State) -> None:
        """Continue these series with what ``export`` returned.

        Raises:
            ValueError: if the arrays have other names or shapes.
        """
        self._grow(int(slots.max(initial=-1)) + 1)
        expected = {name: array.shape for name, array in self.export(slots).items()}
        if expected != {name: array.shape for name, array in state.items()}:
            raise ValueError("the stored drift state has other arrays or shapes than this stream")
        rows = self._rows(slots)
        for name, array in self._state.items():
            array[rows] = state[name]
        self._muted[slots] = state["muted"]

    def pooled(self) -> State:
        """Return the pooled values of each kind, for ``restore_pooled``."""
        return {pool.kind: pool.known() for pool in self._pools} if "_pools" in vars(self) else self._pooled

    def restore_pooled(self, pooled: State) -> None:
        """Continue with what ``pooled`` returned; call it before the first batch."""
        self._pooled = pooled

    def monitored(self, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return those of ``slots`` that have a state here."""
        return slots[slots < len(self._muted)]

    # ------------------------------------------------------------------------------------------------

    def _rows(self, slots: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the rows of the state of series slots, (slots, channels)."""
        return slots[:, None] * self.channels + np.arange(self.channels)

    def _fill_blocks(
        self, points: Points, expected: NDArray[np.float32], flag: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], ...]:
        """Return the blocks that these points complete (see ``empty_blocks``)."""
        state = self._state
        blocks = empty_blocks(len(points) * self.channels // BLOCK_POINTS + len(state["sums"]))
        arrays = (state["sums"], state["profile"], state["page"], state["since"], self._muted)
        used = fill_blocks(arrays, (points.slot, points.time, points.values, expected, flag), blocks)
        return tuple(column[:used] for column in blocks)

    def _grow(self, slots: int) -> None:
        have, want = len(self._muted), min(slots, self.most)
        if want > have:
            more = min(max(want, 2 * have), self.most) - have
            fresh = initial(more * self.channels)
            self._state = {name: np.concatenate([array, fresh[name]]) for name, array in self._state.items()}
            self._muted = np.concatenate([self._muted, not_muted(more)])

    def _collect_alarms(
        self,
        slot: NDArray,
        time: NDArray,
        values: NDArray,
        statistic: NDArray,
        since: NDArray,
        around: NDArray,
    ) -> None:
        active = int((self._state["page"][:, RESIDUAL, PH_BLOCKS] > 0).sum())
        for kind, pool in enumerate(self._pools):
            for name in pool.update(np.abs(values[:, kind]) if kind == INPUT else values[:, kind], active):
                self._pool_alarms[name] = self._now
            for row in np.flatnonzero(statistic[:, kind] > ALARM_THRESHOLD):
                one = int(slot[row])
                self._alarms[one, kind, 0] = SeriesDrift(
                    slot=one // self.channels,
                    channel=one % self.channels,
                    kind=KINDS[kind],
                    statistic=float(statistic[row, kind]),
                    since_ns=int(since[row, kind]),
                    before=float(around[row, kind, 0]),
                    after=float(around[row, kind, 1]),
                )

    def _evidence(self) -> Drift | None:
        if not self._alarms and not self._pool_alarms:
            return None
        oldest = self._now - DRIFT_WINDOW_NS
        recent = {key: one for key, one in self._alarms.items() if one.since_ns >= oldest}
        self._alarms = recent
        if self.quiet_until is not None and self._now < self.quiet_until:
            return None
        active = self._state["sums"].any(axis=1) | (self._state["page"][:, RESIDUAL, PH_BLOCKS] > 0)
        watched = int(active.sum()) // self.channels
        drifted = {one.slot for one in recent.values()}
        statistics = list(self._pool_alarms)
        if len(drifted) >= max(1.0, MIN_DRIFTED_SHARE * watched):
            statistics.append(f"{len(drifted)} of {watched} series")
        if not statistics:
            return None
        top = sorted(recent.values(), key=lambda one: -one.statistic)[:MAX_REPORTED_SERIES]
        since = int(np.median([one.since_ns for one in top])) if top else min(self._pool_alarms.values())
        self.quiet_until = self._now + self.cool_down_ns
        self._reset_reference()
        return Drift(self._now, since, tuple(statistics), tuple(top), watched)

    def _reset_reference(self) -> None:
        """Start to learn the usual level again, from the next batch on."""
        self._alarms, self._pool_alarms = {}, {}
        self._state["page"][:] = 0
        self._state["sums"][:] = 0
        self._pools = [PooledDrift(kind) for kind in KINDS]


def compile_kernels() -> None:
    """Compile the kernels before the first batch arrives."""
    slot, time = np.zeros(1, np.int32), np.zeros(1, np.int64)
    monitor = DriftMonitor()
    monitor._grow(1)
    points = Points(slot, time, np.zeros((1, 1)), slot, time)
    monitor._fill_blocks(points, np.zeros((1, 1), np.float32), np.zeros(1, np.bool_))
