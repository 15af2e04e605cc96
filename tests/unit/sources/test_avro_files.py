"""Avro container files as rows of JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Config, FilesSourceConfig, JsonFormat, Stream
from pipeline.config.validation import broken_rules
from pipeline.core.errors import InputError, SourceError
from pipeline.decode import make_decoder
from pipeline.services.sample_rows import samples_of_file
from pipeline.sources.files.avro_reader import AvroFile
from pipeline.sources.files.row_slice import RowsGoneError
from pipeline.sources.files.source import FilesSource
from tests.support.source_kinds import Reader

SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Reading",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "temp", "type": ["null", "double"]},
            {"name": "more", "type": {"type": "map", "values": "long"}},
        ],
    }
)
AT = datetime(2026, 1, 1, tzinfo=UTC)


def reading(number: int) -> dict:
    return {
        "id": f"s{number % 3}",
        "at": AT.replace(second=number % 60),
        "temp": number + 0.5,
        "more": {"n": number},
    }


def write(path: Path, first: int, count: int, codec: str = "null", block: int = 200) -> None:
    rows = [reading(number) for number in range(first, first + count)]
    with open(path, "a+b") as file:  # fastavro appends blocks to a file that it finds
        fastavro.writer(file, SCHEMA, rows, codec=codec, sync_interval=block)


def numbers(part) -> list[int]:
    return [json.loads(value)["more"]["n"] for value in part.table.column(0).to_pylist()]


def all_of(file: AvroFile) -> list[int]:
    found = []
    while (part := file.read()) is not None:
        assert part.offsets.tolist() == numbers(part)
        found += numbers(part)
    return found


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2"])
def test_every_record_is_a_row(tmp_path, codec):
    path = tmp_path / "a.avro"
    write(path, 0, 100, codec)
    file = AvroFile(path)
    assert (all_of(file), file.count()) == (list(range(100)), 100)
    for row in (0, 1, 37, 99):
        file.seek(row)
        assert all_of(file) == list(range(row, 100))
    file.seek(101)
    with pytest.raises(RowsGoneError):
        file.read()
    file.close()


def test_appended_blocks_are_read_on(tmp_path):
    path = tmp_path / "a.avro"
    write(path, 0, 10)
    file = AvroFile(path, follow=True)
    before = file.fingerprint()
    assert all_of(file) == list(range(10))
    write(path, 10, 10)
    assert all_of(file) == list(range(10, 20))
    assert (file.count(), file.fingerprint()) == (20, before)


@given(cut=st.integers(0, 400))
def test_a_file_that_is_cut_off_gives_its_complete_blocks(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("avro") / "a.avro"
    write(path, 0, 60)
    whole = path.read_bytes()
    with open(path, "rb") as opened:
        reader = fastavro.block_reader(opened)
        header, ends, rows = opened.tell(), [opened.tell()], [0]
        for block in reader:
            ends.append(opened.tell())
            rows.append(rows[-1] + block.num_records)
    end = max(len(whole) - cut, header)
    path.write_bytes(whole[:end])
    complete = max(row for place, row in zip(ends, rows, strict=True) if place <= end)
    following = AvroFile(path, follow=True)
    assert all_of(following) == list(range(complete))
    path.write_bytes(whole)
    assert all_of(following) == list(range(complete, 60))
    following.close()
    path.write_bytes(whole[:end])
    bounded = AvroFile(path)
    if end in ends:
        assert all_of(bounded) == list(range(complete))
    else:
        with pytest.raises(ValueError, match="damaged or cut off"):
            all_of(bounded)
    bounded.close()


def test_other_files_say_so(tmp_path):
    path = tmp_path / "a.avro"
    path.write_bytes(b"time,value\n1,2\n")
    with pytest.raises(ValueError, match="no Avro container"):
        AvroFile(path).fingerprint()
    path.write_bytes(b"Obj\x01\x04")
    assert AvroFile(path).fingerprint() is None
    source = FilesSource(FilesSourceConfig(paths=[str(path)]), None)
    with pytest.raises((InputError, SourceError), match="avro"):
        source.poll(1, 0.1)


def test_a_stream_reads_them(tmp_path):
    write(tmp_path / "a.avro", 0, 30)
    form = {"avro": {"series": "id", "time": "at", "values": ["temp"]}}
    keys = {"source": {"files": {"paths": [str(tmp_path / "*.avro")]}}, "format": form}
    assert broken_rules(Config.model_validate({"streams": {"plant": keys}})) == []
    stream = Stream.model_validate(keys)
    source = FilesSource(stream.source.files, stream.format.chosen)
    reader = Reader(source).until_read(30)
    decoder = make_decoder("plant", stream)
    columns = [decoder.decode(batch).columns for batch in reader.batches]
    assert sum(len(one) for one in columns) == 30
    assert columns[0].time[0] == int(AT.timestamp()) * 10**9
    assert columns[0].values[0, 0] == 0.5
    source.close()


def test_init_looks_at_them(tmp_path):
    write(tmp_path / "a.avro", 0, 30)
    samples = samples_of_file(tmp_path / "a.avro")
    assert samples.kind == "json"
    assert samples.rows[0]["id"] == "s0"


def test_a_log_of_records_needs_a_schema():
    form = {"avro": {"series": "id", "time": "at", "values": ["temp"]}}
    kafka = {"kafka": {"brokers": ["b:9092"], "topics": ["t"]}}
    (finding,) = broken_rules(
        Config.model_validate({"streams": {"plant": {"source": kafka, "format": form}}})
    )
    assert finding.what == "has no schema"
    assert isinstance(Stream.model_validate({"source": kafka, "format": form}).format.chosen, JsonFormat)
