"""Codes of events and templates of log lines in the newest snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import structlog
from sqlalchemy import Connection

from detectors.sequences.code_numbers import END_NUMBER, number_text
from detectors.sequences.vocabulary import END_TEXT
from pipeline.config.schema import Config, Stream
from pipeline.core.errors import DamagedState, InputError
from pipeline.core.types import Partition
from pipeline.decode.event_codes import EventCodes
from pipeline.decode.known_codes import SeenCodes, merge_codes, seen_codes
from pipeline.scoring.event_stage import PartitionEvents
from pipeline.scoring.template_labels import TEMPLATES_KEY, templates_of_page
from storage.sql.database import Database
from storage.stream_state import snapshots

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """A template of one partition, with its code and the number of its lines."""

    partition: Partition
    code: str
    text: str
    lines: int


def stored_templates(config: Config, database: Database, stream: str) -> list[StoredTemplate]:
    """Return the templates of a stream by partition, the most frequent first.

    Templates of several partitions with the same text have one code, as in a model.

    Raises:
        InputError: the stream has no log lines.
        DamagedState: a snapshot cannot be read.
        StorageUnavailable: the database does not answer.
    """
    chosen = config.streams[stream]
    if chosen.format.chosen.template is not None:
        with database.read() as connection:
            return list(_counted_templates(connection, stream))
    if chosen.format.chosen.text is None:
        raise InputError(
            f"stream {stream} has no log lines: templates are learned from the field `text` or `template` of "
            "a format"
        )
    with database.read() as connection:
        found = dict(_codes_by_partition(connection, stream, chosen))
    code_of = merge_codes(seen_codes(found.values())).code_of
    return [
        StoredTemplate(partition, code_of.get(one.code, one.code), one.text, one.lines)
        for partition, codes in found.items()
        for one in codes.templates()
    ]


def stored_codes(connection: Connection, name: str, stream: Stream) -> SeenCodes:
    """Return the codes of a stream of events; none if a snapshot cannot be read."""
    try:
        return seen_codes(codes for _, codes in _codes_by_partition(connection, name, stream))
    except DamagedState as error:
        log.warning("codes of events are left out of a training", stream=name, error=str(error))
        return SeenCodes()


def stored_event_texts(connection: Connection, name: str, stream: Stream) -> Callable[[float], str]:
    """Return a function that gives the text of the number of a code.

    A code that is not stored is shown by its number.

    Raises:
        DamagedState: a snapshot cannot be read.
    """
    all_codes = [codes for _, codes in _codes_by_partition(connection, name, stream)]

    def text(number: float) -> str:
        found = (codes.text(number) for codes in all_codes)
        return next((one for one in found if one is not None), None) or _unstored_text(number)

    return cache(text)


def _counted_templates(connection: Connection, name: str) -> Iterator[StoredTemplate]:
    """Yield the templates whose lines a stream of numbers counts."""
    for partition in sorted(snapshots.offsets(connection, name)):
        snapshot = snapshots.load(connection, name, partition)
        if snapshot is None or TEMPLATES_KEY not in snapshot.meta:
            continue
        next(snapshot.pages, None)  # buffered records
        for one in templates_of_page(next(snapshot.pages, b"")).templates():
            yield StoredTemplate(partition, one.code, one.text, one.lines)


def _unstored_text(number: float) -> str:
    return END_TEXT if number == END_NUMBER else number_text(number)


def _codes_by_partition(
    connection: Connection, name: str, stream: Stream
) -> Iterator[tuple[Partition, EventCodes]]:
    for partition in sorted(snapshots.offsets(connection, name)):
        snapshot = snapshots.load(connection, name, partition)
        if snapshot is None:
            continue
        next(snapshot.pages, None)  # buffered records
        events = PartitionEvents(templates=stream.format.chosen.text is not None)
        events.load(next(snapshot.pages, b""))
        yield partition, events.codes
