"""The path of one stream from records to verdicts, with the state of all its series.

Daemon, backfill, evaluation and data frames use the same one::

    records ─► decode ─► event time (reorder, late, duplicate, gaps) ─► detector ─► anomaly tracker
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from time import thread_time
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from detectors.base import ConvertsDecision, ConvertsState, Detector, Points, State, Verdicts
from pipeline.config.inputs import TEMPLATE_LABEL, TEMPLATE_TEXT_LABEL
from pipeline.config.schema import Stream
from pipeline.core.durations import SECOND_NS, to_nanoseconds
from pipeline.core.errors import DamagedState
from pipeline.core.types import Anomaly, Counts, DeadLetter, EndReason, EventFinding, LateRecord, Partition
from pipeline.decode import Columns, DeadLetterGauge, Key, make_decoder, series_name, series_names
from pipeline.scoring.anomaly_tracker import AnomalyTracker
from pipeline.scoring.event_stage import EventStage
from pipeline.scoring.page_merge import join_pages
from pipeline.scoring.provenance import Provenance, RevisedPoints, Scored, joined, joined_points
from pipeline.scoring.series_limit import SeriesLimit
from pipeline.scoring.series_table import LoadedPage, SeriesTable, StateLayer
from pipeline.scoring.template_labels import TEMPLATES_KEY, TEMPLATES_VERSION, TemplateLabels
from pipeline.sources.base import Records, TableRecords
from pipeline.windows.aggregation import AggregationBuffer
from pipeline.windows.event_sessions import FOREVER
from pipeline.windows.event_time import (
    DUPLICATE,
    LATE,
    SUPERSEDED,
    Admitted,
    EventTimeProcessor,
    PartitionBuffer,
)

log = structlog.get_logger(__name__)

#: Loads the stored state of series that are not in memory: (partition, key → event time of the next point) →
#: pages.
LoadOffloaded = Callable[[Partition, Mapping[Key, int]], Sequence[bytes]]

#: Selects points of a batch: (N,) bool.
SelectPoints = Callable[[Columns], NDArray[np.bool_]]


def nothing_offloaded(partition: Partition, first_ns: Mapping[Key, int]) -> Sequence[bytes]:
    """Return nothing: the ``LoadOffloaded`` of a run that keeps all series in memory."""
    return ()


@dataclass(slots=True)
class PartitionOutcome:
    """Outcome of one partition's records in a batch.

    ``counts`` holds the changes, and in ``buffered`` the new number. ``refused`` is the number of records of
    series over the limit, which are part of ``counts.filtered``.
    """

    first_offset: int
    next_offset: int
    counts: Counts
    watermark_ns: int | None
    broken: bool = False  # too many records do not decode: stop the partition after this batch
    dead: list[DeadLetter] = field(default_factory=list)
    late: list[LateRecord] = field(default_factory=list)
    refused: int = 0


@dataclass(slots=True)
class BatchResult:
    """Results of one batch, all by ``model_version``.

    ``scored`` holds the points of all partitions, ``rows`` the rows of each. ``revised`` holds earlier points
    that late ones let be scored again. ``seconds`` is the CPU time of this thread in the detector.
    ``replayed``: it was committed before, by this process or another one.
    """

    outcomes: dict[Partition, PartitionOutcome]
    model_version: str
    scored: Scored | None = None
    rows: dict[Partition, slice] = field(default_factory=dict)
    anomalies: list[Anomaly] = field(default_factory=list)
    revised: dict[Partition, RevisedPoints] = field(default_factory=dict)
    seconds: float = 0.0
    replayed: bool = False


class StreamScorer:
    """Decoder, event time, detector and anomaly tracker of one stream, with their state."""

    def __init__(
        self,
        provenance: Provenance,
        stream: Stream,
        detector: Detector,
        load_offloaded: LoadOffloaded = nothing_offloaded,
        keep: SelectPoints | None = None,
        on_damage: Callable[[Partition, str], None] = lambda partition, message: None,
        max_series: int | None = None,
    ) -> None:
        """Start without series.

        Args:
            provenance: What the anomalies have in common.
            stream: The configuration of the stream.
            detector: The detector of the champion model.
            load_offloaded: Loads the state of a series that is not in memory.
            keep: Selects decoded points; the others are skipped. None keeps all.
            on_damage: Called with the partition and a message for a stored series that cannot be read.
            max_series: Largest number of series; records of further ones are filtered. None: no limit.
        """
        self._on_damage = on_damage
        #: The files of a followed folder: each is a partition, and series go on from file to file.
        self.is_file_sequence = bool(stream.source.files and stream.source.files.follow)
        self._continued: list[Anomaly] = []  # closed in this batch, because their series go on elsewhere
        self._left_files: set[Partition] = set()  # their sessions went on in later ones
        self.provenance = provenance
        self.stream = stream
        self.detector = detector
        self.event_time = EventTimeProcessor(stream)
        #: The part that only a stream of events has.
        self.events = EventStage(stream, self.event_time) if stream.of_events else None
        #: The templates of log lines that are counted.
        self.templates = TemplateLabels() if stream.format.chosen.template else None
        self.tracker = AnomalyTracker(self._identify, self._finding)
        self.series = SeriesTable(
            {
                "windows": StateLayer(self.event_time.version, self.event_time.initial),
                "detector": self._layer(detector),
            }
        )
        if self.events is not None:
            self.events.use_model(detector, self.series)
        self._decoder = make_decoder(provenance.stream, stream)
        self._load_offloaded = load_offloaded
        self._keep = keep
        self._buffers: dict[Partition, PartitionBuffer] = {}
        self._silence_before: Mapping[Partition, float] = {}
        self._gauges: dict[Partition, DeadLetterGauge] = {}
        self.limit = SeriesLimit(max_series, self.series, self._buffers, go_on=self.is_file_sequence)

    # ------------------- records in, verdicts out

    def process(
        self,
        batch: Sequence[Records | TableRecords],
        *,
        replay: bool = False,
        next_offsets: Mapping[Partition, int] | None = None,
    ) -> BatchResult:
        """Score records, at most one batch for each partition.

        With ``replay`` only the state is brought up to date, and open anomalies stay. With ``next_offsets``,
        files whose series go on in the batch end before. Raises ValueError for two batches of one partition.
        """
        ready: dict[Partition, Columns] = {}
        outcomes: dict[Partition, PartitionOutcome] = {}
        for records in batch:
            partition = records.partition
            if partition in ready:
                raise ValueError(f"{partition}: two batches in one call; the source must merge them")
            columns, dead = self._decoder.decode(records)
            if self.events is not None:
                columns = self.events.number(partition, columns)
            if self.templates is not None:
                columns = self.templates.label(partition, columns)
            if self._keep is not None:
                columns = columns.take(self._keep(columns))
            admitted = self.limit.admit(partition, columns)
            refused = columns.records - admitted.records
            if next_offsets and self.is_file_sequence:
                self._end_earlier_files(admitted, next_offsets, ready, outcomes)
            buffer = self._buffer_after_silence(partition, admitted)
            buffer, ready[partition] = self.event_time.push(buffer, admitted)
            self._buffers[partition] = buffer
            counts = Counts(
                dead_lettered=sum(not one.partial for one in dead),
                filtered=columns.filtered + refused,
                buffered=buffer.records,
            )
            broken = self._gauges.setdefault(partition, DeadLetterGauge(self.stream.dead_letters)).update(
                columns, dead
            )
            outcomes[partition] = PartitionOutcome(
                records.first_offset,
                records.next_offset,
                counts,
                buffer.watermark_ns,
                broken,
                dead,
                refused=refused,
            )
        return self._score(ready, outcomes, replay)

    def flush(
        self,
        next_offsets: Mapping[Partition, int],
        *,
        replay: bool = False,
        ended_ns: int | None = FOREVER,
    ) -> BatchResult:
        """Score all buffered records, as if the watermark had passed them: the input has ended.

        Args:
            next_offsets: Next offset of each partition that has ended.
            replay: As in ``process``.
            ended_ns: Time up to which sessions of events end, None: that of the buffered records.
        """
        ready: dict[Partition, Columns] = {}
        outcomes: dict[Partition, PartitionOutcome] = {}
        for partition, next_offset in next_offsets.items():
            buffer, ready[partition] = self.event_time.flush(self._buffer_of(partition))
            self._buffers[partition] = buffer
            outcomes[partition] = PartitionOutcome(
                next_offset, next_offset, Counts(buffered=buffer.records), buffer.watermark_ns
            )
        return self._score(ready, outcomes, replay, ended_ns=ended_ns)

    def note_silence(self, seconds: Mapping[Partition, float]) -> None:
        """Take the length of the silence that the records of the next batch end."""
        self._silence_before = seconds

    def _buffer_after_silence(self, partition: Partition, columns: Columns) -> PartitionBuffer:
        """Return the buffer of a partition, which learns how late its next records come."""
        buffer, seconds = self._buffer_of(partition), self._silence_before.get(partition)
        if isinstance(buffer, AggregationBuffer) and seconds is not None:
            buffer.note_arrival(columns, int(seconds * SECOND_NS))
        return buffer

    @property
    def ends_by_silence(self) -> bool:
        """True if silence of a partition ends sessions, or intervals of counts."""
        if self.events is not None:
            return bool(self.events.idle_seconds)
        return self.event_time.counts_silence

    def end_silent(self, silent: Mapping[Partition, tuple[int, float]]) -> BatchResult | None:
        """End the sessions of partitions that are silent for ``idle`` and ``lateness``.

        Their buffered events are scored first. None if there is neither.

        Args:
            silent: Next offset of each silent partition, and the length of its silence in seconds.
        """
        if self.events is None or not (idle := self.events.idle_seconds):
            return None
        least = idle + self.stream.lateness.total_seconds()
        waiting = {
            partition: at
            for partition, (at, seconds) in silent.items()
            if seconds >= least
            and (self.buffered_records(partition) or self.events.open_sessions(self.series, partition))
        }
        return self.flush(waiting) if waiting else None

    def end_silent_interval(
        self, partition: Partition, next_offset: int, silent_seconds: float
    ) -> BatchResult | None:
        """Score the next interval of an aggregate that a silence of its partition ends.

        None if none is due, or if the series go on in a later file.
        """
        buffer = self._buffer_of(partition)
        if not isinstance(buffer, AggregationBuffer) or not buffer.is_due(int(silent_seconds * SECOND_NS)):
            return None
        slots = self.series.slots(partition)
        if self.is_file_sequence and len(self.series.last_slots(slots)) < len(slots):
            return None
        return self._end_interval(buffer, next_offset, replay=False)

    def replay_silent_intervals(
        self, partition: Partition, next_offset: int, watermark_ns: int | None
    ) -> Iterator[BatchResult]:
        """Yield the intervals that a silence had ended, up to the committed watermark."""
        buffer = self._buffer_of(partition)
        if not isinstance(buffer, AggregationBuffer) or watermark_ns is None:
            return
        while (reached := buffer.watermark_ns) is not None and reached < watermark_ns:
            yield self._end_interval(buffer, next_offset, replay=True)

    def _end_interval(self, buffer: AggregationBuffer, next_offset: int, *, replay: bool) -> BatchResult:
        ready = {buffer.partition: buffer.end_interval()}
        counts = Counts(buffered=buffer.records)
        outcome = PartitionOutcome(next_offset, next_offset, counts, buffer.watermark_ns)
        return self._score(ready, {buffer.partition: outcome}, replay)

    def has_ended(self, partition: Partition, watermark_ns: int | None) -> bool:
        """Return True if sessions that are open here have ended at a commit.

        Args:
            partition: The partition.
            watermark_ns: Its committed watermark.
        """
        reached = self._buffer_of(partition).watermark_ns
        return (
            self.events is not None
            and None not in (watermark_ns, reached)
            and watermark_ns == self.events.ended_mark(reached)
            and self.events.open_sessions(self.series, partition)
        )

    def _score(
        self,
        ready: dict[Partition, Columns],
        outcomes: dict[Partition, PartitionOutcome],
        replay: bool,
        *,
        ended_ns: int | None = None,
    ) -> BatchResult:
        result = BatchResult(outcomes, self.provenance.model_version, replayed=replay)
        scored = [
            part
            for some in self._in_turn(ready)
            if (part := self._score_together(some, result, replay, ended_ns)) is not None
        ]
        if scored:
            result.scored = joined(scored)
        if len(scored) > 1:  # one that was flagged in a file may be closed by the next one
            result.anomalies = list({anomaly.id: anomaly for anomaly in result.anomalies}.values())
        return result

    def _in_turn(self, ready: dict[Partition, Columns]) -> list[dict[Partition, Columns]]:
        """Divide the files of a batch where a series goes on from one file to the next.

        The state at the end of the earlier file is that after its rows, which may be in the same batch.
        """
        if not self.is_file_sequence or len(ready) == 1:
            return [ready]
        groups: list[dict[Partition, Columns]] = [{}]
        seen: set[Key] = set()
        for partition, columns in ready.items():
            names = set(columns.keys.names)
            if not (names & seen).issubset(self.series.keys_of(partition)):
                groups.append({})
                seen = set()
            groups[-1][partition] = columns
            seen |= names
        return groups

    def _score_together(
        self, ready: dict[Partition, Columns], result: BatchResult, replay: bool, ended_ns: int | None
    ) -> Scored | None:
        """Score columns in one step of the detector.

        Their counts and anomalies are added to ``result``. ``ended_ns`` as in ``flush``.
        """
        admitted, offsets = [], []
        first = start = max((rows.stop for rows in result.rows.values()), default=0)
        for partition, columns in ready.items():
            one = self.event_time.admit(
                self.series.state["windows"], self._slots(partition, columns, replay), columns
            )
            self._count(result.outcomes[partition], columns, one)
            if self.events is not None:
                watermark = result.outcomes[partition].watermark_ns if ended_ns is None else ended_ns
                one = self.events.end_sessions(self.series, partition, watermark, columns, one)
                if ended_ns == FOREVER:
                    outcome = result.outcomes[partition]
                    outcome.watermark_ns = self.events.ended_mark(outcome.watermark_ns)
            admitted.append(one)
            offsets.append(one.offsets(columns))
            result.rows[partition] = slice(start, start := start + len(one.points))
        result.anomalies += self._continued
        self._continued = []
        if start == first:
            return None
        points = joined_points([one.points for one in admitted])
        started = thread_time()
        verdicts = self._step(points, np.concatenate([one.restart for one in admitted]))
        result.seconds += thread_time() - started
        if self.events is not None:
            rows = {
                p: slice(at.start - first, at.stop - first) for p, at in result.rows.items() if p in ready
            }
            self.events.limit_new_codes(points, verdicts, rows, self.provenance.alarm_rate)
        scored = Scored(
            points,
            verdicts,
            np.concatenate(offsets),
            np.concatenate([one.seq for one in admitted]),
            None if self.events is None else np.concatenate([one.ends for one in admitted]),
        )
        if not replay:
            result.anomalies += self.tracker.advance(
                scored, self.provenance, self.series.state["windows"]["seq"]
            )
        return scored

    def _step(self, points: Points, restart: NDArray[np.bool_]) -> Verdicts:
        """Advance the detector.

        A series that is reset within the batch is reset between its points, however the batch was cut.
        """
        parts, verdicts = _rows_between_resets(points.slot, restart), []
        for rows in parts:
            if len(restarted := np.unique(points.slot[rows][restart[rows]])):
                self.series.reset(restarted, "detector")
            part = (
                points
                if len(parts) == 1
                else Points(*(getattr(points, f.name)[rows] for f in fields(Points)))
            )
            self.series.state["detector"], verdict = self.detector.step(self.series.state["detector"], part)
            verdicts.append(verdict)
        if len(parts) == 1:
            return verdicts[0]
        back = np.argsort(np.concatenate(parts))
        return Verdicts(
            *(np.concatenate([getattr(v, f.name) for v in verdicts])[back] for f in fields(Verdicts))
        )

    def _slots(self, partition: Partition, columns: Columns, replay: bool) -> NDArray[np.int32]:
        slots, new = self.series.find(partition, columns.keys.names)
        if new:
            # The first point in the order of admission, which does not depend on how records were cut into
            # batches.
            first_ns = dict(zip(reversed(columns.keys.flat()), columns.time[::-1].tolist(), strict=True))
            self._load(partition, {key: first_ns[key] for key in new})
            if self.is_file_sequence:
                self._continue_series(partition, {key: first_ns[key] for key in new}, replay)
        return columns.keys.spread(slots)

    def _continue_series(self, partition: Partition, first_ns: Mapping[Key, int], replay: bool) -> None:
        """Give series that are new in a file the state that they had at the end of an earlier file.

        The state is copied, so that a recovery of either file finds it. An anomaly that is still open at the end
        of the earlier file is closed.
        """
        last_time = self.series.state["windows"]["last_time"]
        for key, first in first_ns.items():
            slots = self.series.slots_elsewhere(partition, key)
            earlier = [slot for slot in slots if last_time[slot] <= first]
            if not earlier:
                continue
            ((target,), _) = self.series.find(partition, [key])
            source = max(earlier, key=lambda slot: int(last_time[slot]))
            if last_time[source] > last_time[target]:
                self.series.copy_state(source, int(target))
            if self.events is not None:  # the session is that of the later file
                self.series.state["windows"]["open"][earlier] = False
                self._left_files |= {self.series.partition(slot) for slot in earlier}
            if not replay:
                self._continued += [
                    a for slot in earlier for a in self.tracker.close(slot, EndReason.CONTINUED)
                ]

    def take_left_files(self) -> set[Partition]:
        """Return the files whose sessions went on in later ones since the last call."""
        left, self._left_files = self._left_files, set()
        return left

    def _end_earlier_files(
        self,
        columns: Columns,
        next_offsets: Mapping[Partition, int],
        ready: dict[Partition, Columns],
        outcomes: dict[Partition, PartitionOutcome],
    ) -> None:
        """Release the buffered records of files whose series go on in these rows.

        They come before the rows, whose series continue the state that they leave. A file that is later than
        some of the rows keeps them: there is no order of the two. Intervals and sessions may go on in the
        other file, so that they are not ended either.
        """
        if not len(columns) or self.stream.aggregate is not None or self.events is not None:
            return
        new = set(columns.keys.names).difference(self.series.keys_of(columns.partition))
        first, lateness = int(columns.time.min()), to_nanoseconds(self.stream.lateness)
        for partition, at in next_offsets.items():
            buffer = self._buffer_of(partition)
            if partition in (columns.partition, *ready) or not buffer.records:
                continue
            if (buffer.watermark_ns or 0) + lateness <= first and not new.isdisjoint(buffer.known_keys()):
                self._buffers[partition], ready[partition] = self.event_time.flush(buffer)
                outcomes[partition] = PartitionOutcome(at, at, Counts(), buffer.watermark_ns)

    def close_idle(self, partitions: Mapping[Partition, int]) -> BatchResult | None:
        """Close the anomalies of series of followed files that are silent for ``idle_after``.

        ``partitions`` maps each partition to its next offset. The event time is that of the whole stream: that of
        a file stands still at its end. None if there are none, or for another source.
        """
        closed, before = [], self._idle_before()
        for slot in self.tracker.slots() if self.is_file_sequence else ():
            partition = self.series.partition(slot)
            if partition in partitions and self.series.state["windows"]["last_time"][slot] < before:
                closed += self.tracker.close(slot, EndReason.SILENT)
        return self._closing(partitions, closed)

    def close_partition(self, partition: Partition, next_offset: int) -> BatchResult | None:
        """Close the anomalies of a file that is gone. None if there are none, or for another source."""
        slots = self.series.slots(partition).tolist() if self.is_file_sequence else ()
        closed = [a for slot in slots for a in self.tracker.close(slot, EndReason.FILE_REMOVED)]
        return self._closing({partition: next_offset}, closed)

    def end_file(self, partition: Partition, next_offset: int) -> BatchResult | None:
        """Score the buffered records of a followed file that is gone.

        Its sessions end if they are over by the event time of the whole stream; the others may go on in a
        later file. None if there is nothing to do.
        """
        if self.events is None:
            return self.flush({partition: next_offset}) if self.buffered_records(partition) else None
        if not self.buffered_records(partition) and not self.events.open_sessions(self.series, partition):
            return None
        return self.flush({partition: next_offset}, ended_ns=self._newest_watermark())

    def idle_buffers(self, partitions: Mapping[Partition, int]) -> dict[Partition, int]:
        """Return those of the followed files whose buffered records have waited for ``idle_after``.

        Time is the event time of the whole stream: at the end of a file no record of its own releases them.
        Sessions of events end with them, so that these wait for ``idle`` too.
        """
        before = self._idle_before()
        if self.events is not None:
            before = min(before, self._newest_watermark() - round(self.events.idle_seconds * SECOND_NS))
        return {
            partition: offset
            for partition, offset in partitions.items()
            if self.is_file_sequence
            and (buffer := self._buffer_of(partition)).records
            and (buffer.watermark_ns or 0) < before
        }

    def _idle_before(self) -> int:
        return self._newest_watermark() - to_nanoseconds(self.stream.idle_after)

    def _newest_watermark(self) -> int:
        times = (buffer.watermark_ns for buffer in self._buffers.values())
        return max((time for time in times if time is not None), default=0)

    def _closing(self, partitions: Mapping[Partition, int], closed: list[Anomaly]) -> BatchResult | None:
        if not closed:
            return None
        return BatchResult(
            {
                one: PartitionOutcome(
                    partitions[one],
                    partitions[one],
                    Counts(buffered=self.buffered_records(one)),
                    self._buffer_of(one).watermark_ns,
                )
                for one in sorted({a.partition for a in closed})
            },
            self.provenance.model_version,
            anomalies=closed,
        )

    def add_series(self, partition: Partition, first_ns: Mapping[Key, int]) -> NDArray[np.int32]:
        """Add series with their stored state before their first points, and return their slots.

        ``first_ns`` gives the event time of the first point of each series.
        """
        slots, _ = self.series.find(partition, list(first_ns))
        self._load(partition, first_ns)
        return slots

    def _load(self, partition: Partition, first_ns: Mapping[Key, int]) -> None:
        for page in join_pages(self._load_offloaded(partition, first_ns)):
            try:
                self._log_other_forms(partition, [self.series.load_page(partition, page)])
            except DamagedState as error:
                self._on_damage(partition, f"{partition}: {error}; the series starts again with a warm-up")

    def _count(self, outcome: PartitionOutcome, columns: Columns, admitted: Admitted) -> None:
        verdict = admitted.outcome
        heads = verdict if columns.head is None else verdict[columns.head]
        scored, late, duplicate, superseded = np.bincount(heads, minlength=SUPERSEDED + 1).tolist()
        outcome.counts.scored += scored + columns.folded
        outcome.counts.late += late
        outcome.counts.duplicate += duplicate + superseded
        # Also samples of a record whose first one is scored.
        for kind in (LATE, DUPLICATE) if self.stream.duplicates == "last" else (LATE,):
            if (rows := verdict == kind).any():
                outcome.late += self._late(
                    columns.take(rows), None if admitted.newest is None else admitted.newest[rows]
                )
        if columns.late is not None:
            outcome.counts.late += columns.late.records
            outcome.late += self._late(columns.late, None)

    def _late(self, columns: Columns, newest: NDArray[np.int64] | None) -> Iterator[LateRecord]:
        """Yield late records.

        ``newest`` (N,) is the newest time of the series when each of them came.
        """
        ages = np.zeros(len(columns), np.int64) if newest is None else newest - columns.time
        limit = to_nanoseconds(self.stream.revise)
        young = ((ages <= limit) | (limit == 0)).tolist()
        for row, (offset, time) in enumerate(
            zip(columns.offsets.tolist(), columns.time.tolist(), strict=True)
        ):
            name, _ = series_name(self.stream, columns.keys[row])
            yield LateRecord(
                self.provenance.stream,
                columns.partition,
                offset,
                name,
                time,
                columns.values[row].tolist(),
                young[row],
            )

    def replace_detector(self, detector: Detector, provenance: Provenance) -> None:
        """Use another detector from the next batch on; the series keep their state.

        Call it between two batches, so that one model scores each batch. Raises ValueError where the detector
        keeps another kind of state.
        """
        if self.events is not None:
            self.events.use_model(detector, self.series)
        self.series.replace_layer("detector", self._layer(detector))
        self.detector, self.provenance = detector, provenance

    def overwrite_state(self, names: Sequence[str], state: State) -> int:
        """Overwrite the detector's state of series with the rows of ``state``, from the next batch on.

        Series that are not in memory are skipped. Returns the number of those that are.
        """
        slots = {name: slot for slot, name in enumerate(self.names()) if name is not None}
        rows = np.array([row for row, name in enumerate(names) if name in slots], np.int64)
        at = np.array([slots[names[row]] for row in rows], np.int64)
        for name, array in self.series.state["detector"].items():
            array[at] = state[name][rows]
        return len(rows)

    # ------------------- state of a partition

    def restore(
        self,
        partition: Partition,
        meta: Mapping[str, Any],
        pages: Iterable[bytes],
        *,
        with_buffer: bool = True,
    ) -> None:
        """Load the state that ``pages`` wrote.

        A layer whose version has changed since is reset, and that is logged. Raises DamagedState; then some of
        the state may be loaded, and ``drop`` removes it.

        Args:
            partition: The partition that the state belongs to.
            meta: The result of ``meta`` when the pages were written.
            pages: The buffered records first, then the codes of a stream of events, then the series.
            with_buffer: Also load the buffered records. False where the records that released them cannot be
                read again: some of the buffered ones were scored since.
        """
        pages = iter(pages)
        buffer_page = next(pages, None)
        if buffer_page is None or "windows" not in meta:
            raise DamagedState("the snapshot has no buffered records, or no version of them")
        if (version := meta["windows"]) != self.event_time.version:
            log.warning(
                "buffered records are dropped: their stored form has another version",
                partition=str(partition),
                stored=version,
            )
        elif with_buffer:
            try:
                self._buffers[partition] = self.event_time.load(partition, buffer_page)
            except Exception as error:  # the errors of safetensors are of any type
                raise DamagedState(f"the buffered records cannot be read: {error}") from error
        if self.events is not None:
            self.events.load(partition, next(pages, b""))
        if TEMPLATES_KEY in meta:
            templates_page = next(pages, b"")
            if self.templates is not None:
                self.templates.load(partition, templates_page)
        self._log_other_forms(partition, [self.series.load_page(partition, page) for page in pages])

    def _log_other_forms(self, partition: Partition, pages: Sequence[LoadedPage]) -> None:
        """Log the layers that were reset or converted."""
        if reset := {layer for page in pages for layer in page.reset}:
            log.warning(
                "series state is reset: its stored form has another version",
                partition=str(partition),
                layers=sorted(reset),
            )
        without_ranges = {layer for page in pages for layer in page.without_ranges}
        if converted := {layer for page in pages for layer in page.converted} - without_ranges:
            log.info(
                "series state is converted to the form of this version",
                stream=self.provenance.stream,
                partition=str(partition),
                layers=sorted(converted),
            )
        if without_ranges:
            log.warning(
                "series state of the decision surprise is converted: usual ranges start empty, so there are "
                "no alarms but static limits for the next 150 points of each series",
                stream=self.provenance.stream,
                partition=str(partition),
                layers=sorted(without_ranges),
                advice="to keep the verdicts of version 0.1.0, set decision: surprise",
            )

    def restore_open(self, partition: Partition, anomalies: Iterable[Anomaly]) -> None:
        """Continue the open anomalies of a partition.

        Those of series that are not in memory stay in the database.
        """
        anomalies = list(anomalies)
        if not anomalies:
            return
        by_series = {
            series_name(self.stream, self.series.key(slot))[0]: slot
            for slot in self.series.slots(partition).tolist()
        }
        for anomaly in anomalies:
            if (slot := by_series.get(anomaly.series)) is not None:
                self.tracker.restore(slot, anomaly, int(self.series.state["windows"]["seq"][slot]))

    def buffered_records(self, partition: Partition) -> int:
        """Return the number of records buffered until the watermark passes them."""
        return self._buffer_of(partition).records

    def forget_sessions(self, partition: Partition) -> None:
        """Leave open sessions of events without an end: records of theirs are lost."""
        if self.events is not None:
            self.series.reset(self.events.forget_open(self.series, partition), "detector")

    def empty_buffer(self, partition: Partition) -> None:
        """Start the event time of a partition again; the series keep their state."""
        self._buffers[partition] = self.event_time.empty(partition)

    def pages(self, partition: Partition, without: NDArray[np.int32]) -> Iterator[bytes]:
        """Yield the state of a partition without the series in the slots ``without``, for ``restore``."""
        yield self.event_time.dump(self._buffer_of(partition))
        if self.events is not None:
            yield self.events.dump(partition)
        if self.templates is not None:
            yield self.templates.dump(partition)
        slots = self.series.slots(partition)
        yield from self.series.pages(slots[~np.isin(slots, without)])

    def meta(self) -> dict[str, Any]:
        """Return what ``restore`` needs before it reads the pages."""
        templates = {} if self.templates is None else {TEMPLATES_KEY: TEMPLATES_VERSION}
        return {"windows": self.event_time.version} | templates

    def open_keys(self, partition: Partition) -> list[Key]:
        """Return the keys of the series of a partition that have an open anomaly."""
        slots = [slot for slot in self.tracker.slots() if self.series.partition(slot) == partition]
        return sorted(self.series.key(slot) for slot in slots)

    def drop(self, partition: Partition) -> None:
        """Drop the state of a partition."""
        self.tracker.forget(self.series.slots(partition).tolist())
        self.series.drop(partition)
        self._buffers.pop(partition, None)
        if self.events is not None:
            self.events.drop(partition)
        if self.templates is not None:
            self.templates.drop(partition)
        self._gauges.pop(partition, None)

    def idle(self, partition: Partition) -> NDArray[np.int32]:
        """Return the slots of series that are silent for ``idle_after`` and have no open anomaly.

        A series of events whose session has ended by ``idle`` has waited long enough.
        """
        slots = self.series.slots(partition)
        sessions, watermark = self.event_time.sessions, self._buffer_of(partition).watermark_ns or 0
        if sessions is not None and sessions.idle_ns:
            silent = slots[~self.series.state["windows"]["open"][slots]]
        else:
            before = watermark - to_nanoseconds(self.stream.idle_after)
            silent = slots[self.last_time(slots) < before]
        return silent[[slot not in self.tracker for slot in silent.tolist()]]

    def last_time(self, slots: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the event time of the last point of each series, ns."""
        return self.series.state["windows"]["last_time"][slots]

    def names(self) -> list[str | None]:
        """Return the name of the series in each slot, None where the slot is free."""
        return series_names(self.stream, self.series.by_slot)

    def name_of(self, slot: int) -> str:
        return series_name(self.stream, self.series.key(slot))[0]

    def _layer(self, detector: Detector) -> StateLayer:
        def introduce(state: State, slots: NDArray[np.int32], keys: Sequence[Key]) -> None:
            # Names are made on demand: most models keep nothing for a single series.
            detector.register_series(state, slots, (series_name(self.stream, key)[0] for key in keys))

        return StateLayer(
            detector.state_version,
            detector.initial,
            detector.weights,
            detector.on_weights_changed,
            introduce,
            detector.convert_state if isinstance(detector, ConvertsState) else lambda version, rows: None,
            detector.starts_usual_ranges if isinstance(detector, ConvertsDecision) else lambda version: False,
        )

    def _buffer_of(self, partition: Partition) -> PartitionBuffer:
        buffer = self._buffers.get(partition)
        return self.event_time.empty(partition) if buffer is None else buffer

    def _finding(self, scored: Scored, row: int) -> EventFinding | None:
        if self.events is None:
            return None
        partition = self.series.partition(int(scored.points.slot[row]))
        return self.events.finding(partition, scored, row, self.detector)

    def _identify(self, slot: int) -> tuple[Partition, str, dict[str, str]]:
        partition = self.series.partition(slot)
        name, labels = series_name(self.stream, self.series.key(slot))
        if self.templates is not None:
            text = self.templates.text(partition, labels.get(TEMPLATE_LABEL, ""))
            labels |= {TEMPLATE_TEXT_LABEL: text} if text else {}
        return partition, name, labels


def _rows_between_resets(slot: NDArray[np.int32], restart: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Group the rows of a batch by the number of resets of their series before them."""
    if not restart.any():
        return [np.arange(len(slot))]
    order = np.argsort(slot, kind="stable")
    resets = np.cumsum(restart[order])
    first = np.flatnonzero(np.diff(slot[order], prepend=-1))  # where each series' rows begin
    number = np.empty(len(slot), np.int64)
    number[order] = resets - np.repeat((resets - restart[order])[first], np.diff(first, append=len(slot)))
    return [rows for rows in (np.flatnonzero(number == n) for n in range(number.max() + 1)) if len(rows)]
