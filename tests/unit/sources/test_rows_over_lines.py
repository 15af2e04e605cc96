"""Rows of CSV whose texts in quotes span lines, and rows that leave empty columns at their end out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.inputs import CsvFormat
from pipeline.sources.files import csv_reader
from pipeline.sources.files.csv_reader import CsvFile

FORM = CsvFormat(series="k", time="t", values=["v"])


def read(
    path: Path, row: int = 0, follow: bool = False
) -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
    """Return (number, k, v) of the rows from one on, and (number, reason) of those rejected."""
    file = CsvFile(path, FORM, follow=follow)
    file.seek(row)
    rows: list[tuple[Any, ...]] = []
    rejected = []
    while (part := file.read()) is not None:
        columns = [part.table.column(name).to_pylist() for name in ("k", "v")]
        rows += zip(part.offsets.tolist(), *columns, strict=True)
        rejected += [(number, why) for number, _, why in part.rejected]
    file.close()
    return [(number, key, float(value)) for number, key, value in rows], rejected


@pytest.mark.parametrize("piece", [16, 40, 64, 97, 1 << 20])
def test_a_text_over_lines_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(csv_reader, "PIECE_BYTES", piece)
    text = "k,note,t,v\n" + "".join(f'a,"one\n{i} ""two"", three\r\n\n",1764028800,{i}\n' for i in range(30))
    (tmp_path / "a.csv").write_bytes(text.encode())
    rows, rejected = read(tmp_path / "a.csv")
    assert [(key, value) for _, key, value in rows] == [("a", float(i)) for i in range(30)]
    assert rejected == []
    numbers = [number for number, _, _ in rows]
    assert numbers == sorted(set(numbers))
    later, _ = read(tmp_path / "a.csv", row=numbers[7])
    assert later == rows[7:]


@pytest.mark.parametrize("follow", [False, True])
def test_a_quote_that_is_not_closed_is_one_bad_row(tmp_path: Path, follow: bool) -> None:
    rows = [f"a,x,1764028800,{i}" for i in range(200)]
    rows[20] = 'a,"x,1764028800,20'
    (tmp_path / "a.csv").write_text("k,note,t,v\n" + "\n".join(rows) + "\n")
    good, rejected = read(tmp_path / "a.csv", follow=follow)
    assert [number for number, _, _ in good] == [i for i in range(200) if i != 20]
    assert [number for number, _ in rejected] == [20]
    assert "a quote is not closed" in rejected[0][1]


def test_empty_columns_at_the_end_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "k,t,v,note,more\na,1764028800,1\na,1764028801,2,x\na,1764028802\n\na,3,3,x,y\n"
    )
    rows, rejected = read(tmp_path / "a.csv")
    assert rows == [(0, "a", 1.0), (1, "a", 2.0), (4, "a", 3.0)]
    assert rejected == [(2, "2 fields where 5 are expected")]


def test_a_last_line_that_is_cut_off_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("k,t,v,note\na,1764028800,1,x\na,1764028801,2")
    assert read(tmp_path / "a.csv") == ([(0, "a", 1.0)], [(1, "3 fields where 4 are expected")])
