"""The detection power monitor: which changes would be detected now.

It measures on shadow copies of live series, which are never stored and never alert. ``PowerSink`` observes a
few series at a time in a running engine: rows for the robust deviation, a copy of the state, and the rows
after it. Then every change is tried on the copy (``synthetic_changes.probe``). The monitor takes at most
``SHARE`` of a core: it measures its own time and starts nothing while it has used more. ``measure`` does the
same on the recorded history of a stream, for the command.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import numpy as np

from detectors.base import Detector, Points, State
from pipeline.core.types import Power
from pipeline.decode import Key
from pipeline.observability.metrics import PowerMetrics
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.training.dataset import TrainingData, take_points
from pipeline.training.state_fitting import fit_state
from pipeline.training.synthetic_changes import KINDS, ROWS, probe, robust_deviation
from storage.model_store import monitor_state
from storage.sql.database import Database

# Maximum share of a core. The documented share is 0.02; the margin covers a process that only scores.
SHARE: Final = 0.015
MAX_OBSERVED_SERIES: Final = 8  # at a time
DEVIATION_ROWS: Final = 64  # rows from which the robust deviation is computed
MIN_POINTS: Final = 200  # points of a series before it is measured; a new series waits for a later round
MAX_KEPT_SERIES: Final = 10_000  # series whose last figures are kept
STALE_NS: Final = 86_400_000_000_000  # a series without points for this long is dropped
METRICS_INTERVAL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class PowerSummary:
    """One kind of change on a stream.

    minimum_size: median over ``series`` of the minimum detectable size, in robust standard deviations (None:
    fewer than half of them detect any); delay: median rows until the flag; undetectable_share: share of the
    series that detect no size.
    """

    kind: str
    series: int
    minimum_size: float | None
    delay: float | None
    undetectable_share: float

    def as_dict(self) -> dict[str, Any]:
        """Return the summary with the keys that ``forewatch power --json`` prints."""
        fields = asdict(self)
        return fields | {
            "smallest": fields.pop("minimum_size"),
            "blind": fields.pop("undetectable_share"),
        }


def summaries(found: Iterable[Power]) -> list[PowerSummary]:
    """Return a summary for each kind that was measured."""
    by_kind: dict[str, list[Power]] = {kind: [] for kind in KINDS}
    for one in found:
        by_kind[one.kind].append(one)
    return [_summary(kind, some) for kind, some in by_kind.items() if some]


def _summary(kind: str, some: Sequence[Power]) -> PowerSummary:
    middle = sorted(np.inf if one.minimum_size is None else one.minimum_size for one in some)[len(some) // 2]
    delays = [one.delay for one in some if one.delay is not None]
    undetectable_share = sum(one.minimum_size is None for one in some) / len(some)
    return PowerSummary(
        kind,
        len(some),
        None if np.isinf(middle) else float(middle),
        float(np.median(delays)) if delays else None,
        undetectable_share,
    )


def measure(detector: Detector, data: TrainingData, series: int, seed: int = 0) -> dict[str, list[Power]]:
    """Measure detection power on the newest rows of some series of ``data``.

    The detector first processes all rows before them.

    Args:
        detector: the detector.
        data: recorded history.
        series: maximum number of series, drawn by ``seed``.
        seed: seed of the draws.
    """
    length = np.diff(data.first)
    good = np.flatnonzero(length >= MIN_POINTS + ROWS)
    drawn = np.sort(np.random.default_rng(seed).permutation(good)[:series])
    data = data.only(drawn.tolist())
    until = np.diff(data.first) - ROWS
    state, points = fit_state(detector, data, until, clean=False), data.points(clean=False)
    found = {}
    for place, name in enumerate(data.series):
        cut = int(data.first[place] + until[place])
        deviation = np.array(
            [
                robust_deviation(column)
                for column in points.values[max(int(data.first[place]), cut - 500) : cut].T
            ]
        )
        found[name] = probe(
            detector,
            state,
            place,
            take_points(points, np.arange(cut, cut + ROWS)),
            name,
            deviation,
            _seed(name, seed),
        )
    return {name: some for name, some in found.items() if some}


@dataclass(slots=True)
class _ObservedSeries:
    """One observed series: its past, a copy of its state, and the rows of the trials."""

    slot: int
    key: Key
    past: list[np.ndarray] = field(default_factory=list)
    state: State | None = None
    after: list[Points] = field(default_factory=list)
    last_ns: int = 0

    @property
    def ready(self) -> bool:
        return sum(map(len, self.after)) >= ROWS


class PowerSink:
    """Sink that measures detection power.

    ``found`` has the last figures by name of the series.
    ``keep`` receives the figures of each series; ``kept`` are stored figures of the same model.
    """

    def __init__(
        self,
        scorer: StreamScorer,
        metrics: PowerMetrics,
        clock: Callable[[], float] = time.perf_counter,
        keep: Callable[[str, list[Power]], None] = lambda series, found: None,
        kept: Iterable[Power] = (),
    ) -> None:
        self.found = _by_series(kept)
        self._keep = keep
        self.spent = 0.0
        self._longest_work_s = 0.02  # longest piece of work so far; work starts only if it fits the share
        self._scorer, self._metrics, self._clock = scorer, metrics, clock
        self._detector = scorer.detector
        self._started_at = self._published_at = clock()
        self._observed: list[_ObservedSeries] = []
        self._round: list[int] = []
        self._rounds = 0

    def append(self, result: BatchResult) -> None:
        if result.scored is None:
            return
        start = self._clock()
        # After a promotion, figures of the former detector are not valid.
        if self._scorer.detector is not self._detector:
            self._detector, self._observed, self.found = self._scorer.detector, [], {}
        self._collect(result.scored.points)
        collected = self._clock()
        if self.spent + self._longest_work_s <= SHARE * (start - self._started_at):
            self._probe_or_start()
            self._longest_work_s = max(self._longest_work_s, self._clock() - collected)
        took = self._clock() - start
        self.spent += took
        self._metrics.seconds(took)

    def close(self) -> None:
        """Nothing to release."""

    def _collect(self, points: Points) -> None:
        if not self._observed:
            return
        keys, now = self._scorer.series.by_slot, int(points.time[-1])
        rows = np.flatnonzero(np.isin(points.slot, [one.slot for one in self._observed]))
        for one in self._observed:
            mine = rows[points.slot[rows] == one.slot]
            if not len(mine):
                continue
            one.last_ns = now
            if one.state is not None:
                one.after.append(take_points(points, mine))
                continue
            one.past.append(points.values[mine])
            if sum(map(len, one.past)) >= DEVIATION_ROWS:  # the state of the engine is that after this batch
                one.state = {
                    name: array[[one.slot]] for name, array in self._scorer.series.state["detector"].items()
                }
        gone = {
            id(one)
            for one in self._observed
            if one.slot >= len(keys) or keys[one.slot] != one.key or now - one.last_ns > STALE_NS
        }
        self._observed = [one for one in self._observed if id(one) not in gone]

    def _probe_or_start(self) -> None:
        """Probe one series or start others; one thing at a time, so that no batch waits."""
        ready = next((one for one in self._observed if one.ready), None)
        if ready is None:
            self._start_series()
            return
        self._observed.remove(ready)
        assert ready.state is not None
        name = self._scorer.name_of(ready.slot)
        points = take_points(_joined(ready.after), np.arange(ROWS))
        points.slot = np.zeros(len(points), np.int32)
        deviation = np.array([robust_deviation(column) for column in np.concatenate(ready.past).T])
        if some := probe(self._detector, ready.state, 0, points, name, deviation, _seed(name, self._rounds)):
            self.found.pop(name, None)
            self.found[name] = some
            if len(self.found) > MAX_KEPT_SERIES:
                del self.found[next(iter(self.found))]
            self._keep(name, some)
        self._publish_metrics()

    def _start_series(self) -> None:
        table = self._scorer.series
        if not self._round:
            self._rounds += 1
            live = [slot for slot, key in enumerate(table.by_slot) if key is not None]
            self._round = np.random.default_rng(self._rounds).permutation(live).tolist()
        busy = {one.slot for one in self._observed}
        while self._round and len(self._observed) < MAX_OBSERVED_SERIES:
            slot = self._round.pop()
            key = table.by_slot[slot] if slot < len(table.by_slot) else None
            if key is not None and slot not in busy and table.state["windows"]["seq"][slot] >= MIN_POINTS:
                self._observed.append(
                    _ObservedSeries(slot, key, last_ns=int(table.state["windows"]["last_time"][slot]))
                )

    def _publish_metrics(self) -> None:
        now = self._clock()
        if now - self._published_at >= METRICS_INTERVAL_SECONDS or len(self.found) == 1:
            self._published_at = now
            for one in summaries(power for some in self.found.values() for power in some):
                self._metrics.kind(one.kind, one.minimum_size, one.delay, one.undetectable_share)


def stored_power(database: Database, stream: str) -> dict[str, list[Power]]:
    """Return the last figures of the daemon, of any model. Raises StorageUnavailable."""
    with database.read() as connection:
        return _by_series(monitor_state.power(connection, stream))


def _by_series(kept: Iterable[Power]) -> dict[str, list[Power]]:
    found: dict[str, list[Power]] = {}
    for one in kept:
        found.setdefault(one.series, []).append(one)
    return found


def _joined(parts: Sequence[Points]) -> Points:
    return Points(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Points)))


def _seed(name: str, number: int) -> int:
    return zlib.crc32(name.encode()) + number


def as_rows(found: Mapping[str, Sequence[Power]]) -> list[dict[str, Any]]:
    """Return one row for each series and kind, with the keys of the JSON output."""
    return [monitor_state.power_as_row(one) for some in found.values() for one in some]
