"""Output of scores, flags and intervals to a receiver of Prometheus remote write.

It is for graphs and never stops the stream: while the receiver does not answer, samples wait in a buffer of
limited size, whose oldest are dropped. Samples of before a crash that were not sent are not sent later.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from pipeline.alerts.transport.base import Call, DeliveryResult
from pipeline.alerts.transport.http import HttpSender
from pipeline.config.field_types import Secret
from pipeline.config.outputs import RemoteWriteConfig
from pipeline.core.durations import to_nanoseconds
from pipeline.core.types import Partition, Position
from pipeline.decode import labels_of
from pipeline.observability.metrics import OutputMetrics
from pipeline.outputs.remote_write_format import HEADERS, Labels, encode_request, metric_labels
from pipeline.outputs.row_selection import RowSelection
from pipeline.outputs.verdict import VerdictRows
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.provenance import RevisedPoints, Scored
from pipeline.scoring.stream_scorer import StreamScorer

log = structlog.get_logger(__name__)

PREFIX = "forewatch_verdict_"
#: Rows of one request.
MAX_REQUEST_ROWS = 1_000
FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 30.0
CLOSE_TIMEOUT_SECONDS = 5.0
_LABELS_CACHED = 65_536


class _Sent(NamedTuple):
    """Result of one request: ``again`` if the receiver may take it later."""

    ok: bool
    again: bool
    answer: str
    wait_seconds: float | None


class SeriesWindow:
    """The series that are written now.

    There are at most ``most``, each for ``keep_ns`` after its last trigger: a flagged point, or any point.
    """

    def __init__(self, most: int, keep_ns: int, *, every_point: bool) -> None:
        """Begin without a series."""
        self.refused = 0
        self._most, self._keep_ns, self._every_point = most, keep_ns, every_point
        self._until: dict[tuple[Partition, int], int] = {}

    def choose(self, scored: Scored, rows: slice, partition: Partition) -> NDArray[np.bool_]:
        """Return which points of a partition are written, (N,) bool."""
        slot, time = scored.points.slot[rows], scored.points.time[rows]
        if not len(slot):
            return np.zeros(0, np.bool_)
        trigger = np.ones(len(slot), np.bool_) if self._every_point else scored.verdicts.flag[rows]
        self._forget(partition, int(time.min()))
        since = np.full(int(slot.max()) + 1, np.iinfo(np.int64).max)
        until = np.full(len(since), np.iinfo(np.int64).min)
        for known, end in self._until.items():
            if known[0] == partition and known[1] < len(since):
                since[known[1]], until[known[1]] = np.iinfo(np.int64).min, end
        for row in np.flatnonzero(trigger).tolist():
            at, key = int(time[row]), (partition, int(slot[row]))
            if key not in self._until and len(self._until) >= self._most:
                self.refused += 1
                continue
            self._until[key] = until[slot[row]] = at + self._keep_ns
            since[slot[row]] = min(since[slot[row]], at)
        return (time >= since[slot]) & (time <= until[slot])

    def has(self, partition: Partition, slot: int) -> bool:
        """Return whether a series is written now."""
        return (partition, slot) in self._until

    def drop(self, partition: Partition) -> None:
        """Forget a partition, whose slots are given away."""
        self._until = {key: end for key, end in self._until.items() if key[0] != partition}

    def _forget(self, partition: Partition, now_ns: int) -> None:
        for key in [key for key, end in self._until.items() if key[0] == partition and end < now_ns]:
            del self._until[key]


class RemoteWriteOutput:
    """Output to a receiver.

    The engine's thread calls the methods; one thread of its own sends.
    """

    full = False

    def __init__(
        self, name: str, config: RemoteWriteConfig, scorer: StreamScorer, metrics: OutputMetrics
    ) -> None:
        """Start the thread.

        Args:
            name: Name of the output in the config.
            config: The output.
            scorer: Gives the names of the series.
            metrics: Counters of this output.
        """
        self._stream = scorer.provenance.stream
        self._config = config
        self._metrics = metrics
        self._window = SeriesWindow(
            config.max_series, to_nanoseconds(config.keep), every_point=config.series == "all"
        )
        self._scorer = scorer
        every = self._revised_of_written_series if config.series == "all" else None
        self._selection = RowSelection(scorer, self._window.choose, every)
        self._labels = lru_cache(_LABELS_CACHED)(partial(labels_of, scorer.stream))
        self._series = lru_cache(_LABELS_CACHED)(self._series_of)
        self._samples_of_row = 2 + 4 * len(scorer.provenance.channels)
        self._queue: deque[VerdictRows] = deque()
        self._waiting = 0  # rows
        self._problem = ""
        self._changed = threading.Condition()
        self._closing = False
        metrics.up.set(1)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name=f"output {name}", daemon=True
        )
        self._thread.start()

    # ------------------------------------------------------------------------------------- the engine's side

    @property
    def problem(self) -> str:
        """Reason why nothing can be sent now, empty if it can."""
        return self._problem

    def open(self, position: Position, offset: int) -> None:
        """Start a newly owned partition, of which nothing is stored."""

    def written(self, partition: Partition) -> int:
        """Return 0: no batch has to be cut."""
        return 0

    def append(self, result: BatchResult) -> None:
        """Queue the chosen points of a batch; over the limit the oldest ones are dropped.

        What is replayed was sent, or is lost; it only tells which series are written now.
        """
        before = self._window.refused
        for _, rows in self._selection.of(result):
            if not result.replayed:
                self._put(rows)
        for _, rows in self._selection.revised(result) if self._config.revisions else ():
            self._put(rows)
        self._metrics.refused.inc(self._window.refused - before)

    def durable(self, partition: Partition) -> bool:
        """Return True: a snapshot does not wait for graphs."""
        return True

    def drop(self, partition: Partition) -> None:
        """Forget a lost partition."""
        self._window.drop(partition)

    def close(self) -> None:
        """Send what waits, for a limited time, and stop the thread."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or bool(self._problem), CLOSE_TIMEOUT_SECONDS)
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSE_TIMEOUT_SECONDS)

    def _revised_of_written_series(self, points: RevisedPoints, partition: Partition) -> NDArray[np.bool_]:
        """Choose the revised points of series within ``max_series``."""
        slots = {name: slot for slot, name in enumerate(self._scorer.names()) if name is not None}
        written = [self._window.has(partition, slots.get(name or "", -1)) for name in points.names]
        return np.array(written, np.bool_)[points.scored.points.slot]

    def _put(self, rows: VerdictRows) -> None:
        with self._changed:
            self._queue.append(rows)
            self._waiting += len(rows)
            while len(self._queue) > 1 and self._waiting * self._samples_of_row > self._config.buffer:
                self._metrics.refused.inc(len(self._queue[0]))
                self._waiting -= len(self._queue.popleft())
            self._metrics.waiting.set(self._waiting)
            self._changed.notify_all()

    # ------------------------------------------------------------------------------------- the thread's side

    async def _run(self) -> None:
        sender = HttpSender(
            lambda _: Call("", b""),
            self._secrets,
            self._config.allow,
            self._config.ca,
            self._config.timeout.total_seconds(),
        )
        while (rows := self._next()) is not None:
            body = encode_request(self._series_with_samples(rows))
            await self._send_until_taken(sender, body, sum(map(len, rows)))
        await sender.close()

    def _next(self) -> list[VerdictRows] | None:
        """Wait for rows and return some, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if self._closing:
                return None
            taken: list[VerdictRows] = []
            while self._queue and (
                not taken or sum(map(len, taken)) + len(self._queue[0]) <= MAX_REQUEST_ROWS
            ):
                taken.append(self._queue.popleft())
            return taken

    async def _send_until_taken(self, sender: HttpSender, body: bytes, rows: int) -> None:
        wait = FIRST_RETRY_SECONDS
        while not self._closing:
            with self._metrics.seconds.time():
                sent = await self._send(sender, body)
            if sent.ok or not sent.again:
                break
            self._fail(sent.answer)
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing, min(sent.wait_seconds or wait, MAX_RETRY_SECONDS)
                )
            wait = min(2 * wait, MAX_RETRY_SECONDS)
        else:
            return
        if sent.ok:
            self._metrics.written.inc(rows)
        else:
            self._metrics.refused.inc(rows)
            log.warning("receiver refuses samples", stream=self._stream, answer=sent.answer)
        self._metrics.up.set(1)
        with self._changed:
            self._problem = ""
            self._waiting = sum(map(len, self._queue))
            self._metrics.waiting.set(self._waiting)
            self._changed.notify_all()

    async def _send(self, sender: HttpSender, body: bytes) -> _Sent:
        try:
            headers = [(name, _revealed(value)) for name, value in self._config.headers.items()]
            call = Call(_revealed(self._config.url), body, [*HEADERS, *headers])
        except ValueError as error:  # a secret is missing
            return _Sent(False, True, str(error), None)
        result: DeliveryResult = await sender.call(call)
        status = f"status {result.status}: " if result.status is not None else ""
        again = result.status is None or result.status == 429 or result.status >= 500
        return _Sent(result.delivered, again, status + result.answer, result.retry_after_s)

    def _fail(self, answer: str) -> None:
        if not self._problem:
            log.warning("samples cannot be sent", stream=self._stream, answer=answer)
        with self._changed:
            self._problem = (
                f"samples cannot be sent by remote write: {answer}. Reading goes on; the newest "
                f"{self._config.buffer:,} samples are kept"
            )
            self._changed.notify_all()
        self._metrics.errors.inc()
        self._metrics.up.set(0)

    def _secrets(self) -> list[str]:
        values = [self._config.url, *self._config.headers.values()]
        return [_revealed(value) for value in values if isinstance(value, Secret)]

    # ------------------------------------------------------------------------------------- rows to samples

    def _series_with_samples(self, batches: list[VerdictRows]) -> dict[Labels, list[tuple[float, int]]]:
        found: dict[Labels, list[tuple[float, int]]] = {}
        for batch in batches:
            for row, (slot, time_ns) in enumerate(
                zip(batch.points.slot.tolist(), batch.points.time.tolist(), strict=True)
            ):
                name = batch.names[slot] or ""
                for metric, channel, value in self._numbers(batch, row):
                    if math.isfinite(value):
                        labels = self._series(metric, name, channel)
                        found.setdefault(labels, []).append((value, time_ns // 1_000_000))
        return found

    @staticmethod
    def _numbers(batch: VerdictRows, row: int) -> Iterator[tuple[str, str, float]]:
        """Yield metric, channel ("" for none) and value."""
        verdicts = batch.verdicts
        yield "score", "", float(verdicts.score[row])
        yield "flag", "", float(verdicts.flag[row])
        if batch.events is not None:
            return
        columns: dict[str, NDArray[Any]] = {
            "value": batch.points.values,
            "expected": verdicts.expected,
            "lower": verdicts.lower,
            "upper": verdicts.upper,
        }
        for metric, column in columns.items():
            for channel, value in zip(batch.channels, column[row].tolist(), strict=True):
                yield metric, channel, value

    def _series_of(self, metric: str, name: str, channel: str) -> Labels:
        own = {"stream": self._stream, "channel": channel}
        return metric_labels(PREFIX + metric, own, self._labels(name))


def _revealed(value: str | Secret) -> str:
    return value if isinstance(value, str) else value.reveal().get_secret_value()
