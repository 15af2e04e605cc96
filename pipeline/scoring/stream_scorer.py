"""The path of one stream from records to verdicts.

Daemon, backfill, evaluation and data frames use the same one::

    records ─► decode ─► event time (reorder, late, duplicate, gaps) ─► detector ─► anomaly tracker
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import thread_time

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector
from pipeline.config.schema import Stream
from pipeline.core.durations import SECOND_NS
from pipeline.core.types import Anomaly, Counts, Partition
from pipeline.decode import Columns, DeadLetterGauge, make_decoder
from pipeline.scoring.batch_result import BatchResult, PartitionOutcome
from pipeline.scoring.detector_step import advance_detector
from pipeline.scoring.file_sequence import FileSequence
from pipeline.scoring.point_counts import add_counts
from pipeline.scoring.provenance import Provenance, Scored, joined, joined_points
from pipeline.scoring.recent_readings import ReadingsBefore
from pipeline.scoring.series_limit import SeriesLimit
from pipeline.scoring.stream_state import RECENT_LAYER, LoadOffloaded, StreamState, nothing_offloaded
from pipeline.sources.base import Records, TableRecords
from pipeline.windows.aggregation import AggregationBuffer
from pipeline.windows.event_sessions import FOREVER
from pipeline.windows.event_time import PartitionBuffer

#: Selects points of a batch: (N,) bool.
SelectPoints = Callable[[Columns], NDArray[np.bool_]]


class StreamScorer(StreamState):
    """Decoder, event time, detector and anomaly tracker of one stream."""

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
        super().__init__(provenance, stream, detector, load_offloaded, on_damage)
        #: The files of a followed folder: each is a partition, and series go on from file to file.
        self.files = FileSequence(self) if stream.source.files and stream.source.files.follow else None
        self.limit = SeriesLimit(max_series, self.series, self.buffers, go_on=self.files is not None)
        self._decoder = make_decoder(provenance.stream, stream)
        self._keep = keep
        self._silence_before: Mapping[Partition, float] = {}
        self._gauges: dict[Partition, DeadLetterGauge] = {}

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
            if next_offsets and self.files is not None:
                self.files.end_earlier(admitted, next_offsets, ready, outcomes)
            buffer = self._buffer_after_silence(partition, admitted)
            buffer, ready[partition] = self.event_time.push(buffer, admitted)
            self.buffers[partition] = buffer
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
        """Score all buffered records, as if the watermark had passed them.

        The input has ended.

        Args:
            next_offsets: Next offset of each partition that has ended.
            replay: As in ``process``.
            ended_ns: Time up to which sessions of events end, None: that of the buffered records.
        """
        ready: dict[Partition, Columns] = {}
        outcomes: dict[Partition, PartitionOutcome] = {}
        for partition, next_offset in next_offsets.items():
            buffer, ready[partition] = self.event_time.flush(self.buffer_of(partition))
            self.buffers[partition] = buffer
            outcomes[partition] = PartitionOutcome(
                next_offset, next_offset, Counts(buffered=buffer.records), buffer.watermark_ns
            )
        return self._score(ready, outcomes, replay, ended_ns=ended_ns)

    def end_file(self, partition: Partition, next_offset: int) -> BatchResult | None:
        """Score the buffered records of a followed file that is gone.

        Its sessions end if they are over by the event time of the whole stream; the others may go on in a
        later file. None if there is nothing to do.
        """
        if self.events is None or self.files is None:
            return self.flush({partition: next_offset}) if self.buffered_records(partition) else None
        if not self.buffered_records(partition) and not self.events.open_sessions(self.series, partition):
            return None
        return self.flush({partition: next_offset}, ended_ns=self.files.newest_watermark())

    def note_silence(self, seconds: Mapping[Partition, float]) -> None:
        """Take the length of the silence that the records of the next batch end."""
        self._silence_before = seconds

    def _buffer_after_silence(self, partition: Partition, columns: Columns) -> PartitionBuffer:
        """Return the buffer of a partition, which learns how late its next records come."""
        buffer, seconds = self.buffer_of(partition), self._silence_before.get(partition)
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
        buffer = self.buffer_of(partition)
        if not isinstance(buffer, AggregationBuffer) or not buffer.is_due(int(silent_seconds * SECOND_NS)):
            return None
        slots = self.series.slots(partition)
        if self.files is not None and len(self.series.last_slots(slots)) < len(slots):
            return None
        return self._end_interval(buffer, next_offset, replay=False)

    def replay_silent_intervals(
        self, partition: Partition, next_offset: int, watermark_ns: int | None
    ) -> Iterator[BatchResult]:
        """Yield the intervals that a silence had ended, up to the committed watermark."""
        buffer = self.buffer_of(partition)
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
        reached = self.buffer_of(partition).watermark_ns
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
            for some in ([ready] if self.files is None else self.files.in_turn(ready))
            if (part := self._score_together(some, result, replay, ended_ns)) is not None
        ]
        if scored:
            result.scored = joined(scored)
        if len(scored) > 1:  # one that was flagged in a file may be closed by the next one
            result.anomalies = list({anomaly.id: anomaly for anomaly in result.anomalies}.values())
        return result

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
            add_counts(result.outcomes[partition], self.provenance.stream, self.stream, columns, one)
            if self.events is not None:
                watermark = result.outcomes[partition].watermark_ns if ended_ns is None else ended_ns
                one = self.events.end_sessions(self.series, partition, watermark, columns, one)
                if ended_ns == FOREVER:
                    outcome = result.outcomes[partition]
                    outcome.watermark_ns = self.events.ended_mark(outcome.watermark_ns)
            admitted.append(one)
            offsets.append(one.offsets(columns))
            result.rows[partition] = slice(start, start := start + len(one.points))
        if self.files is not None:
            result.anomalies += self.files.take_continued()
        if start == first:
            return None
        points = joined_points([one.points for one in admitted])
        started = thread_time()
        restart = np.concatenate([one.restart for one in admitted])
        verdicts = advance_detector(self.detector, self.series, points, restart)
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
        result.anomalies += self._track(scored, restart, replay=replay)
        return scored

    def _track(self, scored: Scored, restart: NDArray[np.bool_], *, replay: bool) -> list[Anomaly]:
        """Return the anomalies that changed, and keep the last readings."""
        state = self.series.state
        before = ReadingsBefore(state[RECENT_LAYER], restart) if RECENT_LAYER in state else None
        changed = (
            [] if replay else self.tracker.advance(scored, self.provenance, state["windows"]["seq"], before)
        )
        if before is not None:
            before.keep(scored)
        return changed

    def _slots(self, partition: Partition, columns: Columns, replay: bool) -> NDArray[np.int32]:
        slots, new = self.series.find(partition, columns.keys.names)
        if new:
            # The first point in the order of admission, which does not depend on how records were cut into
            # batches.
            first_ns = dict(zip(reversed(columns.keys.flat()), columns.time[::-1].tolist(), strict=True))
            self._load_series(partition, {key: first_ns[key] for key in new})
            if self.files is not None:
                self.files.continue_series(partition, {key: first_ns[key] for key in new}, replay)
        return columns.keys.spread(slots)

    def drop(self, partition: Partition) -> None:
        """Drop the state of a partition."""
        super().drop(partition)
        self._gauges.pop(partition, None)
