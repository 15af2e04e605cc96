"""Replay of dead letters.

Those that decode with the current config are written to their log again: a topic of Kafka, or the spool of
what was pushed. They pass through it like any record, so positions, counts and backfills include them. A
record that is written to Kafka twice, because the process stopped before it was marked, is dropped as a
duplicate of its time. A spool takes each record once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.schema import Config, KafkaSourceConfig
from pipeline.core.errors import InputError, SourceUnavailable
from pipeline.core.types import DeadLetter, Partition
from pipeline.decode import make_decoder
from pipeline.sources.base import Records
from pipeline.sources.push.bodies import Compression
from pipeline.sources.push.inbox import put_again
from pipeline.sources.push.segments import Entry
from pipeline.sources.push.source import CONTENT_TYPE
from storage.results import dead_letters
from storage.results.dead_letters import Kept
from storage.sql.database import Database
from storage.sql.statements import StreamChoice

#: Header of each record that is written again: its original offset.
REPLAY_HEADER = "forewatch-replay"
_TIMEOUT_SECONDS = 30.0


@dataclass(slots=True)
class ReplayReport:
    """Counts of a replay; ``refused``: those that still do not decode, by reason."""

    considered: int = 0
    decodable: int = 0
    replayed: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "considered": self.considered,
            "decodable": self.decodable,
            "replayed": self.replayed,
            "refused": self.refused,
        }


def replay(
    config: Config,
    database: Database,
    *,
    ids: Sequence[int] | None = None,
    stream: StreamChoice = None,
    reason: str | None = None,
    dry_run: bool = False,
) -> ReplayReport:
    """Replay dead letters that were not replayed yet.

    Raises InputError for streams without a log to write to, SourceUnavailable when Kafka does not answer.

    Args:
        config: The current configuration.
        database: Holds the dead letters.
        ids: Dead letters to replay, None for all that match.
        stream: Only those of this stream.
        reason: Only those with this reason.
        dry_run: Only count, write nothing.
    """
    with database.read() as connection:
        if ids is not None:
            letters = [dead_letters.get(connection, one) for one in dict.fromkeys(ids)]
        else:
            letters = dead_letters.query(connection, stream=stream, reason=reason, replayed=False)
    report = ReplayReport(considered=len(letters))
    refused: Counter[str] = Counter()
    for name, of_stream in groupby(
        sorted(letters, key=lambda kept: kept.letter.stream), key=lambda kept: kept.letter.stream
    ):
        good = list(_decodable(config, name, list(of_stream), refused))
        report.decodable += len(good)
        if good and not dry_run:
            _write(config, name, database, good)
            report.replayed += len(good)
    report.refused = dict(refused)
    return report


def _decodable(config: Config, stream: str, letters: list[Kept], refused: Counter[str]) -> Iterable[Kept]:
    """Yield those that decode now, in the order of their log."""
    if stream not in config.streams:
        raise InputError(f"the config has no stream {stream!r} now; name another one with --stream")
    decoder = make_decoder(stream, config.streams[stream])
    ordered = sorted(letters, key=lambda kept: (kept.letter.partition, kept.letter.offset))
    for partition, group in groupby(ordered, key=lambda kept: kept.letter.partition):
        kept = list(group)
        _, dead = decoder.decode(_records(partition, [one.letter for one in kept]))
        still = {letter.offset: letter.reason for letter in dead}
        refused.update(still.values())
        yield from (one for one in kept if one.letter.offset not in still)


def _records(partition: Partition, letters: list[DeadLetter]) -> Records:
    offsets = np.array([letter.offset for letter in letters], np.int64)
    return Records(
        partition=partition,
        first_offset=int(offsets[0]),
        next_offset=int(offsets[-1]) + 1,
        offsets=offsets,
        timestamps=np.array([letter.timestamp_ns for letter in letters], np.int64),
        values=[letter.value for letter in letters],
        keys=[letter.key for letter in letters],
        headers=[letter.headers for letter in letters],
    )


def _write(config: Config, stream: str, database: Database, letters: list[Kept]) -> None:
    """Write letters to the log of their stream, and mark them."""
    source = config.streams[stream].source
    if source.kafka is not None:
        _produce(source.kafka, database, letters)
    elif source.push is not None:
        _put_again(source.push.spool or config.spool_folder(stream), database, letters)
    else:
        raise InputError(
            f"stream {stream!r} reads neither from Kafka nor what is pushed, so there is no log to write to; "
            f"correct its input and run a backfill"
        )


def _put_again(spool: Path, database: Database, letters: list[Kept]) -> None:
    """Put records into a spool and mark them, also if some fail."""
    written: list[int] = []
    try:
        for kept in letters:
            letter = kept.letter
            content, kind = letter.value or b"", dict(letter.headers).get(CONTENT_TYPE) or b""
            origin = f"{letter.stream} {letter.partition} {letter.offset} ".encode()
            name = f"{letter.offset:020d}-{sha256(origin + content).hexdigest()[:32]}"
            plain = kind.decode("ascii", "replace")
            put_again(spool, name, Entry(letter.timestamp_ns, 1, plain, Compression.NONE, content))
            written.append(kept.id)
    finally:
        with database.begin() as connection:
            dead_letters.mark_replayed(connection, written)


def _produce(kafka: KafkaSourceConfig, database: Database, letters: list[Kept]) -> None:
    """Produce records and mark those that the brokers acknowledged, also if some fail."""
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    from pipeline.sources.kafka.client import connect

    password = {"sasl_plain_password": kafka.password.reveal().get_secret_value()} if kafka.password else {}
    producer: Any = connect(
        KafkaProducer, kafka.brokers, _TIMEOUT_SECONDS, acks="all", **kafka.security, **password
    )
    written: list[int] = []
    try:
        sent = [(kept.id, producer.send(**_message(kept.letter))) for kept in letters]
        producer.flush(timeout=_TIMEOUT_SECONDS)
        for id_, future in sent:
            future.get(timeout=_TIMEOUT_SECONDS)
            written.append(id_)
    except KafkaError as error:
        raise SourceUnavailable(
            f"Kafka accepted {len(written)} of {len(letters)} records, then failed: {error!r}; "
            f"run the command again for the others"
        ) from error
    finally:
        producer.close(timeout=5)
        with database.begin() as connection:
            dead_letters.mark_replayed(connection, written)


def _message(letter: DeadLetter) -> dict[str, Any]:
    origin = f"{letter.partition} offset {letter.offset}".encode()
    return {
        "topic": letter.partition.topic,
        "partition": letter.partition.number,
        "key": letter.key,
        "value": letter.value,
        "headers": [*letter.headers, (REPLAY_HEADER, origin)],
        "timestamp_ms": letter.timestamp_ns // 1_000_000 if letter.timestamp_ns >= 0 else None,
    }
