"""CSV and Parquet files: every line is accounted for, whatever is in it; a seek lands on the row; a growing
file is read as it grows.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.schema import CsvFormat, FilesSourceConfig
from pipeline.core.errors import InputError, OffsetOutOfRange, SourceError
from pipeline.core.types import Partition
from pipeline.sources import make_source
from pipeline.sources.files import csv_reader
from pipeline.sources.files import source as files
from pipeline.sources.files.csv_lines import Layout, parse_lines
from pipeline.sources.files.csv_reader import CsvFile
from pipeline.sources.files.parquet_reader import ParquetFile
from pipeline.sources.files.row_slice import RowsGoneError
from pipeline.sources.files.source import FilesSource, open_files

LAYOUT = Layout(["s", "t", "v"], ",", frozenset({"v"}), frozenset({"s"}))
FORM = CsvFormat(series="s", time="t", values=["v"])
# Everything that makes a line awkward: quotes, delimiters, blank lines, bytes that are not UTF-8, too few and
# too many fields.
PIECES = [b"a", b"1.5", b",", b'"', b'""', b"\xff", b"\xc3\xa9", b"\r", b" ", b"\\", b"nan", b""]
LINES = st.lists(
    st.lists(st.sampled_from(PIECES), max_size=7).map(b"".join) | st.just(b"a,1,2.5"), min_size=1, max_size=12
)


def by_python(line: bytes):
    """The fields of a line, or None: the plain meaning of CSV, one record a line."""
    try:
        rows = list(csv.reader([line.decode()], strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    return rows[0] if len(rows) == 1 and len(rows[0]) == 3 else None


@settings(max_examples=400, deadline=None)
@given(lines=LINES, newline=st.booleans(), first=st.integers(0, 10**9))
def test_each_line_is_a_row_or_rejected_or_blank(lines, newline, first):
    lines = [line.rstrip(b"\r") for line in lines]
    if not lines[-1] and not newline:
        lines[-1] = b"a,1,2"
    part = parse_lines(b"\n".join(lines) + (b"\n" if newline else b""), first, LAYOUT)
    assert part.next_row == first + len(lines)
    rows = dict(zip(part.offsets.tolist(), part.table.to_pylist(), strict=True))
    rejected = {row: raw for row, raw, _ in part.rejected}
    assert not rows.keys() & rejected.keys()
    if any(line.count(b'"') % 2 for line in lines):
        return  # a text in quotes may go on in the next line
    for row, line in enumerate(lines, first):
        if not line:
            assert row not in rows
            assert row not in rejected
        elif row in rejected:
            assert rejected[row] == line
        else:
            assert line.count(b",") >= 2
            fields = by_python(line)
            if fields is not None:  # Arrow is more lenient about stray quotes; what both accept is the same
                assert rows[row]["s"] == fields[0]
        if by_python(line) is not None and b'"' not in line and b"\r" not in line:
            assert row in rows


def test_columns_are_typed_where_they_are_clean_and_text_where_not():
    clean = parse_lines(b"007,2024-01-01T00:00:00Z,1\n007,2024-01-01T00:00:01Z,\n", 0, LAYOUT).table
    assert pa.types.is_dictionary(clean["s"].type)
    assert clean["s"].to_pylist() == ["007", "007"]
    assert pa.types.is_timestamp(clean["t"].type)
    assert clean["v"].to_pylist() == [1.0, None]
    dirty = parse_lines(b"a,1,1.5\nb,2,broken\n", 0, LAYOUT).table
    assert dirty["v"].to_pylist() == ["1.5", "broken"]


def test_a_quote_that_is_never_closed_rejects_its_line_only():
    part = parse_lines(b'a,1,1\n"b,2,2\nc,3,3\nd,4,"4"\n', 10, LAYOUT)
    assert part.offsets.tolist() == [10, 12, 13]
    ((row, raw, why),) = part.rejected
    assert (row, raw) == (11, b'"b,2,2')
    assert "split" in why


@pytest.mark.filterwarnings("error")
def test_bytes_that_are_no_text_are_rejected_without_a_traceback():
    """Arrow prints one where it cannot hand over a line that has too many fields besides."""
    part = parse_lines(b"a,1,1\n\xff,2,2,2\nc,3,3\n", 0, LAYOUT)
    assert part.offsets.tolist() == [0, 2]
    assert [(row, raw) for row, raw, _ in part.rejected] == [(1, b"\xff,2,2,2")]


@pytest.fixture
def small_pieces(monkeypatch):
    """Files are read a few lines at a time, so that seams between pieces are everywhere."""
    monkeypatch.setattr(csv_reader, "PIECE_BYTES", 64)


def write_csv(path, rows, ending="\n"):
    text = "s,t,v\n" + "".join(f"s{i % 3},{i},{i / 4}{ending}" for i in range(rows))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def rows_of(file):
    found = []
    while (part := file.read()) is not None:
        found += zip(part.offsets.tolist(), part.table["t"].to_pylist(), strict=True)
    return found


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
@pytest.mark.parametrize("row", [0, 1, 57, 199, 200])
def test_csv_seek(tmp_path, small_pieces, name, row):
    write_csv(tmp_path / name, 200)
    file = CsvFile(tmp_path / name, FORM)
    assert file.count() == 200
    assert rows_of(file) == [(i, i) for i in range(200)]
    file.seek(row)
    assert rows_of(file) == [(i, i) for i in range(row, 200)]
    fresh = CsvFile(tmp_path / name, FORM)
    fresh.seek(row)
    assert rows_of(fresh) == [(i, i) for i in range(row, 200)]
    fresh.seek(201)
    with pytest.raises(RowsGoneError):
        fresh.read()
    fresh.close()


@pytest.mark.parametrize("row", [0, 1, 299, 300, 301, 999, 1000])
def test_parquet_seek(tmp_path, row):
    pq.write_table(
        pa.table({"t": range(1000), "s": [f"s{i % 3}" for i in range(1000)]}),
        tmp_path / "x.parquet",
        row_group_size=300,
    )
    file = ParquetFile(tmp_path / "x.parquet", labels=["s"])
    assert file.count() == 1000
    file.seek(row)
    assert rows_of(file) == [(i, i) for i in range(row, 1000)]
    file.seek(0)
    part = file.read()
    assert pa.types.is_dictionary(part.table["s"].type)
    file.seek(1001)
    with pytest.raises(RowsGoneError):
        file.read()


def test_windows_line_ends_a_byte_order_mark_and_no_last_newline(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbfs,t,v\r\na,1,2\r\n\r\nb,3,4")
    file = CsvFile(tmp_path / "x.csv", FORM)
    assert file.count() == 3
    first, second = file.read(), file.read()
    assert (first.offsets.tolist(), second.offsets.tolist()) == ([0], [2])
    assert first.table.to_pylist() + second.table.to_pylist() == [
        {"s": "a", "t": 1, "v": 2.0},
        {"s": "b", "t": 3, "v": 4.0},
    ]


@pytest.mark.parametrize("head", [b"", b"s;t;v\n"])
def test_a_configured_header_stands_for_one_and_is_passed_over_where_it_is_there(tmp_path, head):
    (tmp_path / "x.csv").write_bytes(head + b"a;1;2\n")
    form = CsvFormat(series="s", time="t", values=["v"], delimiter=";", header=["s", "t", "v"])
    assert CsvFile(tmp_path / "x.csv", form).read().table.to_pylist() == [{"s": "a", "t": 1, "v": 2.0}]


def test_a_line_without_an_end_is_no_csv(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_reader, "MAX_LINE_BYTES", 4096)
    (tmp_path / "x.csv").write_bytes(b"s,t,v\n" + b"x" * 10_000_000)
    with pytest.raises(InputError, match="no end of a line"):
        CsvFile(tmp_path / "x.csv", FORM).read()


# --------------------------------------------------------------------------------------------------- the source over them


def drain(source, positions=None, stop=lambda read: False, timeout=120.0, max_records=50):
    """(partition → offsets read, rejected rows), until it is finished or ``stop`` says so."""
    positions = {} if positions is None else positions
    read: dict[Partition, list[int]] = {}
    rejected = []
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        poll = source.poll(max_records, 0.1)
        for partition in poll.assigned:
            source.seek(partition, positions.setdefault(partition, 0))
        source.resume(poll.assigned)
        for records in poll.records:
            assert records.first_offset == positions[records.partition]
            positions[records.partition] = records.next_offset
            read.setdefault(records.partition, []).extend(records.offsets.tolist())
            rejected += records.rejected
        if poll.finished or stop(read):
            return read, rejected
    raise AssertionError("never finished")


def test_rejected_rows_come_with_their_bytes_and_their_place(tmp_path, small_pieces):
    lines = [b"s,t,v"] + [b"only-one" if i % 7 == 3 else b"a,%d,1" % i for i in range(100)]
    (tmp_path / "x.csv").write_bytes(b"\n".join(lines) + b"\n")
    read, rejected = drain(open_files([str(tmp_path / "x.csv")], FORM))
    (offsets,) = read.values()
    assert sorted(offsets + [row for row, *_ in rejected]) == list(range(100))
    assert {raw for _, raw, _ in rejected} == {b"only-one"}
    assert {why for *_, why in rejected} == {"1 fields where 3 are expected"}


def test_make_source_passes_the_format_on(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"s|t|v\na|1|2\n")
    from pipeline.config import schema

    form = schema.FormatConfig(csv=CsvFormat(series="s", time="t", values=["v"], delimiter="|"))
    source = make_source(
        "stream", schema.SourceConfig(files=FilesSourceConfig(paths=[str(tmp_path / "*.csv")])), form
    )
    read, _ = drain(source)
    assert list(read.values()) == [[0]]


def test_following_reads_whole_lines_only_and_goes_on_where_it_was(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"s,t,v\na,0,1\na,1,")
    source = FilesSource(FilesSourceConfig(paths=[str(path)], follow=True), FORM)
    positions: dict[Partition, int] = {}
    assert list(drain(source, positions, stop=bool)[0].values()) == [[0]]
    for _ in range(12):
        assert not source.poll(10, 0.1).records, "the line has no end yet"
    with open(path, "ab") as file:
        file.write(b"1\na,2,1\n")
    partition = Partition(str(path), 0)
    read, _ = drain(source, positions, stop=lambda read: len(read.get(partition, [])) == 2)
    assert read[partition] == [1, 2]
    source.close()


def test_a_truncated_file_is_out_of_range_at_its_old_position(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"s,t,v\n" + b"a,1,1\n" * 50)
    source = FilesSource(FilesSourceConfig(paths=[str(path)], follow=True), FORM)
    positions: dict[Partition, int] = {}
    drain(source, positions, stop=lambda read: sum(map(len, read.values())) == 50)
    path.write_bytes(b"s,t,v\n" + b"a,1,1\n" * 10)
    with pytest.raises(OffsetOutOfRange) as caught:
        drain(source, positions, stop=lambda read: False)
    assert (caught.value.partition, caught.value.offset) == (Partition(str(path), 0), 50)
    source.close()


def test_a_file_that_goes_away_is_revoked(tmp_path):
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / name, 5)
    source = FilesSource(FilesSourceConfig(paths=[str(tmp_path / "*.csv")], follow=True), FORM)
    drain(source, stop=lambda read: sum(map(len, read.values())) == 10)
    os.unlink(tmp_path / "a.csv")
    revoked = []
    deadline = time.monotonic() + 120
    while not revoked and time.monotonic() < deadline:
        revoked += source.poll(10, 0.2).revoked
    assert revoked == [Partition(str(tmp_path / "a.csv"), 0)]


def test_appending_keeps_the_identity(tmp_path):
    path = tmp_path / "x.csv"
    write_csv(path, 3)
    before = CsvFile(path, FORM).fingerprint()
    with open(path, "ab") as file:
        file.write(b"a,1,1\n")
    assert CsvFile(path, FORM).fingerprint() == before
    path.write_bytes(b"s,t,v\nother,1,1\n")
    assert CsvFile(path, FORM).fingerprint() != before


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("x.doc", b"", "the name must end in one of"),
        ("x.parquet", b"PAR1 but not really", "not a complete Parquet file"),
        ("x.csv", b"\xff\xfe\x00,\n1,2\n", "UTF-8"),
        ("x.csv.gz", b"not gzipped", "x.csv.gz"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, name, content, error):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((InputError, SourceError), match=error):
        drain(open_files([str(tmp_path / name)], FORM))


def test_what_a_follower_waits_for_is_logged_once(tmp_path, caplog, monkeypatch):
    """A missing file, or one that does not grow, looks like an input without records."""
    monkeypatch.setattr(files, "SCAN_SECONDS", 0.0)
    source = FilesSource(FilesSourceConfig(paths=[str(tmp_path / "*.parquet")], follow=True), FORM)
    source.poll(10, 0.0)
    source.poll(10, 0.0)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        f"no file matches {tmp_path}/*.parquet yet; waiting for one"
    ]
    torn = tmp_path / "x.parquet"
    torn.write_bytes(b"PAR1 and more to come")
    source.poll(10, 0.0)
    assert len(caplog.records) == 1, "it is being written"
    os.utime(torn, (0, 0))
    source.poll(10, 0.0)
    source.poll(10, 0.0)
    assert [record.message for record in caplog.records][1:] == [
        f"{torn} is not a complete Parquet file; reading starts once it is"
    ]


def test_no_file_at_all_is_named(tmp_path):
    with pytest.raises(SourceError, match="no file matches"):
        drain(open_files([str(tmp_path / "*.csv")], FORM))


@pytest.mark.parametrize(
    ("ending", "compress"),
    [
        (".gz", gzip.compress),
        (".zst", lambda text: pa.compress(text, "zstd", asbytes=True)),
        (".bz2", lambda text: bz2.compress(text, 1)),
        (".xz", lzma.compress),
    ],
)
def test_a_torn_compressed_file_gives_what_it_has_and_then_says_where(
    ending, compress, tmp_path, small_pieces
):
    text = b"s,t,v\n" + b"".join(b"a,%d,%d\n" % (i, i * 7919 % 1000) for i in range(20_000))
    path = tmp_path / f"x.csv{ending}"
    path.write_bytes(compress(text)[:-2000])
    read: list[int] = []
    with pytest.raises(SourceError, match=r"cannot be read from row .* complete copy"):
        drain(
            open_files([str(path)], FORM),
            stop=lambda found: read.extend(found.popitem()[1]) if found else None,
        )
    assert read == list(range(len(read)))
    assert len(read) > 1000
