"""Output of verdicts to a Kafka topic.

    engine ── append ──► queue ──► one thread: a transaction for each partition ──► topic
           ◄── full, durable ──

The engine appends what is committed in the database. A crash in between loses nothing: the owner replays from
its snapshot, which is never newer than what is written here, and the position of the last transaction tells
which of the replayed verdicts are missing in the topic.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain
from typing import TypeVar

import structlog

from pipeline.config.outputs import KafkaOutputConfig
from pipeline.core.errors import OutputUnavailable
from pipeline.core.types import Partition, Position
from pipeline.decode import labels_of
from pipeline.observability.metrics import OutputMetrics
from pipeline.outputs.kafka_transactions import (
    TransactionalWriter,
    WrittenPosition,
    make_writer,
    transactional_prefix,
)
from pipeline.outputs.row_selection import RowSelection, all_points, flagged_points
from pipeline.outputs.verdict import VerdictRows
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer

log = structlog.get_logger(__name__)

#: Verdicts of one transaction.
MAX_TRANSACTION_ROWS = 20_000
RETRY_SECONDS = 1.0
#: Time after a failure in which ``open`` does not try again.
QUIET_SECONDS = 2.0
#: Time that a snapshot and the end wait for the brokers.
DURABLE_TIMEOUT_SECONDS = 5.0
CLOSE_TIMEOUT_SECONDS = 10.0
_LABELS_CACHED = 65_536


@dataclass(slots=True)
class _Batch:
    """Verdicts that become visible with the position ``at``."""

    rows: VerdictRows
    at: WrittenPosition


@dataclass(slots=True)
class _Revised:
    """Verdicts of points whose first ones are written with the position ``after``."""

    rows: VerdictRows
    after: WrittenPosition


Queued = TypeVar("Queued", _Batch, _Revised)


@dataclass(slots=True)
class _OpenPartition:
    """Queues of one owned partition. ``written`` moves with each transaction."""

    identity: str
    writer: TransactionalWriter
    written: WrittenPosition
    queue: deque[_Batch] = field(default_factory=deque)
    revised: deque[_Revised] = field(default_factory=deque)
    broken: bool = False  # the writer must be opened again
    dropped: bool = False
    busy: bool = False  # the thread uses the writer, and closes it if the partition is dropped meanwhile

    @property
    def empty(self) -> bool:
        """True if all is written."""
        return not self.queue and not self.revised


class KafkaOutput:
    """Output to a topic.

    The engine's thread calls the methods; one thread of its own writes.
    """

    def __init__(
        self, name: str, config: KafkaOutputConfig, scorer: StreamScorer, metrics: OutputMetrics
    ) -> None:
        """Start the thread.

        Args:
            name: Name of the output in the config.
            config: The output.
            scorer: Gives the names of the series.
            metrics: Counters of this output.
        """
        self._prefix = transactional_prefix(scorer.provenance.stream, name)
        self._config = config
        self._metrics = metrics
        self._selection = RowSelection(scorer, all_points if config.rows == "all" else flagged_points)
        self._labels = lru_cache(_LABELS_CACHED)(partial(labels_of, scorer.stream))
        self._open: dict[Partition, _OpenPartition] = {}
        self._changed = threading.Condition()
        self._waiting_rows = 0
        self._problem = ""
        self._failed_at = float("-inf")
        self._closing = False
        metrics.up.set(1)
        self._thread = threading.Thread(target=self._run, name=f"output {name}", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------- the engine's side

    @property
    def full(self) -> bool:
        """True while reading must stop until the brokers took more."""
        return self._waiting_rows >= self._config.buffer

    @property
    def problem(self) -> str:
        """Reason why nothing can be written now, empty if it can."""
        return self._problem

    def open(self, position: Position, offset: int) -> None:
        """Start a newly owned partition, which is replayed from ``offset``.

        Raises OutputUnavailable.
        """
        if time.monotonic() - self._failed_at < QUIET_SECONDS:
            raise OutputUnavailable(self._problem)
        partition = position.partition
        writer = make_writer(self._config, f"{self._prefix}/{partition.topic}/{partition.number}")
        try:
            found = writer.open()
        except OutputUnavailable as error:
            writer.close()
            self._fail(error)
            raise OutputUnavailable(self._problem) from error
        self._succeed()
        written = WrittenPosition(offset, False, position.identity)
        of_this_log = found is not None and found.identity == position.identity
        if found is not None and of_this_log and found.offset <= (position.next_offset or 0):
            written = found
        if written.offset < offset:
            log.info(
                "verdicts before the snapshot were written without a later one",
                partition=str(partition),
                written=written.offset,
                snapshot=offset,
            )
        with self._changed:
            self._open[partition] = _OpenPartition(position.identity, writer, written)

    def written(self, partition: Partition) -> int:
        """Return the offset below which everything is written."""
        return self._open[partition].written.offset if partition in self._open else 0

    def append(self, result: BatchResult) -> None:
        """Queue the chosen verdicts of a batch, and revised ones.

        First ones that an earlier owner has written are left out.
        """
        rows = dict(self._selection.of(result))
        with self._changed:
            for partition, outcome in result.outcomes.items():
                at_end = outcome.first_offset == outcome.next_offset
                one = self._open.get(partition)
                if one is None or partition not in rows:
                    continue
                until = (outcome.watermark_ns or 0) if at_end else 0
                at = WrittenPosition(outcome.next_offset, at_end, one.identity, until)
                if at.order <= one.written.order:
                    continue
                one.queue.append(_Batch(rows[partition], at))
                self._waiting_rows += len(rows[partition])
            for partition, revised in self._selection.revised(result):
                if (one := self._open.get(partition)) is not None:
                    one.revised.append(_Revised(revised, one.queue[-1].at if one.queue else one.written))
                    self._waiting_rows += len(revised)
            self._metrics.waiting.set(self._waiting_rows)
            self._changed.notify_all()

    def durable(self, partition: Partition) -> bool:
        """Wait a moment for what was appended; return True if all is written."""
        one = self._open.get(partition)
        if one is None:
            return False
        with self._changed:
            return (
                self._changed.wait_for(lambda: one.empty or bool(self._problem), DURABLE_TIMEOUT_SECONDS)
                and one.empty
            )

    def drop(self, partition: Partition) -> None:
        """Forget a lost partition; its new owner writes what is missing."""
        with self._changed:
            one = self._open.pop(partition, None)
            if one is None:
                return
            one.dropped = True
            self._waiting_rows -= sum(
                len(batch.rows) for batch in chain[_Batch | _Revised](one.queue, one.revised)
            )
            one.queue.clear()
            one.revised.clear()
            self._changed.notify_all()
            busy = one.busy
        if not busy:
            threading.Thread(target=one.writer.close, name="output closes", daemon=True).start()

    def close(self) -> None:
        """Write what waits, for a limited time, and stop the thread."""
        with self._changed:
            if not self._problem:
                self._changed.wait_for(
                    lambda: self._waiting_rows == 0 or bool(self._problem), CLOSE_TIMEOUT_SECONDS
                )
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSE_TIMEOUT_SECONDS)
        for partition in list(self._open):
            self.drop(partition)

    # ------------------------------------------------------------------------------------- the thread's side

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._ready())
                if self._closing:
                    return
                ready = self._ready()
            for one in ready:
                self._write_unless_dropped(one)

    def _ready(self) -> list[_OpenPartition]:
        return [one for one in self._open.values() if not one.empty]

    def _write_unless_dropped(self, one: _OpenPartition) -> None:
        """Write, and close the writer if its partition was dropped meanwhile.

        A call that waits for the end of a transaction would never return if another thread closed the client.
        """
        with self._changed:
            if one.dropped:
                return
            one.busy = True
        self._write(one)
        with self._changed:
            one.busy, dropped = False, one.dropped
        if dropped:
            one.writer.close()

    def _write(self, one: _OpenPartition) -> None:
        """Write the beginning of a queue in one transaction."""
        try:
            if one.broken:
                self._open_again(one)
            with self._changed:
                batches = self._beginning(one.queue)
                at = batches[-1].at if batches else one.written
                revised = self._beginning([again for again in one.revised if again.after.order <= at.order])
            if not batches and not revised:
                return
            rows = [batch.rows for batch in batches] + [again.rows for again in revised]
            messages = chain.from_iterable(one_batch.messages(self._labels) for one_batch in rows)
            started = time.monotonic()
            refused = one.writer.write(messages, at)
        except OutputUnavailable as error:
            one.broken = True
            if not one.dropped:
                self._fail(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closing or one.dropped, RETRY_SECONDS)
            return
        self._metrics.seconds.observe(time.monotonic() - started)
        self._metrics.refused.inc(refused)
        self._metrics.written.inc(sum(map(len, rows)) - refused)
        self._succeed()
        with self._changed:
            for _ in revised:
                if one.revised:  # not dropped
                    self._waiting_rows -= len(one.revised.popleft().rows)
        self._forget_written(one, at)

    @staticmethod
    def _beginning(queue: Iterable[Queued]) -> list[Queued]:
        """Return the first ones of one transaction, at least one."""
        taken: list[Queued] = []
        rows = 0
        for batch in queue:
            rows += len(batch.rows)
            if taken and rows > MAX_TRANSACTION_ROWS:
                break
            taken.append(batch)
        return taken

    def _open_again(self, one: _OpenPartition) -> None:
        """Open the writer after an error.

        A transaction of unknown outcome may have taken effect.
        """
        found = one.writer.open()
        one.broken = False
        if found is not None and found.identity == one.identity:
            self._forget_written(one, found)

    def _forget_written(self, one: _OpenPartition, at: WrittenPosition) -> None:
        with self._changed:
            while one.queue and one.queue[0].at.order <= at.order:
                self._waiting_rows -= len(one.queue.popleft().rows)
            one.written = max(one.written, at, key=lambda position: position.order)
            self._metrics.waiting.set(self._waiting_rows)
            self._changed.notify_all()

    def _fail(self, error: OutputUnavailable) -> None:
        if not self._problem:
            log.warning("verdicts cannot be written", topic=self._config.topic, error=str(error))
        with self._changed:
            self._problem = (
                f"verdicts cannot be written to the topic {self._config.topic}: {error}. They wait, "
                f"and reading stops at {self._config.buffer:,} of them"
            )
            self._failed_at = time.monotonic()
            self._changed.notify_all()
        self._metrics.errors.inc()
        self._metrics.up.set(0)

    def _succeed(self) -> None:
        with self._changed:
            self._problem, self._failed_at = "", float("-inf")
        self._metrics.up.set(1)
