"""``forewatch check --connect``: does the database answer, does the source, and do its records decode as configured. Changes nothing."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pipeline import config as models
from pipeline.config import Config, Stream
from pipeline.database import database_of
from pipeline.decode import make_decoder, series_name
from pipeline.errors import ForewatchError, SourceError
from pipeline.records import Partition
from pipeline.sources import make_source
from pipeline.sources.base import Poll, Source

#: The newest records of each partition are tried.
SAMPLE = 200
#: Decoded records that are shown.
SHOWN = 3
_TIMEOUT = 10.0
_QUIET = 2.0


@dataclass(slots=True)
class DatabaseProbe:
    """What the database said; ``exit_code`` is that of the error, if there was one."""

    url: str
    said: str
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {"url": self.url, "said": self.said, "usable": self.exit_code == 0}


@dataclass(slots=True)
class Sample:
    """One decoded point: channel → value, NaN where it is missing."""

    series: str
    time_ns: int
    values: dict[str, float]


@dataclass(slots=True)
class StreamProbe:
    """What came of a stream's newest records. ``refused``: reason → (records, what one of them says)."""

    stream: str
    partitions: int = 0
    read: int = 0
    decoded: int = 0
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    error: str | None = None
    exit_code: int = 0


def probe_database(config: Config) -> DatabaseProbe:
    """Connect, and look which version the tables have."""
    try:
        database = database_of(config)
        try:
            if database.current() is None:
                return DatabaseProbe(str(database), f"{database} has no tables yet: `forewatch run` and `forewatch db upgrade` make them")
            database.require_head()
            return DatabaseProbe(str(database), f"{database} answers, and its tables are of this version")
        finally:
            database.close()
    except ForewatchError as error:
        return DatabaseProbe(config.database, str(error), error.exit_code)


def probe_stream(name: str, stream: Stream) -> StreamProbe:
    """Read the newest records of a stream, as a member of a group of its own, and decode them."""
    probe = StreamProbe(name)
    try:
        source = make_source(name, _apart(name, stream.source))
        try:
            _try_records(probe, stream, source)
        finally:
            source.close()
    except ForewatchError as error:
        probe.error, probe.exit_code = str(error), error.exit_code
    return probe


def _apart(name: str, source: models.Source) -> models.Source:
    """The same source in another consumer group: a daemon that runs keeps its partitions."""
    if source.kafka is None:
        return source
    group = f"{source.kafka.group or f'forewatch-{name}'}-check-{uuid4().hex[:8]}"
    return source.model_copy(update={"kafka": source.kafka.model_copy(update={"group": group})})


def _try_records(probe: StreamProbe, stream: Stream, source: Source) -> None:
    decoder = make_decoder(probe.stream, stream)
    for topic in stream.source.kafka.topics if stream.source.kafka is not None else ():
        source.identity(Partition(topic, 0))  # names a topic that is not there, which a group would wait for
    reasons: Counter[str] = Counter()
    said: dict[str, str] = {}
    wanted: dict[Partition, int] = {}
    started = heard = time.monotonic()
    while time.monotonic() - started < _TIMEOUT and (not wanted or probe.read < sum(wanted.values())):
        poll = source.poll(SAMPLE, 0.5)
        wanted |= _begin(poll, source)
        for records in poll.records:
            columns, dead = decoder.decode(records)
            probe.read += len(records)
            probe.decoded += columns.records
            reasons.update(letter.reason for letter in dead)
            said |= {letter.reason: letter.detail for letter in dead}
            for row in range(min(len(columns), SHOWN - len(probe.samples))):
                values = dict(zip(stream.format.chosen.value_fields, map(float, columns.values[row]), strict=True))
                probe.samples.append(Sample(series_name(stream, columns.keys[row])[0], int(columns.time[row]), values))
        heard = time.monotonic() if poll.records or poll.assigned else heard
        if poll.finished or (wanted and time.monotonic() - heard > _QUIET):
            break
    if not wanted:
        raise SourceError(f"no partition could be read within {_TIMEOUT:.0f} s: do the topics or files exist, and may this user read them?")
    probe.partitions = len(wanted)
    probe.refused = {reason: (count, said[reason]) for reason, count in reasons.most_common()}


def _begin(poll: Poll, source: Source) -> dict[Partition, int]:
    """Start reading the newest records of what was assigned; returns how many there are, by partition."""
    if not poll.assigned:
        return {}
    bounds = source.bounds(poll.assigned)
    starts = {partition: max(bound.beginning, bound.end - SAMPLE) for partition, bound in bounds.items()}
    for partition, start in starts.items():
        source.seek(partition, start)
    source.resume(poll.assigned)
    return {partition: bounds[partition].end - start for partition, start in starts.items()}
