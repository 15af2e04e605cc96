"""Data sets in each layout, made small; and the mistakes that a user makes with them."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.evaluate.layouts import find


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def csv(rows, header="timestamp,value,label"):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


@pytest.fixture
def nab(tmp_path):
    stamps = [f"2024-01-01 {hour:02d}:00:00" for hour in range(24)]
    write(tmp_path / "data" / "real" / "one.csv", csv(zip(stamps, range(24), strict=True), "timestamp,value"))
    # A clock put back repeats a time: the first of them is meant.
    write(
        tmp_path / "data" / "real" / "two.csv",
        csv(zip([*stamps[:5], *stamps[3:]], range(26), strict=True), "timestamp,value"),
    )
    windows = {
        "real/one.csv": [
            ["2024-01-01 20:00:00.000000", "2024-01-01 21:00:00.000000"],
            [f"{stamps[4]}.000000", f"{stamps[6]}.000000"],
        ],
        "real/two.csv": [[f"{stamps[4]}.000000", f"{stamps[10]}.000000"]],
    }
    write(tmp_path / "combined_windows.json", json.dumps(windows))
    return tmp_path


def test_nab_windows_become_rows_in_order_of_time(nab):
    one, two = (entry.read() for entry in find(nab, "nab"))
    assert (one.name, one.channels, one.values.shape, one.warm_up) == ("real/one", ("value",), (24, 1), 3)
    assert one.windows.tolist() == [[4, 6], [20, 21]]
    assert np.flatnonzero(one.label).tolist() == [4, 5, 6, 20, 21]
    assert two.windows.tolist() == [[4, 12]]
    assert one.stamps[0] == "2024-01-01 00:00:00"
    assert one.time[1] - one.time[0] == 3_600_000_000_000


def test_nab_window_without_its_row_is_named(nab):
    write(
        nab / "combined_windows.json",
        json.dumps({"real/one.csv": [["2024-01-01 00:30:00", "2024-01-01 01:00:00"]]}),
    )
    (entry,) = find(nab, "nab")
    with pytest.raises(InputError, match=r"one\.csv.*2024-01-01 00:30:00"):
        entry.read()


def test_labelled_reads_gz_several_values_and_its_manifest(tmp_path):
    text = csv(
        [(1700000000 + i, i, -i, int(i in (7, 8))) for i in range(10)], "timestamp,pressure,flow,label"
    )
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    write(tmp_path / "b.csv", csv([(i, i, 0) for i in range(5)]))
    write(tmp_path / "manifest.csv", "file,rows,train_rows\na.csv.gz,10,4\n")
    (series,) = [entry.read() for entry in find(tmp_path, "labelled")]
    assert (series.name, series.channels, series.warm_up) == ("a", ("pressure", "flow"), 4)
    assert series.windows.tolist() == [[7, 8]]
    assert series.time[0] == 1_700_000_000_000_000_000


def test_labelled_manifest_one_folder_up_and_none_at_all(tmp_path):
    write(tmp_path / "set" / "a.csv", csv([(i + 0.5, i, 0) for i in range(100)]))
    (entry,) = find(tmp_path / "set", "labelled")
    assert entry.read().warm_up == 15
    assert entry.read().time[0] == 500_000_000
    write(tmp_path / "manifest.csv", "file,rows,train_rows\nset/a.csv,100,30\nother/b.csv,1,1\n")
    (entry,) = find(tmp_path / "set", "labelled")
    assert (entry.name, entry.read().warm_up) == ("a", 30)


def test_kinds_keep_events_apart_that_touch(tmp_path):
    write(tmp_path / "a.csv", csv([(i, i, int(3 <= i <= 6)) for i in range(10)]))
    write(tmp_path / "events.csv", "file,kind,first,last\na.csv,drift,5,6\na.csv,spike,3,4\n")
    (series,) = [entry.read() for entry in find(tmp_path, "labelled")]
    assert series.kinds == ("spike", "drift")
    assert series.windows.tolist() == [[3, 4], [5, 6]]


def test_skab_drops_the_changepoint_and_a_normal_recording_has_no_labels(tmp_path):
    write(
        tmp_path / "valve" / "0.csv",
        "datetime;A;B;anomaly;changepoint\n2020-03-01 15:44:06;1;2;0.0;0.0\n2020-03-01 15:44:07;1;2;1.0;1.0\n",
    )
    write(tmp_path / "free" / "f.csv", "datetime;A;B\n2020-03-01 15:44:06;1;2\n")
    free, valve = (entry.read() for entry in find(tmp_path, "skab"))
    assert (valve.channels, valve.label.tolist(), valve.warm_up) == (("A", "B"), [False, True], 2)
    assert not free.label.any()


def test_halves_follow_the_name_of_the_file(tmp_path):
    for number in range(40):
        write(tmp_path / f"{number}.csv", csv([(0, 0, 0)]))
    halves = {entry.name: entry.half for entry in find(tmp_path, "labelled")}
    assert set(halves.values()) == {"a", "b"}
    assert halves == {entry.name: entry.half for entry in find(tmp_path, "labelled")}
    assert len(find(tmp_path, "labelled", limit=3)) == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": "timestamp,label\n1,0\n"}, "no value column"),
        ({"a.csv": "timestamp,value\n1,0\n"}, "no column label"),
        ({"a.csv": "timestamp,value,label\n"}, "no rows"),
        ({"a.csv": "timestamp,value,label\n1,high,0\n"}, "high"),
        ({"a.csv": "timestamp,value,label\nnoon,1,0\n"}, "noon"),
        (
            {"a.csv": "timestamp,value,label\n1,2,0\n", "manifest.csv": "file,rows\na.csv,1\n"},
            "no column train_rows",
        ),
        (
            {
                "a.csv": "timestamp,value,label\n1,2,0\n",
                "manifest.csv": "file,rows,train_rows\ngone.csv,1,1\n",
            },
            "gone.csv",
        ),
        (
            {"a.csv": "timestamp,value,label\n1,2,0\n", "events.csv": "file,kind\na.csv,x\n"},
            "events.csv: no column first, last",
        ),
        (
            {"a.csv": "timestamp,value,label\n1,2,0\n2,high,0\n"},
            "line 3, column value: 'high' is not a number",
        ),
        ({"a.csv": "timestamp,value,label\n1,2,yes\n"}, "line 2, column label: 'yes' is not a number"),
        ({"a.csv": "timestamp,value,label\n1,inf,0\n"}, "column value: inf is not a number"),
        (
            {"a.csv": "timestamp,value,label\n1,2,0\n,3,0\n"},
            "line 3, column timestamp: an empty field is not a time",
        ),
        (
            {"a.csv": "timestamp,value,label\n2,1,0\n3,1,0\n1,1,0\n"},
            "line 4, column timestamp: 1 lies before the row above; sort",
        ),
        (
            {"a.csv": "timestamp,value,label\n1700000000000,2,0\n"},
            "1700000000000 is not in epoch seconds; divide milliseconds",
        ),
        (
            {"a.csv": "timestamp,value,label\n14/11/2023 22:13,2,0\n"},
            "'14/11/2023 22:13' is not ISO 8601, such as",
        ),
        ({"a.csv.gz": "timestamp,value,label\n1,2,0\n"}, "cannot be read as CSV: Not a gzipped file"),
        ({"a.csv": ""}, "a.csv: cannot be read as CSV: No columns"),
        (
            {"a.csv": "timestamp,value,label\n1,2,0\n", "manifest.csv": "file,train_rows\na.csv,\n"},
            "column train_rows: an empty field is not a",
        ),
        (
            {"a.csv": "timestamp,value,label\n1,2,0\n", "manifest.csv": "file,train_rows\na.csv,-5\n"},
            "train_rows: -5 is not a count of rows",
        ),
        (
            {"a.csv": "timestamp,value,label\n1,2,0\n", "manifest.csv": "file,train_rows\na.csv,all\n"},
            "'all' is not a number",
        ),
        ({"a.csv": "timestamp,value,label\n1,2,0\n", "manifest.csv": "file,train_rows\n"}, "names no file"),
        (
            {"a.csv": "timestamp,value,label\n1,2,0\n", "events.csv": "file,kind,first,last\na.csv,x,a,b\n"},
            "column first: 'a' is not a number",
        ),
        (
            {"a.csv": "timestamp,value,label\n1,2,0\n", "events.csv": "file,kind,first,last\na.csv,x,0,9\n"},
            "a.csv has no rows 0 to 9: it has 1",
        ),
    ],
)
def test_mistakes_in_labelled_files_are_named(tmp_path, files, message):
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(InputError, match=message):
        [entry.read() for entry in find(tmp_path, "labelled")]


def test_mistakes_in_the_data_set_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        find(tmp_path / "gone", "nab")
    with pytest.raises(InputError, match="there are nab, labelled, skab"):
        find(tmp_path, "ucr")
    with pytest.raises(InputError, match="no such file; layout nab needs it"):
        find(tmp_path, "nab")
    with pytest.raises(InputError, match="no series in layout labelled"):
        find(tmp_path, "labelled")
