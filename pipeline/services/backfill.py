"""Backfill: the engine over files, or over a range of the stream's own log.

Its positions and snapshots have a reader name of their own and are deleted at the end. Its anomalies belong
to the stream and have the ids that the daemon would give them: with the same model a second run changes
nothing. With another model an anomaly is overwritten by the result of that model. Late points revise its
verdicts at the end (``pipeline.services.backfill_revision``).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import psutil

from pipeline.config.schema import Config, FilesSourceConfig, SourceConfig
from pipeline.config.stream_names import BACKFILL_MARK
from pipeline.core.errors import InputError
from pipeline.core.types import Counts
from pipeline.database import open_database, owner_name
from pipeline.engine.warm_start import first_time_of, forget_warm_start
from pipeline.observability.progress_bar import Progress
from pipeline.services.backfill_run import BackfillRun, Tally
from pipeline.services.gap_filling import FilledFile
from pipeline.sources import make_source
from pipeline.sources.base import Source
from pipeline.sources.kafka.offset_range import RangeSource, range_source
from storage.sql.database import Database
from storage.stream_state import backfill_shards
from storage.stream_state import reader as stored_readers

#: A backfill of another host that has not committed for this long is dead.
DEAD_AFTER_NS = 24 * 3600 * 10**9
#: Begins the part of a reader name that follows ``BACKFILL_MARK``, in a backfill on a cluster.
CLUSTER_MARK = "cluster "


@dataclass(slots=True)
class BackfillReport:
    """Result of a backfill. ``counts`` add up to the records that were read."""

    stream: str
    counts: Counts
    anomalies: int
    seconds: float
    refused: dict[str, int] = field(default_factory=dict)
    example: str = ""
    gaps: dict[str, int] = field(default_factory=dict)

    @property
    def nothing_decoded(self) -> str:
        """Return the reason why no record of many could be decoded, empty if some could."""
        if (
            not self.counts.dead_lettered
            or self.counts.dead_lettered + self.counts.filtered < self.counts.read()
        ):
            return ""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.items())
        return (
            f"stream {self.stream}: none of {self.counts.read()} records could be decoded ({reasons}); "
            f"for example {self.example}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        read = self.counts.read()
        outcomes = {name: count for name, count in asdict(self.counts).items() if name != "buffered"}
        speed = {
            "seconds": round(self.seconds, 3),
            "records_per_second": round(read / self.seconds) if self.seconds else 0,
        }
        found = outcomes | {"anomalies": self.anomalies} | self.gaps
        return {"stream": self.stream, "records": read} | found | speed


def run_backfill(
    config: Config,
    stream: str,
    inputs: Sequence[Path] | None,
    start_ns: int | None,
    end_ns: int | None,
    scores: Path | None,
    progress: Progress,
    *,
    filled: Path | None = None,
) -> BackfillReport:
    """Run ``stream`` over files, or over a time range of its own source.

    Raises InputError and SourceError for input that cannot be read, StorageError when the database is in use
    or cannot be used.

    Args:
        config: The whole configuration.
        stream: Name of the stream.
        inputs: CSV or Parquet files, None to read the stream's own source.
        start_ns: First timestamp of the range, None for the beginning.
        end_ns: Timestamp at which the range ends, None for the end.
        scores: File that receives every point with its verdict, None to write none.
        progress: Progress bar.
        filled: File that receives every value with gaps filled, None to write none.
    """
    gaps = FilledFile(filled)
    read = (
        partial(read_files, config, stream, inputs)
        if inputs
        else partial(read_range, config, stream, start_ns, end_ns)
    )
    reader = f"{stream}{BACKFILL_MARK}{uuid.uuid4().hex[:8]})"
    tally = Tally(progress)
    started = time.monotonic()
    with open_database(config) as database:
        run = BackfillRun(
            config, stream, database, reader, read, read, tally, progress, more_sinks=gaps.sinks
        )
        with run.scored(scores):
            gaps.write()
            run.revise(tally.late, tally.anomalies)
            with database.begin() as connection:
                stored_readers.forget(connection, reader)
            forget_warm_start(database, reader)
            forget_dead_backfills(database, stream)
    found = len(tally.anomalies), time.monotonic() - started, dict(tally.refused.most_common())
    return BackfillReport(stream, run.counts, *found, tally.example, gaps.counts)


def forget_dead_backfills(database: Database, stream: str) -> None:
    """Delete what killed backfills of ``stream`` have left; their anomalies stay.

    Those of a cluster stay for ``DEAD_AFTER_NS``, because the same command continues them.
    """
    prefix = f"{stream}{BACKFILL_MARK}"
    with database.read() as connection:
        found = stored_readers.last_owners(connection, prefix)
        runs = backfill_shards.runs_before(connection, time.time_ns() - DEAD_AFTER_NS)
    for reader, owner, updated_ns in found:
        if _is_dead(owner, updated_ns, here=not reader.startswith(prefix + CLUSTER_MARK)):
            with database.begin() as connection:
                stored_readers.forget(connection, reader)
    if runs:
        with database.begin() as connection:
            backfill_shards.forget(connection, runs)


def _is_dead(owner: str, updated_ns: int, *, here: bool) -> bool:
    """Return whether the process of a backfill has ended.

    One of another host ends by its silence.
    ``here`` False: one of this host ends by its silence, too.
    """
    host, _, pid = owner.rpartition(":")
    if here and host == owner_name().rpartition(":")[0] and pid.isdigit():
        return owner == owner_name() or not psutil.pid_exists(int(pid))
    return time.time_ns() - updated_ns > DEAD_AFTER_NS


def read_files(config: Config, stream: str, inputs: Sequence[Path | str]) -> Source:
    """Return a source of files, in the format of the stream.

    Those of a stream that follows a folder come in the order of their first event times, as in a daemon.
    """
    settings = config.streams[stream]
    files = SourceConfig(files=FilesSourceConfig(paths=[escape(str(path)) for path in inputs]))
    follows = settings.source.files is not None and settings.source.files.follow
    options = {"first_time": partial(first_time_of, stream, settings)} if follows else {}
    return make_source(stream, files, settings.format, **options)


def read_range(config: Config, stream: str, start_ns: int | None, end_ns: int | None) -> RangeSource:
    """Return a range of the stream's log.

    Args:
        config: The whole configuration.
        stream: Name of the stream.
        start_ns: First timestamp, None for the beginning of the log.
        end_ns: Timestamp at which the range ends, None for the end of the log.

    Raises:
        InputError: The source of the stream is not Kafka.
    """
    chosen = config.streams[stream].source
    if chosen.kafka is None:
        raise InputError(
            f"stream {stream}: only a Kafka source can be read from --from to --to; name files with --input"
        )
    return range_source(stream, chosen.kafka, start_ns, end_ns)
