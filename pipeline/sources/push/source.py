"""Push source: one partition, the spool of what was received over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.config import schema as models
from pipeline.core.errors import ConfigError, OffsetOutOfRange, SourceError
from pipeline.core.types import Partition
from pipeline.observability.metrics import PushMetrics
from pipeline.sources.base import OffsetBounds, Poll, Records
from pipeline.sources.push.bodies import unpack
from pipeline.sources.push.inbox import Inbox
from pipeline.sources.push.receiver import CheckContent, PushTarget, attach, detach
from pipeline.sources.push.segments import Entry
from pipeline.sources.push.spool import Spool

#: Name of the header of a record with the type of its content.
CONTENT_TYPE = "content-type"
#: Digits of the identity of a spool in the name of its partition.
_IDENTITY_DIGITS = 12


class PushSource:
    """Source of a stream whose records are sent to this process.

    The partition is named by the identity of the spool, so that two daemons with spools of their own have
    two partitions.
    """

    def __init__(
        self,
        stream: str,
        config: models.PushSourceConfig,
        folder: Path,
        check: CheckContent,
        metrics: PushMetrics | None = None,
        precision: str | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            stream: Name of the stream, and of its path.
            config: Address, key and limits.
            folder: Folder of the spool.
            check: Returns the number of points of a content, given its type.
            metrics: Metrics of the source.
            precision: Unit of the times of line protocol, None for other formats.

        Raises:
            ConfigError: The key cannot be read.
        """
        self._stream = stream
        self._config = config
        self._folder = folder
        self._check = check
        self._metrics = metrics
        self._precision = precision
        self._key = None if config.key is None else config.key.reveal().get_secret_value()
        if self._key is not None and not self._key:
            raise ConfigError(f"streams.{stream}.source.push.key: the key is empty; give a long random text")
        self._spool: Spool | None = None
        self._inbox: Inbox | None = None
        self._partition: Partition | None = None
        self._next = 0
        self._paused = True
        self._attached = False
        self._closed = False

    @property
    def spool(self) -> Spool:
        """The open spool. Raises SourceUnavailable if it cannot be opened."""
        if self._spool is None:
            config = self._config
            self._spool = Spool(self._folder, config.spool_bytes, config.spool_keep.total_seconds())
        return self._spool

    def poll(self, max_records: int, timeout: float) -> Poll:
        """Return what was received; ``max_records`` limits the points.

        A batch has at least one record, with as many points as it holds.
        """
        if self._closed:
            raise SourceError("this source is closed")
        if not self._attached:
            self._attach()
        if self._partition is None:
            self._partition = Partition(f"push-{self.spool.identity[:_IDENTITY_DIGITS]}", 0)
            return Poll(assigned=[self._partition])
        if self._inbox is None:
            self._inbox = Inbox(self.spool)
        self._inbox.take()
        if self._metrics is not None:
            self._metrics.spool(self.spool.size)
        if self._paused:
            time.sleep(timeout)
            return Poll()
        if not self.spool.beginning <= self._next <= self.spool.end:
            self._paused = True
            raise OffsetOutOfRange(
                f"{self._partition}: offset {self._next} is not in the spool {self._folder}",
                self._partition,
                self._next,
            )
        if not self.spool.wait(self._next, timeout):
            return Poll()
        found = self.spool.read(self._next, max_records)
        return Poll(records=[self._records(self._partition, found)])

    def _attach(self) -> None:
        config = self._config
        target = PushTarget(
            self.spool,
            self._check,
            self._key,
            config.max_body_bytes,
            config.max_content_bytes,
            _not_counted if self._metrics is None else self._metrics.request,
            self._precision,
        )
        attach(config.host, config.port, self._stream, target)
        self._attached = True

    def _records(self, partition: Partition, found: list[tuple[int, Entry]]) -> Records:
        first = self._next
        self._next = found[-1][0] + 1 if found else self.spool.end
        return Records(
            partition=partition,
            first_offset=first,
            next_offset=self._next,
            offsets=np.array([offset for offset, _ in found], np.int64),
            timestamps=np.array([entry.received_ns for _, entry in found], np.int64),
            values=[self._content(entry) for _, entry in found],
            keys=[None] * len(found),
            headers=[[(CONTENT_TYPE, entry.content_type.encode())] for _, entry in found],
        )

    def _content(self, entry: Entry) -> bytes:
        """Return the content of a record; a body that cannot be unpacked stays as it is."""
        try:
            return unpack(entry.body, entry.compression, self._config.max_content_bytes)
        except ValueError:
            return entry.body

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        """Return the offsets that the spool holds."""
        return {partition: OffsetBounds(self.spool.beginning, self.spool.end) for partition in partitions}

    def start_offset(self, partition: Partition) -> int:
        """Return the oldest offset of the spool."""
        return self.spool.beginning

    def identity(self, partition: Partition) -> str:
        """Return the identity of the spool."""
        return self.spool.identity

    def seek(self, partition: Partition, offset: int) -> None:
        """Read from ``offset``."""
        self._next = offset

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Return no record until ``resume``."""
        self._paused = self._paused or self._partition in partitions

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Return records again."""
        self._paused = self._paused and self._partition not in partitions

    def publish_offsets(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing: the lag is in the metrics."""

    def release(self, partition: Partition, offset: int) -> None:
        """Allow the deletion of the records before ``offset``."""
        if partition == self._partition and not self._closed:
            self.spool.release(offset)

    def close(self) -> None:
        """Receive no more, and release the spool."""
        if not self._closed:
            self._closed = True
            if self._attached:
                detach(self._config.host, self._config.port, self._stream)
            if self._spool is not None:
                self._spool.close()


def _not_counted(status: int, size: int, points: int) -> None:
    """Count nothing."""


def _any_content(content: bytes, kind: str) -> int:
    return 1


def from_config(
    stream_name: str,
    config: models.PushSourceConfig,
    form: models.FormatConfig | None,
    folder: Path | None = None,
    check: Callable[[bytes, str], int] = _any_content,
    metrics: PushMetrics | None = None,
) -> PushSource:
    """Make the source of a stream, for ``make_source``.

    Args:
        stream_name: Name of the stream.
        config: Address, key and limits.
        form: Tells the unit of times of line protocol; the engine decodes the records.
        folder: Folder of the spool, None for the one of the config.
        check: Returns the number of points of a content, given its type.
        metrics: Metrics of the source.
    """
    chosen = config.spool or folder
    if chosen is None:
        raise ConfigError(f"streams.{stream_name}.source.push.spool: name the folder of the spool")
    lines = None if form is None else form.line_protocol
    precision = None if lines is None else lines.precision
    return PushSource(stream_name, config, Path(chosen), check, metrics, precision)
