"""Revision of verdicts by late points, by the owner of their partition.

    late point ─► its series is watched ─► scored again in a thread ─► committed between two batches

A thread scores the series of late points again, from the recorded history, the late points and the points
since. The loop then scores the few that came meanwhile, compares, and commits what differs under the fence
of the partition: revised, retracted and new anomalies with their outbox events. From then on the live
series has the state that it would have had in the order of time, so that later verdicts are those of that
order, too.

The late points are marked as done in the transaction of the next snapshot, which holds that state. After a
crash before it, the next owner does the same again, finds no difference, and commits none.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import Connection

from pipeline.config.schema import Config
from pipeline.core.errors import StorageUnavailable
from pipeline.core.types import Anomaly, AnomalyState, Counts, LateRecord, Partition, Position
from pipeline.decode import Key, series_key
from pipeline.engine.engine import Engine
from pipeline.observability.metrics import RevisionMetrics
from pipeline.scoring.batch_result import BatchResult, PartitionOutcome
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.recent_points import RecentPoints, Watched
from pipeline.services.revised_points import revised_points
from pipeline.services.series_replay import (
    NEVER_NS,
    Continuation,
    SeriesReplay,
    differences_since,
    replay_series,
)
from pipeline.services.state_checkpoints import StateCheckpoints
from storage.results import anomalies, late_records
from storage.results.late_records import LateEntry
from storage.sql.database import Database

log = structlog.get_logger(__name__)

#: Late points and series of one revision.
MAX_LATE_POINTS = 10_000
MAX_SERIES = 25
#: Time without further late points until a series is scored again: a burst of them is one revision.
QUIET_NS = 5 * 10**9
#: A series whose late points do not end is scored again at least this often.
LONGEST_WAIT_NS = 60 * 10**9
#: Time that the writer of the recorded history gets for what it has not written yet.
FLUSH_SECONDS = 0.5
#: The thread rests for this multiple of the CPU time that it uses: the live path needs the interpreter, too.
REST_RATIO = 3.0
LONGEST_REST_SECONDS = 0.2


@dataclass(slots=True)
class _Prepared:
    """Series that were scored again.

    late     series → its late points
    watches  series → since when its points are kept; after another start some are missing
    epochs   partition → epoch of its owner
    """

    replay: SeriesReplay
    late: dict[str, list[LateEntry]]
    watches: dict[str, Watched]
    epochs: dict[Partition, int]

    def since_ns(self, name: str) -> int:
        """Return the time of a series from which its verdicts can differ.

        An earlier state holds late points of before it if they are scored again, after a damaged snapshot.
        """
        first_ns = min(one.record.time_ns for one in self.late[name])
        return max(first_ns, self.replay.starts.get(name, NEVER_NS) + 1)


@dataclass(slots=True)
class StreamRevision:
    """Revisions of one stream: a sink of its engine, with work in a thread."""

    name: str
    config: Config
    database: Database
    scorer: StreamScorer
    flush_history: Callable[[], object]
    metrics: RevisionMetrics
    _checkpoints: StateCheckpoints = field(init=False)
    _recent: RecentPoints = field(init=False)
    _wanted: deque[LateRecord] = field(default_factory=deque)  # of series to watch
    _ready: deque[_Prepared] = field(default_factory=deque)
    #: Late points that the live state holds and no snapshot yet, by partition and epoch.
    _applied: dict[tuple[Partition, int], set[int]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        """Begin without watched series."""
        self._recent = RecentPoints(self.scorer)
        self._checkpoints = StateCheckpoints(self.name, self.config, self.database)

    # ------------------------------------------------------------ in the loop

    def append(self, result: BatchResult) -> None:
        """Keep the points of watched series, and watch those of late points."""
        if late := [one for outcome in result.outcomes.values() for one in outcome.late]:
            self._recent.watch(self._slots(late), result.scored)
        if result.scored is not None:
            self._recent.add(result.scored)

    def close(self) -> None:
        """Nothing is open."""

    def on_copy(self, position: Position) -> list[int]:
        """Return the ids of the late points whose correction the live state holds."""
        return sorted(self._applied.get((position.partition, position.epoch), ()))

    def on_snapshot(self, connection: Connection, position: Position, corrected: Sequence[int]) -> set[Key]:
        """Mark the late points whose corrected state is part of the snapshot.

        Return the keys of the series of the others.
        """
        if corrected:
            late_records.settle(connection, corrected, time.time_ns())
        names = late_records.pending_series(connection, self.name, position.partition)
        return {series_key(self.config.streams[self.name], name) for name in names}

    def apply(self, engine: Engine) -> None:
        """Commit one prepared revision, and give the live series their corrected state."""
        if not engine.between_batches:
            return
        while self._wanted:
            self._recent.watch(self._slots([self._wanted.popleft()]), None)
        if not self._ready:
            return
        prepared = self._ready[0]
        series = self._catch_up(prepared, engine)
        since_ns = {name: prepared.since_ns(name) for name in series}
        try:
            stored = self._stored(prepared.replay, since_ns)
        except StorageUnavailable:
            return
        due = differences_since(stored, prepared.replay, since_ns)
        self._ready.popleft()
        if not series:
            return
        slots = self._slots([prepared.late[name][0].record for name in series])
        now_ns = time.time_ns()
        changes = [one.revised(now_ns) for one in due]
        self._hand_over(prepared.replay, slots, {one.id: one for one in changes})
        result = self._result(prepared, series, changes, engine)
        result.revised = revised_points(prepared.replay, since_ns, stored)
        engine.commit_between(result)
        for one in series:
            for late in prepared.late[one]:
                partition = late.record.partition
                self._applied[partition, prepared.epochs[partition]].add(late.id)
            self._recent.forget(one)
        kinds = [one.kind for one in due]
        self.metrics.revised(len(series), kinds)
        log.info(
            "late points revised their series",
            stream=self.name,
            series=len(series),
            **{kind: kinds.count(kind) for kind in ("new", "revised", "retracted")},
        )

    def _catch_up(self, prepared: _Prepared, engine: Engine) -> list[str]:
        """Score what came since, and return the series that are complete."""
        owned, replay = self._owned(engine), prepared.replay
        if replay.model_version != self.scorer.provenance.model_version:
            return []
        slots = self._slots([rows[0].record for rows in prepared.late.values()])
        windows, found = self.scorer.series.state["windows"], []
        names = [
            name
            for name, late in prepared.late.items()
            if name in slots
            and name in replay.newest
            and all(owned.get(p) == prepared.epochs[p] for p in {one.record.partition for one in late})
        ]
        replay.feed(self._recent.of(names, replay.newest))
        watched, counts = self._recent.watched(), self._recent.counts()
        for name in names:
            slot = slots[name]
            if (
                watched.get(name) == prepared.watches[name]
                and watched[name].slot == slot
                and counts[name] == windows["seq"][slot]
                and replay.newest[name] == windows["last_time"][slot]
            ):
                found.append(name)
            else:
                self._recent.forget(name)  # the thread asks for it again
        return found

    def _stored(self, replay: SeriesReplay, since_ns: Mapping[str, int]) -> list[Anomaly]:
        """Return the anomalies of series since a time of each, also retracted ones."""
        if not since_ns:
            return []
        # A late point can extend an anomaly that had ended before it.
        since = since_ns.get
        starts_ns = [a.start_ns for a in replay.anomalies() if a.end_ns >= since(a.series, a.end_ns + 1)]
        oldest_ns = min([*since_ns.values(), *starts_ns])
        with self.database.read() as connection:
            return anomalies.of_series(connection, self.name, list(since_ns), oldest_ns)

    def _result(
        self, prepared: _Prepared, series: Sequence[str], changes: list[Anomaly], engine: Engine
    ) -> BatchResult:
        """Return the changes as the result of a batch without records."""
        outcomes = {}
        for partition in {one.record.partition for name in series for one in prepared.late[name]}:
            position = engine.parts.ownership.positions[partition]
            assert position.next_offset is not None
            counts = Counts(buffered=self.scorer.buffered_records(partition))
            outcomes[partition] = PartitionOutcome(
                position.next_offset, position.next_offset, counts, position.watermark_ns
            )
        return BatchResult(outcomes, self.scorer.provenance.model_version, anomalies=changes)

    def _hand_over(self, replay: SeriesReplay, live: dict[str, int], changes: Mapping[UUID, Anomaly]) -> None:
        """Give live series the state and the open anomalies of the order of time."""
        right = replay.slots()
        to, rows = list(live.values()), [right[name] for name in live]
        for layer, arrays in self.scorer.series.state.items():
            for key, array in arrays.items():
                array[to] = replay.scorer.series.state[layer][key][rows]
        open_now = {
            one.series: one for one in replay.anomalies() if one.state is AnomalyState.OPEN and one.points
        }
        for name, slot in live.items():
            before = self.scorer.tracker.open_at(slot)
            self.scorer.tracker.forget([slot])
            if (anomaly := open_now.get(name)) is not None:
                known = before if before is not None and before.id == anomaly.id else None
                known = changes.get(anomaly.id, known)
                anomaly.revision = 1 if known is None else known.revision
                anomaly.revised_ns = 0 if known is None else known.revised_ns
                seq = int(self.scorer.series.state["windows"]["seq"][slot])
                self.scorer.tracker.restore(slot, anomaly, seq)

    # ------------------------------------------------------------ in the thread

    def prepare(self, engine: Engine, rest: Callable[[float], object], *, at_once: bool = False) -> None:
        """Score series with pending late points again, for ``apply``.

        Args:
            engine: The engine of the stream, which the loop runs meanwhile.
            rest: Called with a time in seconds; waits for it.
            at_once: Do not wait for further late points.
        """
        epochs = self._owned(engine)
        positions = engine.parts.ownership.positions.copy()
        self._checkpoints.write_due({one: positions[one] for one in epochs if one in positions})
        pending = self._pending(epochs)
        due = self._due(pending, at_once)
        if not due:
            return
        unwatched = due.keys() - self._recent.watched().keys()
        self._wanted.extend(due[name][0].record for name in unwatched)
        late = {name: rows for name, rows in due.items() if name not in unwatched}
        if not late:
            return
        self.flush_history()
        rest(FLUSH_SECONDS)
        watches = {name: one for name, one in self._recent.watched().items() if name in late}
        if not watches:
            return
        newer = self._recent.of(list(watches))

        def pause(seconds: float) -> None:
            rest(min(REST_RATIO * seconds, LONGEST_REST_SECONDS))

        start = partial(self._checkpoints.start, engine.parts.ownership.positions.copy())
        keep = None
        if engine.parts.writers.outputs:
            keep = min(one.record.time_ns for name in watches for one in late[name])
        continued = Continuation(start, newer, pause, keep)
        replay = replay_series(self.database, self.config, self.name, list(watches), continued)
        recorded = replay.recorded
        covered = {n: late[n] for n, one in watches.items() if recorded.get(n, -1) >= one.anchor_ns}
        if covered:
            replay.feed(self._recent.of(list(covered), replay.newest), pause)
            self._ready.append(_Prepared(replay, covered, watches, epochs))

    def _pending(self, epochs: dict[Partition, int]) -> list[LateEntry]:
        before = {key: ids.copy() for key, ids in self._applied.copy().items()}
        with self.database.read() as connection:
            pending = late_records.pending(connection, self.name, list(epochs), MAX_LATE_POINTS)
        known = {one.id for one in pending}
        for key, ids in before.items():
            if epochs.get(key[0]) != key[1]:
                self._applied.pop(key, None)  # another epoch has another state
            else:
                self._applied[key].difference_update(ids - known)  # a snapshot has marked them
        done: set[int] = set().union(*self._applied.copy().values())
        waiting = {one.id for prepared in self._ready for rows in prepared.late.values() for one in rows}
        return [one for one in pending if one.id in known - done - waiting]

    def _due(self, pending: Sequence[LateEntry], at_once: bool) -> dict[str, list[LateEntry]]:
        """Return the late points of series that can be scored again now."""
        slots = self._slots([one.record for one in pending])
        by_series: dict[str, list[LateEntry]] = defaultdict(list)
        for one in pending:
            if one.record.series in slots:
                by_series[one.record.series].append(one)
        now_ns = time.time_ns()
        waiting = [one.created_ns for rows in by_series.values() for one in rows]
        self.metrics.wait(len(waiting), max(now_ns - min(waiting, default=now_ns), 0) / 1e9)
        due = {
            name: rows
            for name, rows in by_series.items()
            if at_once
            or not 0 <= now_ns - rows[-1].created_ns < QUIET_NS
            or now_ns - rows[0].created_ns >= LONGEST_WAIT_NS
        }
        return dict(list(due.items())[:MAX_SERIES])

    # ------------------------------------------------------------ in both

    def _owned(self, engine: Engine) -> dict[Partition, int]:
        """Return the epoch of each owned partition that reads new records."""
        ownership = engine.parts.ownership
        return {
            partition: position.epoch
            for partition, position in ownership.positions.copy().items()
            if partition in ownership.cursor and not ownership.recovering(partition)
        }

    def _slots(self, late: Sequence[LateRecord]) -> dict[str, int]:
        """Return the slot of each series of late points that is in memory."""
        stream, table = self.config.streams[self.name], self.scorer.series
        places = {one.series: one.partition for one in late}
        found = {name: table.slot_of(place, series_key(stream, name)) for name, place in places.items()}
        return {name: slot for name, slot in found.items() if slot is not None}
