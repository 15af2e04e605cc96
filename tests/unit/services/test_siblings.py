"""The import wizard on further shapes, spellings and files of the kinds that users reported.

The inputs are invented after the exports of programs that are named. Each is read right without an answer.
"""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.loader import load_config
from pipeline.config.schema import Stream
from pipeline.config.template import config_text
from pipeline.core.errors import InputError
from pipeline.decode import make_decoder
from pipeline.engine.warm_start import read_all
from pipeline.services.config_wizard import import_file
from pipeline.sources import make_source
from tests.unit.services.test_exports import BEGIN, ROWS, at, epoch, iso, value

MEAN = 20.391


class Sibling(NamedTuple):
    """File with its series, the step between their points, and the mean of one of the values."""

    file: str
    content: str | bytes
    series: int = 1
    step: int = 60
    mean: float | None = MEAN
    points: int = ROWS


def values(scale: float = 1.0) -> list[float]:
    return [value(row) * scale for row in range(ROWS)]


def lines(row: Callable[[int], Any], rows: int = ROWS) -> str:
    return "".join(f"{one if isinstance(one := row(i), str) else json.dumps(one)}\n" for i in range(rows))


def table(header: str, row: Callable[[int], str], rows: int = ROWS) -> str:
    return f"{header}\n{lines(row, rows)}"


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


def parquet(columns: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()


def annotated(field: str, first: int) -> str:
    """Return a table of InfluxDB's annotated CSV."""
    rows = "".join(
        f",,{first + k},{iso(0)},{iso(ROWS)},{iso(i)},{value(i)},{field},cpu,h{k}\r\n"
        for k in (0, 1)
        for i in range(ROWS)
    )
    return (
        "#group,false,false,true,true,false,false,true,true,true\r\n#default,_result,,,,,,,,\r\n"
        f",result,table,_start,_stop,_time,_value,_field,_measurement,host\r\n{rows}\r\n"
    )


SHAPES = {
    "CloudWatch GetMetricData": Sibling(
        "cw.json",
        json.dumps(
            {
                "MetricDataResults": [
                    {"Id": f"m{k}", "Timestamps": [iso(i) for i in range(ROWS)], "Values": values()}
                    for k in (0, 1)
                ]
            }
        ),
        series=2,
        points=2 * ROWS,
    ),
    "Open-Meteo": Sibling(
        "om.json",
        json.dumps(
            {"latitude": 52.5, "hourly": {"time": [iso(i) for i in range(ROWS)], "temperature_2m": values()}}
        ),
    ),
    "chart of Yahoo": Sibling(
        "yahoo.json",
        json.dumps(
            {
                "chart": {
                    "result": [
                        {
                            "meta": {"symbol": "AAPL", "regularMarketPrice": 101.5},
                            "timestamp": [epoch(i) for i in range(ROWS)],
                            "indicators": {"quote": [{"close": values(), "volume": [*range(ROWS)]}]},
                        }
                    ]
                }
            }
        ),
    ),
    "arrays of some readings": Sibling(
        "batch.jsonl",
        lines(
            lambda i: {
                "dev": f"d{i % 2}",
                "t": [epoch(3 * (i // 2) + j) for j in range(3)],
                "v": [value(i)] * 3,
            }
        ),
        series=2,
        points=3 * ROWS,
    ),
    "an object by time (Alpha Vantage)": Sibling(
        "av.json",
        json.dumps(
            {
                "Meta Data": {"2. Symbol": "IBM"},
                "Time Series (1min)": {
                    f"{at(-i):%Y-%m-%d %H:%M:%S}": {"1. open": str(value(i)), "5. volume": str(i)}
                    for i in range(ROWS)
                },
            }
        ),
    ),
    "an array for each name (ThingsBoard)": Sibling(
        "tb.json",
        json.dumps(
            {
                name: [{"ts": epoch(i) * 1000, "value": str(value(i))} for i in range(ROWS)]
                for name in ("temperature", "humidity")
            }
        ),
        series=2,
        points=2 * ROWS,
    ),
    "an array of arrays": Sibling(
        "klines.json", json.dumps([[epoch(i) * 1000, str(value(i)), "1.5"] for i in range(ROWS)])
    ),
    "bulk requests of Elasticsearch": Sibling(
        "bulk.ndjson",
        lines(
            lambda i: (
                '{"index": {"_index": "m"}}\n'
                + json.dumps({"@timestamp": iso(i), "host": f"h{i % 2}", "load": value(i)})
            )
        ),
        series=2,
        step=120,
    ),
    "JSON in base64 (Kinesis)": Sibling(
        "kinesis.jsonl",
        lines(
            lambda i: {
                "partitionKey": "k",
                "data": b64encode(
                    json.dumps({"dev": f"d{i % 2}", "ts": iso(i), "v": value(i)}).encode()
                ).decode(),
            }
        ),
        series=2,
        step=120,
    ),
    "a null parent of the value": Sibling(
        "null.jsonl",
        lines(lambda i: {"id": "a", "t": iso(i), "reading": {"v": value(i)} if i % 5 else None}),
        mean=20.4371875,
    ),
}
NUMBERS = {
    "1.234,50 €": (lambda i: f"{german(1000 * value(i))} €", 1000 * MEAN),
    "1 234,50 with narrow spaces": (lambda i: german(1000 * value(i)).replace(".", "\u202f"), 1000 * MEAN),
    "1’234.50": (lambda i: f"{1000 * value(i):,.2f}".replace(",", "’"), 1000 * MEAN),
    "1,23,456.70": (lambda i: f"1,{20 + i % 10},{456 + i}.70", 124976.2),
    "(12.50)": (lambda i: f"({value(i)})", -MEAN),
    "12.50-": (lambda i: f"{value(i)}-", -MEAN),
    "−12.50": (lambda i: f"−{value(i)}", -MEAN),
    "2,05E+01": (lambda i: f"{value(i):.3E}".replace(".", ","), MEAN),
    "20.1*": (lambda i: f"{value(i)}{'*' if i % 6 == 0 else ''}", MEAN),
    "0020.10": (lambda i: f"{value(i):07.2f}", MEAN),
    "kW and MW": (lambda i: f"{value(i)} kW" if i % 4 else f"{value(i) / 1000:.5f} MW", 1000 * MEAN),
    "#DIV/0!": (lambda i: "#WERT!" if i == 4 else str(value(i)), None),
    "(null) and \\N": (lambda i: ["(null)", "\\N"][i % 2] if i < 4 else str(value(i)), None),
    "32767": (lambda i: "32767" if i in (3, 9) else str(value(i)), 20.29026),
}
FILES = {
    "annotated CSV of InfluxDB": Sibling(
        "flux.csv", annotated("idle", 0) + annotated("user", 2), 4, points=4 * ROWS
    ),
    "joined files": Sibling(
        "rep.csv", table("t,v", lambda i: f"{iso(i)},{value(i)}" + ("\nt,v" if i % 10 == 9 else ""))
    ),
    "delimiter at the end of rows": Sibling("end.csv", table("t;v", lambda i: f"{iso(i)};{value(i)};")),
    "UTF-16 without a mark": Sibling(
        "u.csv", table("t;v", lambda i: f"{iso(i)};{value(i)}").encode("utf-16-le")
    ),
    "carriage returns": Sibling(
        "mac.csv", table("t,v", lambda i: f"{iso(i)},{value(i)}").replace("\n", "\r")
    ),
    "header in a comment": Sibling(
        "hash.csv", "# made by x\n" + table("# t,s,v", lambda i: f"{iso(i)},s{i % 2},{value(i)}"), 2, 120
    ),
    "TOA5 of Campbell": Sibling(
        "toa5.txt",
        '"TOA5","CR1000","CR1000","1234"\n"TIMESTAMP","RECORD","AirTC"\n"TS","RN","Deg C"\n"","","Avg"\n'
        + lines(lambda i: f'"{at(i):%Y-%m-%d %H:%M:%S}",{i},{value(i)}'),
    ),
    "two lines of names": Sibling(
        "two.csv",
        "Messstelle;;Kessel\nDatum;Uhrzeit;Temp [°C]\n"
        + lines(lambda i: f"{at(i):%d.%m.%Y;%H:%M:%S};{german(value(i))}"),
    ),
    "Parquet with nested columns": Sibling(
        "nested.parquet",
        parquet(
            {
                "ts": [at(i) for i in range(ROWS)],
                "meta": [{"site": "n", "sensor": f"s{i % 2}"} for i in range(ROWS)],
                "reading": [{"temp": value(i), "unit": "C"} for i in range(ROWS)],
            }
        ),
        2,
        120,
    ),
    "Parquet, newest first": Sibling(
        "newest.parquet", parquet({"ts": [at(-i) for i in range(ROWS)], "temp": values()})
    ),
    "year, month and day": Sibling(
        "ymd.csv", table("year,month,day,v", lambda i: f"{at(i, 86400):%Y,%m,%d},{value(i)}"), step=86400
    ),
    "date and hour 1 to 24": Sibling(
        "hour.csv",
        table("Datum;Stunde;v", lambda i: f"{at(i, 3600):%d.%m.%Y};{at(i, 3600).hour + 1};{value(i)}"),
        step=3600,
    ),
    "compact date and clock": Sibling(
        "clock.csv", table("date;time;v", lambda i: f"{at(i):%Y%m%d;%H%M};{value(i)}")
    ),
    "spreadsheet days with a comma": Sibling(
        "days.csv", table("t;v", lambda i: f"{46095 + i / 24:.8f};{value(i)}".replace(".", ",")), step=3600
    ),
    "registers": Sibling(
        "mb.csv", table("t,register,v", lambda i: f"{iso(i)},{40001 + i % 4},{value(i)}"), 4, 240
    ),
}
SIBLINGS = SHAPES | FILES
SIBLINGS |= {
    name: Sibling("n.csv", table("t;v", lambda i, f=f: f"{iso(i)};{f(i)}"), mean=mean)
    for name, (f, mean) in NUMBERS.items()
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_sibling_is_read_right(tmp_path: Path, name: str) -> None:
    check_sibling(tmp_path, SIBLINGS[name])


def check_sibling(tmp_path: Path, wanted: Sibling, answers: dict[str, str] | None = None) -> Stream:
    """Import a file, and compare its points; return the stream."""
    path = tmp_path / wanted.file
    path.write_bytes(wanted.content if isinstance(wanted.content, bytes) else wanted.content.encode())
    found = import_file(path, answers or {})
    assert found.guess.questions == {}
    (tmp_path / "f.yaml").write_text(config_text({"s": found.stream}))
    stream = load_config(tmp_path / "f.yaml").streams["s"]
    times, keys, numbers, dead = points_of(stream)
    assert dead == []
    assert (len(times), len(set(keys))) == (wanted.points, wanted.series)
    for key in set(keys):
        own = times[[one == key for one in keys]]
        np.testing.assert_allclose(np.diff(own) / 1e9, wanted.step, atol=1e-3)
        assert abs(own[0] / 1e9 - BEGIN.timestamp()) <= 86_400
    if wanted.mean is not None:
        assert np.isclose(np.nanmean(numbers, axis=0), wanted.mean, rtol=1e-4).any()
    return stream


def points_of(stream: Stream) -> tuple[Any, list[str], Any, list[str]]:
    """Return times, series and values of all points, and the reasons of dead letters."""
    source, decoder = make_source("s", stream.source, stream.format), make_decoder("s", stream)
    try:
        parts = [decoder.decode(one) for part in read_all(source, 10_000) for one in part]
    finally:
        source.close()
    keys = [key for part in parts for key in part.columns.keys.flat()]
    times = np.concatenate([part.columns.time for part in parts])
    numbers = np.concatenate([part.columns.values for part in parts])
    return times, keys, numbers, [letter.detail for part in parts for letter in part.dead]


#: Name → file, content, part of the message.
REFUSED = {
    "a spreadsheet": ("book.csv", b"PK\x03\x04" + bytes(99), "save the sheet as CSV"),
    "gzip by another name": ("a.csv", b"\x1f\x8b\x08" + bytes(99), "add .gz to its name"),
    "a database": ("a.csv", b"SQLite format 3\0" + bytes(99), "sqlite:///PATH"),
    "XML": ("a.csv", b"\xef\xbb\xbf<?xml version='1.0'?>\n<r/>\n", "it is XML"),
    "a page of an error": ("a.json", b"<!DOCTYPE html><html>502</html>", "fetch the data itself"),
    "a PDF": ("a.csv", b"%PDF-1.7\n", "it is a PDF"),
    "ORC": ("a.orc", b"ORC" + bytes(99), "it is ORC"),
    "Chinese": ("a.csv", table("时间,温度", lambda i: f"{iso(i)},{value(i)}").encode("gbk"), "encoding=NAME"),
    "Russian": (
        "a.csv",
        table("Время,Вес", lambda i: f"{iso(i)},{value(i)}").encode("cp1251"),
        "encoding=NAME",
    ),
    "hours as columns": (
        "a.csv",
        table(
            "Date," + ",".join(f"{h:02}:00" for h in range(24)),
            lambda i: f"{at(1440 * i):%Y-%m-%d}" + ",1" * 24,
        ).encode(),
        "a row is one point",
    ),
    "H1 to H24 as columns": (
        "a.csv",
        table(
            "Datum," + ",".join(f"H{h}" for h in range(1, 25)),
            lambda i: f"{at(1440 * i):%d.%m.%Y}" + ",1" * 24,
        ).encode(),
        "a row is one point",
    ),
    "minutes since 1970": (
        "minutes.csv",
        table("time,v", lambda i: f"{epoch(i) // 60},{value(i)}").encode(),
        "no field holds times",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_says_why(tmp_path: Path, name: str) -> None:
    file, content, part = REFUSED[name]
    (tmp_path / file).write_bytes(content)
    try:
        answer = str(import_file(tmp_path / file, {}).guess.questions)
    except InputError as error:
        answer = str(error)
    assert part in answer


def test_a_label_that_differs_in_every_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table("t,txn,v", lambda i: f"{iso(i)},tx-{i},{value(i)}"))
    found = import_file(tmp_path / "a.csv", {})
    assert "series" not in found.guess.form
    assert found.guess.why["no label"][0] == "txn"
