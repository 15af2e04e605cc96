"""The sources of ``test_sources.py`` behind one interface.

Its operations are: write, open a reader, grow, truncate, recreate.
"""

from __future__ import annotations

import gzip
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.schema import CsvFormat, FilesSourceConfig, KafkaSourceConfig
from pipeline.core.errors import SourceError
from pipeline.core.types import Partition
from pipeline.sources.base import Poll, Records, Source, TableRecords
from pipeline.sources.files.source import FilesSource
from pipeline.sources.memory import MemoryLog, MemorySource
from tests.support.kafka_server import Topics

EVERYTHING = frozenset({"append", "keys", "groups", "start", "retention", "gaps", "grow", "recreate"})


class MemoryKind:
    """The in-memory twin."""

    abilities = EVERYTHING | {"finish"}

    def __init__(self, folder: Path, partitions: int = 1) -> None:
        self.log = MemoryLog(partitions=partitions)
        self.partitions = self.log.partitions

    def open(self, start: str = "earliest", follow: bool = True) -> Source:
        if not follow:
            self.log.finish()
        return MemorySource(self.log, start=start)

    def write(self, values: Sequence[bytes | None], number: int = 0, **columns: Any) -> None:
        self.log.extend(values, number, **columns)

    def skip(self, number: int = 0) -> None:
        self.log.skip(2, number)

    def grow(self, count: int) -> None:
        self.log.add_partitions(count)

    def trim(self, before: int, number: int = 0) -> None:
        self.log.trim(before, number)

    def recreate(self) -> None:
        self.log.recreate()


class KafkaKind:
    """A topic on a real broker, read by kafka-python."""

    abilities = EVERYTHING
    client: ClassVar[str] = "kafka-python"

    def __init__(self, topics: Topics, partitions: int = 1) -> None:
        self.topics = topics
        self.topic = topics.create(partitions)
        self.partitions = [Partition(self.topic, number) for number in range(partitions)]
        self.group = uuid.uuid4().hex

    def open(self, start: str = "earliest") -> Source:
        from datetime import timedelta

        config = KafkaSourceConfig(
            brokers=[self.topics.broker],
            topics=[self.topic],
            start=start,
            client=self.client,
            session_timeout=timedelta(seconds=6),
        )
        return self.make(config)

    def make(self, config: KafkaSourceConfig) -> Source:
        from pipeline.sources.kafka.consumer import KafkaSource

        return KafkaSource(config, self.group, metadata_age=0.5)

    def write(
        self,
        values: Sequence[bytes | None],
        number: int = 0,
        *,
        keys: Sequence[bytes | None] | None = None,
        timestamps_ns: Sequence[int] | None = None,
        headers: Sequence[list[tuple[str, bytes | None]]] | None = None,
    ) -> None:
        self.topics.produce(
            self.topic,
            values,
            number,
            key=lambda i: keys[i] if keys else None,
            timestamp_ms=lambda i: timestamps_ns[i] // 1_000_000 if timestamps_ns else None,
            headers=lambda i: headers[i] if headers else None,
        )

    def skip(self, number: int = 0) -> None:
        """An aborted transaction: its record and its marker use up two offsets."""
        self.topics.abort(self.topic, number)

    def grow(self, count: int) -> None:
        self.topics.grow(self.topic, len(self.partitions) + count)

    def trim(self, before: int, number: int = 0) -> None:
        self.topics.trim(self.topic, number, before)

    def recreate(self) -> None:
        self.topics.recreate(self.topic, len(self.partitions))


class ConfluentKind(KafkaKind):
    """The same, read by confluent-kafka."""

    client = "confluent"

    def make(self, config: KafkaSourceConfig) -> Source:
        from pipeline.sources.kafka.confluent import ConfluentSource

        return ConfluentSource(config, self.group, metadata_age=0.5)


class CsvKind:
    """A folder of CSV files; the text is in column ``v``, its number in column ``n``."""

    abilities = frozenset({"append", "grow", "recreate", "finish"})
    ending: ClassVar[str] = ".csv"

    def __init__(self, folder: Path, partitions: int = 1) -> None:
        self.folder = folder
        self.partitions = [self.partition(number) for number in range(partitions)]

    def partition(self, number: int) -> Partition:
        return Partition(str(self.folder / f"{number}{self.ending}"), 0)

    def open(self, start: str = "earliest", follow: bool = True) -> Source:
        return FilesSource(
            FilesSourceConfig(paths=[str(self.folder / f"*{self.ending}")], follow=follow),
            CsvFormat(series="v", time="n", values=["n"]),
        )

    def write(self, values: Sequence[bytes | None], number: int = 0) -> None:
        path = Path(self.partition(number).topic)
        with open(path, "ab") as file:
            file.write(
                (b"" if file.tell() else b"v,n\n")
                + b"".join(b"%s,%d\n" % (value, i) for i, value in enumerate(values) if value is not None)
            )

    def grow(self, count: int) -> None:
        """A new file is a new partition as soon as it is written."""

    def recreate(self) -> None:
        path = Path(self.partitions[0].topic)
        path.write_bytes(b"v,n\nother,1\n")


class ZippedCsvKind(CsvKind):
    """The same gzipped; such files are complete when they appear."""

    abilities = frozenset({"grow", "recreate", "finish"})
    ending = ".csv.gz"

    def write(self, values: Sequence[bytes | None], number: int = 0) -> None:
        super().write(values, number)
        path = Path(self.partition(number).topic)
        path.write_bytes(gzip.compress(path.read_bytes()))

    def recreate(self) -> None:
        super().recreate()
        path = Path(self.partitions[0].topic)
        path.write_bytes(gzip.compress(path.read_bytes()))


class ParquetKind(CsvKind):
    """A folder of Parquet files of several row groups each; such files are complete when they appear, too."""

    abilities = frozenset({"grow", "recreate", "finish"})
    ending = ".parquet"

    def write(self, values: Sequence[bytes | None], number: int = 0) -> None:
        texts = [None if value is None else value.decode() for value in values]
        table = pa.table({"v": pa.array(texts, pa.string()), "n": pa.array(range(len(texts)))})
        path = Path(self.partition(number).topic)
        pq.write_table(table, path.with_suffix(".part"), row_group_size=300)
        path.with_suffix(".part").rename(path)

    def recreate(self) -> None:
        self.write([b"other"])


@dataclass
class Reader:
    """A small engine: it takes over what is assigned at the position of ``positions`` (the database, shared
    by members) and keeps what it read.
    """

    source: Source
    positions: dict[Partition, int] = field(default_factory=dict)
    owned: set[Partition] = field(default_factory=set)
    read: dict[Partition, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    batches: list[Records | TableRecords] = field(default_factory=list)
    finished: bool = False

    def once(self, max_records: int = 1000, timeout: float = 0.2) -> Poll:
        poll = self.source.poll(max_records, timeout)
        for partition in poll.revoked:
            self.owned.discard(partition)
        for partition in poll.assigned:
            self.owned.add(partition)
            if partition not in self.positions:
                self.positions[partition] = self.source.start_offset(partition)
            with suppress(SourceError):  # the group has revoked it since the poll; the next one says so
                self.source.seek(partition, self.positions[partition])
        self.source.resume(poll.assigned)
        assert sum(len(records) for records in poll.records) <= max_records
        assert len({records.partition for records in poll.records}) == len(poll.records), (
            "one batch a partition"
        )
        for records in poll.records:
            self._take(records)
        self.source.publish_offsets({records.partition: records.next_offset for records in poll.records})
        self.finished = self.finished or poll.finished
        return poll

    def _take(self, records: Records | TableRecords) -> None:
        partition = records.partition
        assert partition in self.owned
        assert records.first_offset == self.positions[partition], "a batch begins where the last one ended"
        offsets = records.offsets.tolist()
        assert offsets == sorted(set(offsets))
        assert all(records.first_offset <= offset < records.next_offset for offset in offsets)
        assert records.next_offset > records.first_offset
        assert len(records.timestamps) == len(offsets)
        payload = values_of(records)
        assert len(payload) == len(offsets)
        self.read.setdefault(partition, []).extend(zip(offsets, payload, strict=True))
        self.positions[partition] = records.next_offset
        self.batches.append(records)

    def until(self, done: Callable[[], bool], timeout: float = 120.0, max_records: int = 1000) -> Reader:
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, f"gave up: owned {self.owned}, positions {self.positions}"
            self.once(max_records)
        return self

    def until_read(self, count: int, **limits: Any) -> Reader:
        return self.until(lambda: self.count() >= count, **limits)

    def until_owned(self, count: int = 1) -> Reader:
        return self.until(lambda: len(self.owned) >= count)

    def count(self) -> int:
        return sum(map(len, self.read.values()))

    def values(self, partition: Partition) -> list[bytes | None]:
        return [value for _, value in self.read.get(partition, [])]


def values_of(records: Records | TableRecords) -> list[bytes | None]:
    """Return the values that were written; tables hold them in their column ``v``."""
    if isinstance(records, Records):
        assert len(records.keys) == len(records)
        return list(records.values)
    return [None if value is None else str(value).encode() for value in records.table.column("v").to_pylist()]


def numbered(count: int, prefix: str = "v", first: int = 0) -> list[bytes | None]:
    return [f"{prefix}{i:05d}".encode() for i in range(first, first + count)]
