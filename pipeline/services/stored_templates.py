"""Templates of the log lines of a stream, from its newest snapshots."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from pipeline.core.types import Partition
from pipeline.scoring.event_stage import PartitionEvents
from storage.sql.database import Database
from storage.stream_state import snapshots


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """A template of one partition, with its code and the number of its lines."""

    partition: Partition
    code: str
    text: str
    lines: int


def stored_templates(config: Config, database: Database, stream: str) -> list[StoredTemplate]:
    """Return the templates of a stream by partition, the most frequent first.

    Raises:
        InputError: the stream has no log lines.
        DamagedState: a snapshot cannot be read.
        StorageUnavailable: the database does not answer.
    """
    if config.streams[stream].format.chosen.text is None:
        raise InputError(
            f"stream {stream} has no log lines: templates are learned from the field `text` of a format"
        )
    found = []
    with database.read() as connection:
        for partition in sorted(snapshots.offsets(connection, stream)):
            snapshot = snapshots.load(connection, stream, partition)
            if snapshot is None:
                continue
            next(snapshot.pages, None)  # buffered records
            events = PartitionEvents(templates=True)
            events.load(next(snapshot.pages, b""))
            found += [
                StoredTemplate(partition, one.code, one.text, one.lines) for one in events.codes.templates()
            ]
    return found
