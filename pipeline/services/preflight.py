"""Read-only checks of ``forewatch check --connect``.

They cover the database, the sources, and the decoding of a sample of records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

from pipeline.config import schema as models
from pipeline.config.inputs import EVENT_CHANNEL
from pipeline.config.schema import Config, Stream
from pipeline.config.stream_names import default_group
from pipeline.core.errors import ForewatchError, InputError, SourceError
from pipeline.core.secret_text import hide_in_urls, hide_secrets
from pipeline.core.types import Partition
from pipeline.database import database_of
from pipeline.decode import make_decoder, series_name
from pipeline.engine.warm_start import read_all, warm_start_files, warm_start_source
from pipeline.sources import make_source
from pipeline.sources.base import Poll, Records, Source, TableRecords

#: Number of the newest records of each partition that are decoded.
SAMPLE_RECORDS = 200
#: Number of decoded points that are shown.
MAX_SHOWN_POINTS = 3
_TIMEOUT_SECONDS = 10.0
#: A compacted topic has fewer records than offsets: after the first record, such a pause is the end.
_QUIET_SECONDS = 2.0


@dataclass(slots=True)
class DatabaseProbe:
    """Result of the check of the database; ``exit_code`` is 0 without an error."""

    url: str
    message: str
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {"url": self.url, "said": self.message, "usable": self.exit_code == 0}


@dataclass(slots=True)
class Sample:
    """One decoded point: channel → value, NaN where it is missing."""

    series: str
    time_ns: int
    values: Mapping[str, float | str]


@dataclass(slots=True)
class StreamProbe:
    """Result of decoding a sample of a stream.

    ``past`` is that of its warm-start files. ``refused`` maps a reason to the number of records and the
    detail of one of them.
    """

    stream: str
    partitions: int = 0
    read: int = 0
    decoded: int = 0
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    error: str | None = None
    exit_code: int = 0
    past: StreamProbe | None = None
    #: Address that programs push to, None for a source that is read.
    receives: str | None = None

    def count_partitions(self, count: int) -> None:
        """Note the number of partitions that are read."""
        self.partitions = count


def probe_database(config: Config) -> DatabaseProbe:
    """Connect, and check the schema version."""
    try:
        database = database_of(config)
        try:
            if database.current() is None:
                return DatabaseProbe(
                    str(database),
                    f"{database} has no tables yet; `forewatch run` or `forewatch db upgrade` creates them",
                )
            database.require_head()
            return DatabaseProbe(str(database), f"{database} answers, and its schema version is current")
        finally:
            database.close()
    except ForewatchError as error:
        return DatabaseProbe(hide_in_urls(config.database), hide_secrets(str(error)), error.exit_code)


def probe_stream(name: str, stream: Stream) -> StreamProbe:
    """Decode the newest records of a stream, and its warm-start files.

    The records are read with a consumer group of their own.
    """
    probe = _probe(
        name,
        stream,
        lambda: _readable_sources(name, stream),
        _try_records if stream.source.sql is None else _try_rows,
    )
    if (push := stream.source.push) is not None:
        host = f"[{push.host}]" if ":" in push.host else push.host
        probe.receives = f"http://{host}:{push.port}/push/{name}"
    if (warm_start := stream.warm_start) is not None:
        files = f"{name}, warm_start {warm_start}"
        probe.past = _probe(
            files,
            stream,
            lambda: [warm_start_source(name, stream, [one]) for one in warm_start_files(name, warm_start)],
            _try_file,
        )
        probe.exit_code = max(probe.exit_code, probe.past.exit_code)
    return probe


def _probe(
    name: str,
    stream: Stream,
    make: Callable[[], list[Source]],
    attempt: Callable[[StreamProbe, Stream, Source], None],
) -> StreamProbe:
    probe, sources = StreamProbe(name), []
    try:
        for source in (sources := make()):
            attempt(probe, stream, source)
    except ForewatchError as error:
        probe.error, probe.exit_code = str(error), error.exit_code
    finally:
        for source in sources:
            source.close()
    if probe.read and not probe.decoded:
        probe.exit_code = max(probe.exit_code, InputError.exit_code)
    return probe


def _readable_sources(name: str, stream: Stream) -> list[Source]:
    """Return the source of a stream, none where records come by themselves.

    Raises ConfigError if the key of a push source cannot be read.
    """
    if stream.source.push is not None:
        if stream.source.push.key is not None:
            stream.source.push.key.reveal()
        return []
    if stream.source.sql is not None:
        at_once = stream.source.sql.model_copy(update={"settle": timedelta(0)})
        return [make_source(name, models.SourceConfig(sql=at_once), stream.format)]
    return [make_source(name, _with_own_group(name, stream.source), stream.format)]


def _with_own_group(name: str, source: models.SourceConfig) -> models.SourceConfig:
    """Return the source with a new consumer group.

    A running daemon then keeps its partitions.
    """
    if source.kafka is None:
        return source
    group = f"{source.kafka.group or default_group(name)}-check-{uuid4().hex[:8]}"
    return source.model_copy(update={"kafka": source.kafka.model_copy(update={"group": group})})


def _try_records(probe: StreamProbe, stream: Stream, source: Source) -> None:
    for topic in stream.source.kafka.topics if stream.source.kafka is not None else ():
        source.identity(Partition(topic, 0))  # reports a missing topic; a consumer group would wait for it
    for records in sample_records(source, on_assigned=probe.count_partitions):
        _decode(probe, stream, records)
    if not probe.partitions:
        raise SourceError(
            f"no partition could be read within {_TIMEOUT_SECONDS:.0f} s; check that the topics or "
            f"files exist and that this user can read them"
        )


def _try_rows(probe: StreamProbe, stream: Stream, source: Source) -> None:
    """Decode the first rows of a query. Raises SourceError."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not probe.read and time.monotonic() < deadline:
        poll = source.poll(SAMPLE_RECORDS, 0.5)
        for partition in poll.assigned:
            source.seek(partition, 0)
        source.resume(poll.assigned)
        for records in poll.records:
            _decode(probe, stream, records)
    probe.partitions = 1


def sample_records(
    source: Source, most: int = SAMPLE_RECORDS, on_assigned: Callable[[int], None] = lambda count: None
) -> Iterator[Records | TableRecords]:
    """Yield the newest records of each partition, at most ``most`` of each.

    A source that needs long for a step is waited for; one that gives nothing for a while has ended.

    Args:
        source: a new source.
        most: largest number of records of a partition.
        on_assigned: called with the number of partitions that are assigned so far.
    """
    wanted: dict[Partition, int] = {}
    read, last_data = 0, time.monotonic()
    while time.monotonic() - last_data < (_QUIET_SECONDS if read else _TIMEOUT_SECONDS):
        poll = source.poll(most, 0.5)
        wanted |= _seek_newest(poll, source, most)
        on_assigned(len(wanted))
        for records in poll.records:
            read += len(records)
            yield records
        if poll.finished or (wanted and read >= sum(wanted.values())):
            return
        if poll.records or poll.assigned:
            last_data = time.monotonic()


def _try_file(probe: StreamProbe, stream: Stream, source: Source) -> None:
    """Decode the first records of a warm-start file.

    The end of a long file takes long to find.
    """
    for records in next(read_all(source, SAMPLE_RECORDS), ()):
        _decode(probe, stream, records)
    probe.partitions += 1


def _decode(probe: StreamProbe, stream: Stream, records: Records | TableRecords) -> None:
    columns, dead = make_decoder(probe.stream, stream).decode(records)
    probe.read += len(records)
    probe.decoded += columns.records
    for letter in dead:
        probe.refused[letter.reason] = (probe.refused.get(letter.reason, (0, ""))[0] + 1, letter.detail)
    for row in range(min(len(columns), MAX_SHOWN_POINTS - len(probe.samples))):
        values: dict[str, float | str] = (
            {EVENT_CHANNEL: columns.events[row]}
            if columns.events is not None
            else dict(zip(stream.format.chosen.value_fields, map(float, columns.values[row]), strict=True))
        )
        probe.samples.append(
            Sample(series_name(stream, columns.keys[row])[0], int(columns.time[row]), values)
        )


def _seek_newest(poll: Poll, source: Source, most: int) -> dict[Partition, int]:
    """Seek to the newest records of the assigned partitions; return their numbers."""
    if not poll.assigned:
        return {}
    bounds = source.bounds(poll.assigned)
    starts = {partition: max(bound.beginning, bound.end - most) for partition, bound in bounds.items()}
    for partition, start in starts.items():
        source.seek(partition, start)
    source.resume(poll.assigned)
    return {partition: bounds[partition].end - start for partition, start in starts.items()}
