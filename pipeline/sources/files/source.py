"""Source of CSV and Parquet files: each file is a partition, each row a record with its number as offset.

Without ``follow`` the source reads the files that exist at the first poll, in the order of their names, and
finishes. With it, new files and appended rows are read, too. A file whose content is replaced is assigned
again with another identity.
"""

from __future__ import annotations

import glob
import logging
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.config import schema as models
from pipeline.core.errors import InputError, OffsetOutOfRange, SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.sources.base import OffsetBounds, Poll, TableRecords
from pipeline.sources.files.csv_reader import CsvFile
from pipeline.sources.files.parquet_reader import ParquetFile
from pipeline.sources.files.row_slice import RowsGoneError, TableFile, TablePart

#: Time between two scans for new and changed files.
SCAN_SECONDS = 0.5
POLL_SLEEP_SECONDS = 0.05
#: Time without a write after which an incomplete Parquet file is reported.
INCOMPLETE_SECONDS = 5.0
ENDINGS = (".csv", ".csv.gz", ".parquet")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Open:
    """File that is being read, with its state at the last scan."""

    file: TableFile
    identity: str
    stat: tuple[int, int]  # size, modification time in ns
    next: int = 0
    paused: bool = True
    ended: bool = False  # all available rows were returned
    rest: TablePart | None = None


class FilesSource:
    """Source of the files that match ``config.paths``.

    ``form`` gives the delimiter and header of CSV, and tells columns of labels from columns of numbers.
    """

    def __init__(self, config: models.FilesSourceConfig, form: models.CsvFormat | None = None) -> None:
        self._patterns = [os.path.expanduser(path) for path in config.paths]
        for pattern in self._patterns:
            if not pattern.endswith(ENDINGS):
                raise InputError(f"{pattern}: the name must end in one of {', '.join(ENDINGS)}")
        self._follow = config.follow
        self._form = form
        self._open: dict[Partition, _Open] = {}
        self._unfinished: dict[
            Partition, tuple[int, int]
        ] = {}  # reported incomplete files, with their state then
        self._scanned_at: float | None = None
        self._closed = False

    def poll(self, max_records: int, timeout: float) -> Poll:
        if self._closed:
            raise SourceError("this source is closed")
        deadline = time.monotonic() + timeout
        while True:
            poll = self._scan()
            poll.records.extend(self._take(max_records))
            poll.finished = (
                not self._follow and not poll.assigned and all(state.ended for state in self._open.values())
            )
            if poll.records or poll.assigned or poll.revoked or poll.finished or time.monotonic() >= deadline:
                return poll
            time.sleep(min(POLL_SLEEP_SECONDS, max(deadline - time.monotonic(), 0.0)))

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        return {p: OffsetBounds(0, self._make(Path(p.topic)).count()) for p in partitions}

    def start_offset(self, partition: Partition) -> int:
        return 0

    def identity(self, partition: Partition) -> str:
        state = self._open.get(partition)
        return (
            state.identity
            if state is not None
            else self._fingerprint(self._make(Path(partition.topic)), partition) or ""
        )

    def seek(self, partition: Partition, offset: int) -> None:
        state = self._open.get(partition)
        if state is None:
            raise SourceError(f"{partition} is not assigned", partition)
        state.file.seek(offset)
        state.next, state.rest, state.ended = offset, None, False

    def pause(self, partitions: Sequence[Partition]) -> None:
        for state in (self._open[p] for p in partitions if p in self._open):
            state.paused = True

    def resume(self, partitions: Sequence[Partition]) -> None:
        for state in (self._open[p] for p in partitions if p in self._open):
            state.paused = False

    def publish_offsets(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing: the lag of files is in the metrics only."""

    def close(self) -> None:
        self._closed = True
        for state in self._open.values():
            state.file.close()

    # --------------------------------------------------------------------------------------------------------- looking

    def _scan(self) -> Poll:
        """Scan for files: once, or every SCAN_SECONDS when following."""
        now = time.monotonic()
        if self._scanned_at is not None and (not self._follow or now - self._scanned_at < SCAN_SECONDS):
            return Poll()
        first, self._scanned_at = self._scanned_at is None, now
        found = {
            Partition(os.path.normpath(p), 0)
            for pattern in self._patterns
            for p in glob.glob(pattern, recursive=True)
        }
        if not found and first:
            none = f"no file matches {', '.join(self._patterns)}"
            if not self._follow:
                raise SourceError(none)
            log.warning("%s yet; waiting for one", none)
        poll = Poll()
        for partition in [p for p in self._open if p not in found]:
            self._open.pop(partition).file.close()
            poll.revoked.append(partition)
        for partition in sorted(found):
            self._scan_file(partition, poll)
        return poll

    def _scan_file(self, partition: Partition, poll: Poll) -> None:
        """Compare one file with its state at the last scan.

        A new file is assigned once it has a row, a replaced one is revoked and assigned, and a longer one is
        read on.
        """
        try:
            facts = os.stat(partition.topic)
        except FileNotFoundError:  # between glob and here
            return
        stat, state = (facts.st_size, facts.st_mtime_ns), self._open.get(partition)
        if state is not None and state.stat == stat:
            return
        file = self._make(Path(partition.topic))
        identity = self._fingerprint(file, partition)
        if state is not None and state.identity == identity and stat[0] >= state.stat[0]:
            state.stat, state.ended = stat, False
            return
        if state is not None:
            state.file.close()
            del self._open[partition]
            poll.revoked.append(partition)
        if identity is not None:
            self._open[partition] = _Open(file, identity, stat)
            poll.assigned.append(partition)
        elif partition.topic.endswith(".parquet"):
            self._report_incomplete(partition, stat)

    def _report_incomplete(self, partition: Partition, stat: tuple[int, int]) -> None:
        """Report an incomplete Parquet file; when following, it may still be written."""
        text = f"{partition.topic} is not a complete Parquet file"
        if not self._follow:
            raise SourceError(text, partition)
        if time.time() - stat[1] / 1e9 > INCOMPLETE_SECONDS and self._unfinished.get(partition) != stat:
            self._unfinished[partition] = stat
            log.warning("%s; reading starts once it is", text)

    def _make(self, path: Path) -> TableFile:
        if path.suffix == ".parquet":
            return ParquetFile(path, labels=self._form.label_fields.values() if self._form else ())
        return CsvFile(path, self._form, follow=self._follow)

    def _fingerprint(self, file: TableFile, partition: Partition) -> str | None:
        try:
            return file.fingerprint()
        except OSError as error:
            raise SourceUnavailable(f"{partition.topic}: {error.strerror or error}", partition) from error

    # --------------------------------------------------------------------------------------------------------- reading

    def _take(self, room: int) -> list[TableRecords]:
        taken: list[TableRecords] = []
        for partition, state in list(self._open.items()):
            if room > 0 and not state.paused and not state.ended:
                part = self._next(partition, state, taken)
                if part is None:
                    continue
                if len(part.offsets) > room:
                    part, state.rest = part.split(room)
                room -= len(part.offsets)
                taken.append(_to_records(partition, state.next, part))
                state.next = part.next_row
                if self._follow:
                    # Move it to the end, so that a busy file does not starve the others.
                    self._open[partition] = self._open.pop(partition)
        return taken

    def _next(self, partition: Partition, state: _Open, taken: list[TableRecords]) -> TablePart | None:
        """Return the next rows of one file.

        An error is raised at once only if nothing was taken. Otherwise the next poll tries again.
        """
        part, state.rest = state.rest, None
        if part is not None:
            return part
        try:
            part = state.file.read()
        except (RowsGoneError, OSError, EOFError, zlib.error, pa.ArrowException) as error:
            state.file.seek(state.next)
            if taken:
                return None
            state.paused = True
            if isinstance(error, RowsGoneError):
                message = f"{partition.topic} has no row {state.next}: it is shorter than what was read of it"
                raise OffsetOutOfRange(message, partition, state.next) from None
            raise SourceError(
                f"{partition.topic}: cannot be read from row {state.next} on: {error}", partition, state.next
            ) from error
        if part is None:
            state.ended = True
            if not self._follow:
                state.file.close()
        return part


def _to_records(partition: Partition, first: int, part: TablePart) -> TableRecords:
    none = np.full(len(part.offsets), -1, np.int64)
    return TableRecords(partition, first, part.next_row, part.offsets, none, part.table, part.rejected)


def open_files(paths: Sequence[str], form: models.CsvFormat | None = None) -> FilesSource:
    """Return a source that reads files once, to their end."""
    return FilesSource(models.FilesSourceConfig(paths=list(paths)), form)


def from_config(
    stream_name: str, config: models.FilesSourceConfig, form: models.FormatConfig | None
) -> FilesSource:
    """Make the source of a stream, for ``make_source``."""
    return FilesSource(config, form.csv if form else None)
