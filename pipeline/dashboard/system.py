"""Data of the page *System*: partitions, faults, dead letters, config."""

from __future__ import annotations

import io
import time
from typing import Any

from ruamel.yaml import YAML
from sqlalchemy import Connection, select

from pipeline.core.secret_text import hide_in_urls, hide_secrets
from pipeline.core.types import Fault
from pipeline.dashboard.source import ViewSource
from pipeline.dashboard.words import MS
from storage.results import dead_letters, faults
from storage.results.dead_letters import Kept
from storage.stream_state import positions
from storage.tables.stream import PositionRow, SnapshotRow

MAX_FAULTS = 100
MAX_LETTERS = 100
MAX_SHOWN_BYTES = 400


def system(source: ViewSource) -> dict[str, Any]:
    """Return the state of the pipeline itself."""
    with source.database.read() as connection:
        owners, sizes = _owners(connection), _snapshot_sizes(connection)
        found = positions.all_of(connection)
        happened = faults.query(connection, limit=MAX_FAULTS)
        letters = dead_letters.query(connection, limit=MAX_LETTERS)
        counts = dead_letters.counts(connection)
        schema = source.database.current()
    return {
        "now_ms": time.time_ns() // MS,
        "database": str(source.database),
        "schema": schema,
        "partitions": [
            {
                "stream": one.stream,
                "partition": str(one.partition),
                "owner": owners[(one.stream, *one.partition)][0],
                "updated_ms": owners[(one.stream, *one.partition)][1],
                "epoch": one.epoch,
                "next_offset": one.next_offset,
                "scored": one.counts.scored,
                "buffered": one.counts.buffered,
                "late": one.counts.late,
                "duplicate": one.counts.duplicate,
                "dead_lettered": one.counts.dead_lettered,
                "watermark_ms": None if one.watermark_ns is None else one.watermark_ns // MS,
                "snapshot_bytes": sizes.get((one.stream, *one.partition)),
            }
            for one in found
        ],
        "faults": _faults(happened),
        "dead_letters": _letters(letters),
        "dead_letter_counts": counts,
        "config": _config_text(source),
    }


def _config_text(source: ViewSource) -> str:
    """Return the config as YAML, without secrets."""
    text = io.StringIO()
    values = source.config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    YAML().dump(values, text)
    return hide_secrets(hide_in_urls(text.getvalue()))


def _letters(letters: list[Kept]) -> list[dict[str, Any]]:
    return [
        {
            "id": one.id,
            "stream": one.letter.stream,
            "reason": one.letter.reason,
            "detail": one.letter.detail,
            "offset": one.letter.offset,
            "value": hide_secrets((one.letter.value or b"")[:MAX_SHOWN_BYTES].decode("utf-8", "replace")),
            "created_ms": one.created_ns // MS,
            "replayed_ms": None if one.replayed_ns is None else one.replayed_ns // MS,
        }
        for one in letters
    ]


def _faults(happened: list[Fault]) -> list[dict[str, Any]]:
    return [
        {
            "stream": one.stream,
            "kind": one.kind.value,
            "message": one.message,
            "start_ms": one.started_ns // MS,
            "end_ms": None if one.ended_ns is None else one.ended_ns // MS,
        }
        for one in happened
    ]


def _owners(connection: Connection) -> dict[tuple[str, str, int], tuple[str, int]]:
    """Return the owner of each partition and the time of its last commit in ms."""
    row = PositionRow
    rows = connection.execute(select(row.stream, row.topic, row.partition, row.owner, row.updated_ns))
    return {(r.stream, r.topic, r.partition): (r.owner, r.updated_ns // MS) for r in rows}


def _snapshot_sizes(connection: Connection) -> dict[tuple[str, str, int], int]:
    """Return the bytes of the snapshot of each partition."""
    row = SnapshotRow
    rows = connection.execute(select(row.stream, row.topic, row.partition, row.size_bytes))
    return {(r.stream, r.topic, r.partition): r.size_bytes for r in rows}
