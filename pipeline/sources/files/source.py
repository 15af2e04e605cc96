"""Source of CSV, JSON lines, Avro and Parquet files: each file is a partition.

Each row is a record with its number as offset.

Without ``follow`` the source reads the files that exist at the first poll, in the order of their names or of
their first event times, and finishes. With it, new files and appended rows are read, too. A file whose
content is replaced is assigned again with another identity.

A file that cannot be read does not stop the others. It is tried again, at growing intervals and when it
changes. With ``follow`` it is in ``Poll.unreadable`` until it is read again. Without, ``poll`` raises the error.
"""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import schema as models
from pipeline.core.errors import InputError, OffsetOutOfRange, SourceError
from pipeline.core.types import Partition
from pipeline.sources.base import OffsetBounds, Poll, Records, TableRecords
from pipeline.sources.files.compression import COMPRESSED, UNPACKING_ERRORS
from pipeline.sources.files.readers import ENDINGS, make_reader
from pipeline.sources.files.row_slice import RowsGoneError, TableFile, TablePart
from pipeline.sources.files.table_records import to_records

#: Time between two scans for new and changed files.
SCAN_SECONDS = 0.5
POLL_SLEEP_SECONDS = 0.05
#: Time without a write after which an incomplete Parquet file is reported.
INCOMPLETE_SECONDS = 5.0
#: Time until a file that could not be read is tried again: the first, and the longest.
RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
#: Errors of one file. Arrow's errors are derived from several of Python's.
READ_ERRORS = (*UNPACKING_ERRORS, ValueError, InputError, SourceError)

log = logging.getLogger(__name__)

FirstTime = Callable[[str], int | None]


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
    counter: TableFile | None = None  # remembers how far the rows were counted
    rows: int | None = None  # as they were last counted
    sought: bool = False
    error: str = ""  # of the last attempt to read
    retry_at: float = 0.0
    retry_after: float = RETRY_SECONDS
    begins: tuple[int, str] = (0, "")  # (first event time, path): the order of reading
    caught_up: bool = False  # all rows that were there when it was assigned have been returned


class FilesSource:
    """Source of the files that match ``config.paths``."""

    def __init__(
        self,
        config: models.FilesSourceConfig,
        form: models.RecordFormat | None = None,
        first_time: FirstTime | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            config: Paths, and whether to follow them.
            form: Delimiter and header of CSV; it also tells columns of labels from columns of numbers.
            first_time: Returns the first event time of a file, None if it is not known. With it, the rows that a
                file has when it is found are read after those of all files that begin earlier.
        """
        self._first_time = first_time
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
        self._refused: dict[Partition, str] = {}  # files that the last scan could not look at
        self._errors: list[SourceError | InputError] = []  # to be raised, without ``follow``
        self._closed = False

    def poll(self, max_records: int, timeout: float) -> Poll:
        if self._closed:
            raise SourceError("this source is closed")
        deadline = time.monotonic() + timeout
        while True:
            poll = self._scan()
            poll.records.extend(self._take(max_records))
            if self._errors and not (poll.records or poll.assigned):
                raise self._errors.pop(0)
            poll.finished = (
                not self._follow
                and not poll.assigned
                and not self._refused
                and all(state.ended for state in self._open.values())
            )
            if self._follow:
                failed = {p: state.error for p, state in self._open.items() if state.error}
                poll.unreadable = failed | self._refused
            if poll.records or poll.assigned or poll.revoked or poll.finished or time.monotonic() >= deadline:
                return poll
            time.sleep(min(POLL_SLEEP_SECONDS, max(deadline - time.monotonic(), 0.0)))

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        return {partition: OffsetBounds(0, self._count(partition)) for partition in partitions}

    def _count(self, partition: Partition) -> int:
        """Count the rows of a file; while it cannot be read, those of the last count are returned."""
        state = self._open.get(partition)
        if state is None:
            return self._counted(self._make(Path(partition.topic)), partition)
        if state.counter is None:
            state.counter = self._make(Path(partition.topic))
        try:
            state.rows = self._counted(state.counter, partition)
        except SourceError:
            if state.rows is None:
                raise
        return state.rows

    @staticmethod
    def _counted(file: TableFile, partition: Partition) -> int:
        try:
            return file.count()
        except READ_ERRORS as error:
            raise _unreadable(partition, error) from error

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
        state.next, state.rest, state.ended, state.sought = offset, None, False, True
        try:
            state.file.seek(offset)
        except READ_ERRORS as error:
            raise _unreadable(partition, error) from error

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
            if state.counter is not None:
                state.counter.close()

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
        self._refused.clear()
        for partition in sorted(found):
            try:
                self._scan_file(partition, poll)
            except READ_ERRORS as error:
                refused = error if isinstance(error, InputError) else _unreadable(partition, error)
                self._refused[partition] = str(refused)
                if not self._follow:
                    self._errors.append(refused)
        if not self._follow:  # one after the other is read
            poll.assigned.sort(key=lambda partition: self._open[partition].begins)
            self._open = {partition: self._open[partition] for partition in poll.assigned}
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
            state.stat, state.ended, state.retry_at = stat, False, 0.0
            if not state.sought:  # it was shorter than its position when it was assigned
                poll.revoked.append(partition)
                poll.assigned.append(partition)
            return
        if state is not None:
            state.file.close()
            del self._open[partition]
            poll.revoked.append(partition)
        if identity is not None:
            self._open[partition] = _Open(file, identity, stat, begins=self._begins(partition))
            poll.assigned.append(partition)
        elif partition.topic.endswith(".parquet"):
            self._report_incomplete(partition, stat)

    def _begins(self, partition: Partition) -> tuple[int, str]:
        time = self._first_time(partition.topic) if self._first_time is not None else None
        return 0 if time is None else time, partition.topic

    def _report_incomplete(self, partition: Partition, stat: tuple[int, int]) -> None:
        """Report an incomplete Parquet file; when following, it may still be written."""
        text = f"{partition.topic} is not a complete Parquet file"
        if not self._follow:
            raise SourceError(text, partition)
        if time.time() - stat[1] / 1e9 > INCOMPLETE_SECONDS and self._unfinished.get(partition) != stat:
            self._unfinished[partition] = stat
            log.warning("%s; reading starts once it is", text)

    def _make(self, path: Path) -> TableFile:
        return make_reader(path, self._form, follow=self._follow)

    def _fingerprint(self, file: TableFile, partition: Partition) -> str | None:
        try:
            return file.fingerprint()
        except InputError:
            raise
        except READ_ERRORS as error:
            raise _unreadable(partition, error) from error

    # --------------------------------------------------------------------------------------------------------- reading

    def _take(self, room: int) -> list[Records | TableRecords]:
        taken: list[Records | TableRecords] = []
        first = self._first_to_read()
        states = sorted(self._open.items(), key=lambda one: one[1] is not first)
        for partition, state in states:
            if first is not None and state is not first and not (state.caught_up or state.error):
                continue
            if room > 0 and not state.paused and not state.ended and time.monotonic() >= state.retry_at:
                part = self._next(partition, state, taken)
                if part is None:
                    continue
                if len(part.offsets) > room:
                    part, state.rest = part.split(room)
                room -= len(part.offsets)
                taken.append(to_records(partition, state.next, part))
                state.next = part.next_row
                if state is first:
                    break  # alone: the state at the end of this file is that at the beginning of the next one
                if self._follow:
                    # Move it to the end, so that a busy file does not starve the others.
                    self._open[partition] = self._open.pop(partition)
        return taken

    def _first_to_read(self) -> _Open | None:
        """Return the earliest file whose first rows are not all read, None where the order is free.

        A file that is paused or cannot be read does not hold up those that begin later.
        """
        if self._first_time is None:
            return None
        waiting = [s for s in self._open.values() if not (s.caught_up or s.paused or s.error)]
        return min(waiting, key=lambda state: state.begins, default=None)

    def _next(
        self, partition: Partition, state: _Open, taken: Sequence[Records | TableRecords]
    ) -> TablePart | None:
        """Return the next rows of one file, None at its end or if it cannot be read."""
        part, state.rest = state.rest, None
        if part is not None:
            return part
        try:
            if state.error:  # read on from the last row that was returned
                state.file.close()
                state.file.seek(state.next)
            part = state.file.read()
        except RowsGoneError:
            if taken:  # the next poll raises it
                state.file.seek(state.next)
                return None
            state.paused = True
            message = f"{partition.topic} has no row {state.next}: it is shorter than what was read of it"
            raise OffsetOutOfRange(message, partition, state.next) from None
        except READ_ERRORS as error:
            self._failed(partition, state, error)
            return None
        if state.error:
            log.info("%s can be read again", partition.topic)
        state.error, state.retry_after = "", RETRY_SECONDS
        if part is None:
            state.ended = state.caught_up = True
            if not self._follow:
                state.file.close()
        return part

    def _failed(self, partition: Partition, state: _Open, error: Exception) -> None:
        """Note a failed read; the file is tried again later."""
        refused = _unreadable(partition, error, state.next)
        state.error = str(refused)
        state.retry_at = time.monotonic() + state.retry_after
        state.retry_after = min(2 * state.retry_after, MAX_RETRY_SECONDS)
        if not self._follow:
            self._errors.append(refused)


def _unreadable(partition: Partition, error: Exception, row: int | None = None) -> SourceError:
    """Return the error of a file that cannot be read: its name, the reason, and what to do."""
    if isinstance(error, SourceError):
        return error
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    where = "" if row is None else f" from row {row} on"
    if isinstance(error, PermissionError):
        advice = "Give the user of this process the right to read it"
    elif partition.topic.endswith(COMPRESSED) and not isinstance(error, FileNotFoundError):
        advice = "It may be cut off or damaged: replace it by a complete copy"
    else:
        advice = "Check the file and its disk"
    return SourceError(
        f"{partition.topic}: cannot be read{where}: {reason}. {advice}",
        partition,
        row,
    )


def open_files(paths: Sequence[str], form: models.CsvFormat | models.JsonFormat | None = None) -> FilesSource:
    """Return a source that reads files once, to their end."""
    return FilesSource(models.FilesSourceConfig(paths=list(paths)), form)


def from_config(
    stream_name: str,
    config: models.FilesSourceConfig,
    form: models.FormatConfig | None,
    first_time: FirstTime | None = None,
) -> FilesSource:
    """Make the source of a stream, for ``make_source``."""
    return FilesSource(config, form.chosen if form else None, first_time)
