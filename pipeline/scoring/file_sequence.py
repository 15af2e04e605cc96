"""Files of a followed folder: series go on from one file to the next.

Each file is a partition. A file that begins later continues the state that the series had at the end of the
earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.core.durations import SECOND_NS, to_nanoseconds
from pipeline.core.types import Anomaly, Counts, EndReason, Partition
from pipeline.decode import Columns, Key
from pipeline.scoring.batch_result import BatchResult, PartitionOutcome
from pipeline.scoring.stream_state import StreamState


class FileSequence:
    """Files of one stream, and the anomalies that end where a series leaves one."""

    def __init__(self, state: StreamState) -> None:
        """Start without a file; ``state`` holds the series of all files."""
        self._state = state
        self._continued: list[Anomaly] = []
        self._left: set[Partition] = set()  # their sessions went on in later ones

    def in_turn(self, ready: dict[Partition, Columns]) -> list[dict[Partition, Columns]]:
        """Divide the files of a batch where a series goes on from one file to the next.

        The state at the end of the earlier file is that after its rows, which may be in the same batch.
        """
        if len(ready) == 1:
            return [ready]
        groups: list[dict[Partition, Columns]] = [{}]
        seen: set[Key] = set()
        for partition, columns in ready.items():
            names = set(columns.keys.names)
            if not (names & seen).issubset(self._state.series.keys_of(partition)):
                groups.append({})
                seen = set()
            groups[-1][partition] = columns
            seen |= names
        return groups

    def continue_series(self, partition: Partition, first_ns: Mapping[Key, int], replay: bool) -> None:
        """Give series that are new in a file the state at the end of an earlier file.

        The state is copied, so that a recovery of either file finds it. An anomaly that is still open at the
        end of the earlier file is closed.
        """
        last_time = self._state.series.state["windows"]["last_time"]
        for key, first in first_ns.items():
            slots = self._state.series.slots_elsewhere(partition, key)
            earlier = [slot for slot in slots if last_time[slot] <= first]
            if not earlier:
                continue
            ((target,), _) = self._state.series.find(partition, [key])
            source = max(earlier, key=lambda slot: int(last_time[slot]))
            if last_time[source] > last_time[target]:
                self._state.series.copy_state(source, int(target))
            if self._state.events is not None:  # the session is that of the later file
                self._state.series.state["windows"]["open"][earlier] = False
                self._left |= {self._state.series.partition(slot) for slot in earlier}
            if not replay:
                self._continued += [
                    a for slot in earlier for a in self._state.tracker.close(slot, EndReason.CONTINUED)
                ]

    def take_continued(self) -> list[Anomaly]:
        """Return the anomalies of this batch whose series went on in another file."""
        continued, self._continued = self._continued, []
        return continued

    def take_left(self) -> set[Partition]:
        """Return the files whose sessions went on in later ones since the last call."""
        left, self._left = self._left, set()
        return left

    def end_earlier(
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

        Args:
            columns: The rows.
            next_offsets: Next offset of each file.
            ready: Receives the released records.
            outcomes: Receives the outcome of each file that has released some.
        """
        if not len(columns) or self._state.stream.aggregate is not None or self._state.events is not None:
            return
        new = set(columns.keys.names).difference(self._state.series.keys_of(columns.partition))
        first, lateness = int(columns.time.min()), to_nanoseconds(self._state.stream.lateness)
        for partition, at in next_offsets.items():
            buffer = self._state.buffer_of(partition)
            if partition in (columns.partition, *ready) or not buffer.records:
                continue
            if (buffer.watermark_ns or 0) + lateness <= first and not new.isdisjoint(buffer.known_keys()):
                self._state.buffers[partition], ready[partition] = self._state.event_time.flush(buffer)
                outcomes[partition] = PartitionOutcome(at, at, Counts(), buffer.watermark_ns)

    def close_idle(self, partitions: Mapping[Partition, int]) -> BatchResult | None:
        """Close the anomalies of series that are silent for ``idle_after``.

        ``partitions`` maps each partition to its next offset. The event time is that of the whole stream:
        that of a file stands still at its end. None if there are none.
        """
        closed, before = [], self._idle_before()
        for slot in self._state.tracker.slots():
            partition = self._state.series.partition(slot)
            if partition in partitions and self._state.series.state["windows"]["last_time"][slot] < before:
                closed += self._state.tracker.close(slot, EndReason.SILENT)
        return self._closing(partitions, closed)

    def close_file(self, partition: Partition, next_offset: int) -> BatchResult | None:
        """Close the anomalies of a file that is gone. None if there are none."""
        slots = self._state.series.slots(partition).tolist()
        closed = [a for slot in slots for a in self._state.tracker.close(slot, EndReason.FILE_REMOVED)]
        return self._closing({partition: next_offset}, closed)

    def idle_buffers(self, partitions: Mapping[Partition, int]) -> dict[Partition, int]:
        """Return the files whose buffered records have waited for ``idle_after``.

        Time is the event time of the whole stream: at the end of a file no record of its own releases them.
        Sessions of events end with them, so that these wait for ``idle`` too.
        """
        before = self._idle_before()
        if self._state.events is not None:
            before = min(before, self.newest_watermark() - round(self._state.events.idle_seconds * SECOND_NS))
        return {
            partition: offset
            for partition, offset in partitions.items()
            if (buffer := self._state.buffer_of(partition)).records and (buffer.watermark_ns or 0) < before
        }

    def _idle_before(self) -> int:
        return self.newest_watermark() - to_nanoseconds(self._state.stream.idle_after)

    def newest_watermark(self) -> int:
        """Return the event time of the whole stream, ns; 0 before the first record."""
        times = (buffer.watermark_ns for buffer in self._state.buffers.values())
        return max((time for time in times if time is not None), default=0)

    def _closing(self, partitions: Mapping[Partition, int], closed: list[Anomaly]) -> BatchResult | None:
        if not closed:
            return None
        return BatchResult(
            {
                one: PartitionOutcome(
                    partitions[one],
                    partitions[one],
                    Counts(buffered=self._state.buffered_records(one)),
                    self._state.buffer_of(one).watermark_ns,
                )
                for one in sorted({a.partition for a in closed})
            },
            self._state.provenance.model_version,
            anomalies=closed,
        )
