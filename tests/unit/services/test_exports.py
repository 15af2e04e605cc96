"""The import wizard on exports as other programs write them: it reads them right, or says what to do."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.loader import load_config
from pipeline.config.schema import Stream
from pipeline.config.template import config_text
from pipeline.core.errors import InputError
from pipeline.decode import Columns, make_decoder
from pipeline.engine.warm_start import read_all
from pipeline.services.config_wizard import import_file
from pipeline.sources import make_source

BEGIN = datetime(2026, 3, 14, tzinfo=UTC)
ROWS = 40


def at(row: int, step: int = 60) -> datetime:
    return BEGIN + timedelta(seconds=step * row)


def iso(row: int) -> str:
    return at(row).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch(row: int, step: int = 60) -> int:
    return int(at(row, step).timestamp())


def value(row: int) -> float:
    return round(20 + 3 * math.sin(row / 5), 2)


def lines(row: Callable[[int], Any], rows: Sequence[int] = range(ROWS)) -> str:
    return "".join(f"{one if isinstance(one := row(i), str) else json.dumps(one)}\n" for i in rows)


def table(header: str, row: Callable[[int], str]) -> str:
    return f"{header}\n{lines(row)}"


def day(row: int) -> datetime:
    return BEGIN + timedelta(days=row)


HOSTILE = ['"a,b"', '"=cmd()"', '"x""y"', "läng"]
#: Name → file, content, series, values and step between the points of a series.
READ: dict[str, tuple[str, str | bytes, set[str], set[str], int]] = {
    "prometheus query_range": (
        "range.json",
        json.dumps(
            {
                "status": "success",
                "data": {
                    "resultType": "matrix",
                    "result": [
                        {
                            "metric": {"__name__": "up", "instance": f"h{k}:9100"},
                            "values": [[epoch(i) + 0.5, str(value(i))] for i in range(ROWS)],
                        }
                        for k in range(2)
                    ],
                },
            }
        ),
        {"h0:9100", "h1:9100"},
        {"1"},
        60,
    ),
    "zabbix history.get": (
        "zabbix.json",
        json.dumps(
            {
                "jsonrpc": "2.0",
                "result": [
                    {"itemid": f"2366{i % 2}", "clock": str(epoch(i)), "value": str(value(i)), "ns": str(i)}
                    for i in range(ROWS)
                ],
            }
        ),
        {"23660", "23661"},
        {"value"},
        120,
    ),
    "zabbix real-time export": (
        "history-0.ndjson",
        lines(
            lambda i: {
                "host": {"host": "b", "name": "B"},
                "item_tags": [{"tag": "foo", "value": "test"}],
                "itemid": 3,
                "name": "Load",
                "clock": epoch(i),
                "ns": 190303067,
                "value": value(i),
            }
        ),
        {"b\0B\x003\0Load"},
        {"value"},
        60,
    ),
    "cloudwatch statistics, in no order": (
        "cw.json",
        json.dumps(
            {
                "Label": "CPUUtilization",
                "Datapoints": [
                    {"Timestamp": at(i).isoformat(), "Average": value(i), "Unit": "Percent"}
                    for i in [*range(0, ROWS, 2), *range(1, ROWS, 2)]
                ],
            },
            indent=2,
        ),
        {"CPUUtilization"},
        {"Average"},
        60,
    ),
    "opc ua with a quality": (
        "opc.csv",
        table(
            "NodeId;SourceTimestamp;Value;StatusCode",
            lambda i: f"Line1.Temp;{at(i):%Y-%m-%d %H:%M:%S.000};{value(i)};{'Bad' if i == 7 else 'Good'}",
        ),
        {"Line1.Temp"},
        {"Value"},
        60,
    ),
    "kepware": (
        "kep.jsonl",
        lines(
            lambda i: {
                "timestamp": epoch(i) * 1000,
                "values": [
                    {"id": f"Ch.Tag{k}", "v": value(i), "q": True, "t": epoch(i) * 1000} for k in (0, 1)
                ],
            }
        ),
        {"Ch.Tag0", "Ch.Tag1"},
        {"v"},
        60,
    ),
    "pi with digital states": (
        "pi.csv",
        table(
            "Tag,Timestamp,Value",
            lambda i: f"SINUSOID,{at(i):%d-%b-%y %H:%M:%S},{value(i) if i % 9 else 'I/O Timeout'}",
        ),
        {"SINUSOID"},
        {"Value"},
        60,
    ),
    "bloomberg": (
        "bbg.csv",
        "Security,AAPL US Equity\nStart Date,01/02/2026\n\n"
        + table(
            "Date,PX_LAST,PX_VOLUME",
            lambda i: f"{day(i):%m/%d/%Y},{value(i)},{'#N/A N/A' if i % 10 == 3 else 1000 + i}",
        ),
        {"bbg"},
        {"PX_LAST", "PX_VOLUME"},
        86_400,
    ),
    "metatrader 5": (
        "EURUSD.csv",
        table(
            "<DATE>\t<TIME>\t<OPEN>\t<CLOSE>",
            lambda i: f"{at(i):%Y.%m.%d}\t{at(i):%H:%M:%S}\t1.1{i:03}\t1.1{i:03}",
        ),
        {"EURUSD"},
        {"<OPEN>", "<CLOSE>"},
        60,
    ),
    "stooq": (
        "aapl.txt",
        table(
            "<TICKER>,<DATE>,<TIME>,<CLOSE>,<OPENINT>",
            lambda i: f"AAPL.US,{at(i, 300):%Y%m%d},{at(i, 300):%H%M%S},{value(i)},0",
        ),
        {"AAPL.US"},
        {"<CLOSE>"},
        300,
    ),
    "prices in dollars, newest first": (
        "nasdaq.csv",
        table("Date,Close/Last,Volume", lambda i: f"{day(-i):%m/%d/%Y},${100 + value(i)},{1000 + i}"),
        {"nasdaq"},
        {"Close/Last", "Volume"},
        86_400,
    ),
    "home assistant": (
        "history.csv",
        table(
            "entity_id,state,last_changed",
            lambda i: f"sensor.t{i % 2},{value(i) if i % 11 else 'unavailable'},{iso(i)}",
        ),
        {"sensor.t0", "sensor.t1"},
        {"state"},
        120,
    ),
    "home assistant events": (
        "ha.jsonl",
        lines(
            lambda i: {
                "event_type": "state_changed",
                "data": {
                    "entity_id": "sensor.power",
                    "old_state": {"state": str(value(i - 1)), "last_changed": iso(i - 1)},
                    "new_state": {"state": str(value(i)) if i % 13 else "unknown", "last_changed": iso(i)},
                },
            }
        ),
        {"sensor.power"},
        {"state"},
        60,
    ),
    "the things network": (
        "ttn.jsonl",
        lines(
            lambda i: {
                "end_device_ids": {"device_id": f"eui-{i % 2}"},
                "received_at": iso(i),
                "uplink_message": {
                    "f_port": 1,
                    "f_cnt": i,
                    "decoded_payload": {"temperature": value(i)},
                    "rx_metadata": [
                        {"gateway_ids": {"gateway_id": "g"}, "time": iso(i), "rssi": -40 - i % 3}
                    ],
                },
            }
        ),
        {"eui-0", "eui-1"},
        {"temperature"},
        120,
    ),
    "chirpstack": (
        "cs.jsonl",
        lines(
            lambda i: {
                "deduplicationId": f"{i}-x",
                "time": at(i).isoformat(),
                "deviceInfo": {"devEui": f"010{i % 2}"},
                "fCnt": i,
                "object": {"temp": value(i)},
                "rxInfo": [{"gatewayId": "g", "rssi": -48}],
            }
        ),
        {"0100", "0101"},
        {"temp"},
        120,
    ),
    "tasmota": (
        "tas.jsonl",
        lines(
            lambda i: {
                "Time": at(i).strftime("%Y-%m-%dT%H:%M:%S"),
                "ENERGY": {"TotalStartTime": "2019-10-09T07:55:07", "Power": value(i)},
            }
        ),
        {"tas"},
        {"Power"},
        60,
    ),
    "debezium": (
        "dbz.jsonl",
        lines(
            lambda i: {
                "before": None,
                "after": {"id": i, "sensor": f"s{i % 2}", "temp": value(i), "created_at": epoch(i) * 10**6},
                "source": {"name": "srv", "ts_ms": epoch(i) * 1000, "lsn": 1000 + i},
                "op": "c",
                "ts_ms": epoch(i) * 1000 + 120,
            }
        ),
        {"s0", "s1"},
        {"temp"},
        120,
    ),
    "elasticsearch hits": (
        "es.json",
        json.dumps(
            {
                "took": 5,
                "hits": {
                    "total": {"value": ROWS},
                    "hits": [
                        {
                            "_id": str(i),
                            "_source": {
                                "@timestamp": iso(i),
                                "host": {"name": f"h{i % 2}"},
                                "load": value(i),
                            },
                        }
                        for i in range(ROWS)
                    ],
                },
            }
        ),
        {"h0", "h1"},
        {"load"},
        120,
    ),
    "graphite render": (
        "gr.json",
        json.dumps(
            [
                {
                    "target": f"h{k}.load",
                    "datapoints": [[value(i) if i % 7 else None, epoch(i)] for i in range(ROWS)],
                }
                for k in range(2)
            ]
        ),
        {"h0.load", "h1.load"},
        {"0"},
        60,
    ),
    "line protocol": (
        "cpu.lp",
        lines(lambda i: f"cpu,host=h{i % 2} usage_idle={value(i)} {epoch(i)}000000000"),
        {"cpu\0h0", "cpu\0h1"},
        {"usage_idle"},
        120,
    ),
    "json lines, newest first": (
        "newest.jsonl",
        lines(lambda i: {"id": "a", "t": epoch(ROWS - i), "v": value(i)}),
        {"a"},
        {"v"},
        60,
    ),
    "grafana in thousands": (
        "grafana.csv",
        b"\xef\xbb\xbf"
        + table('sep=,\n"Time","requests"', lambda i: f"{epoch(i) * 1000},{value(i)} K").encode(),
        {"grafana"},
        {"requests"},
        60,
    ),
    "spreadsheet days": (
        "xl.csv",
        table("when,temp", lambda i: f"{46095 + i / 24:.8f},{value(i)}"),
        {"xl"},
        {"temp"},
        3600,
    ),
    "dotnet ticks": (
        "ticks.csv",
        table("Ticks,Value", lambda i: f"{(epoch(i) + 62135596800) * 10**7},{value(i)}"),
        {"ticks"},
        {"Value"},
        60,
    ),
    "windows filetime": (
        "ft.csv",
        table("time,value", lambda i: f"{(epoch(i) + 11644473600) * 10**7},{value(i)}"),
        {"ft"},
        {"value"},
        60,
    ),
    "microsoft json dates": (
        "dj.jsonl",
        lines(lambda i: {"id": "a", "at": f"/Date({epoch(i)}000)/", "v": value(i)}),
        {"a"},
        {"v"},
        60,
    ),
    "weather service with an hour": (
        "dwd.csv",
        table(
            "STATIONS_ID;MESS_DATUM;QN_9;TT_TU;eor",
            lambda i: f"433;{at(i, 3600):%Y%m%d%H};    3;{value(i) if i % 8 else -999:6};eor",
        ),
        {"433"},
        {"TT_TU"},
        3600,
    ),
    "zone abbreviation": (
        "tz.csv",
        table("time,v", lambda i: f"{at(i + 60):%Y-%m-%d %H:%M:%S} CET,{value(i)}"),
        {"tz"},
        {"v"},
        60,
    ),
    "year of two digits": (
        "y.csv",
        table("time;v", lambda i: f"{at(i):%d.%m.%y %H:%M};{value(i)}"),
        {"y"},
        {"v"},
        60,
    ),
    "hostile labels": (
        "hostile.csv",
        table("time,sensor,v", lambda i: f"{iso(i)},{HOSTILE[i % 4]},{value(i)}"),
        {"a,b", "=cmd()", 'x"y', "läng"},
        {"v"},
        240,
    ),
}


def columns_of(stream: dict[str, Any]) -> Columns:
    """Return all points that a stream reads from its file."""
    config = Stream.model_validate(stream)
    source = make_source("s", config.source, config.format)
    decoder = make_decoder("s", config)
    try:
        records = [one for part in read_all(source, 10_000) for one in part]
    finally:
        source.close()
    parts = [decoder.decode(one) for one in records]
    assert [dead for part in parts for dead in part.dead] == []
    columns = parts[0].columns
    for part in parts[1:]:
        columns = columns.append(part.columns)
    return columns


@pytest.mark.parametrize("export", READ)
def test_an_export_is_read_right(tmp_path: Path, export: str) -> None:
    name, content, series, values, step = READ[export]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = import_file(path, {})
    assert found.guess.questions == {}
    wanted = found.guess.form["values"]
    assert {
        one.rpartition(".")[2] for one in (wanted.values() if isinstance(wanted, dict) else wanted)
    } == values
    columns = columns_of(found.stream)
    assert set(columns.keys.flat()) == series
    assert len(columns) in (ROWS, 2 * ROWS)
    for one in series:
        own = columns.time[[key == one for key in columns.keys.flat()]]
        steps = np.diff(own) / 1e9
        np.testing.assert_allclose(steps, step, atol=1e-3, err_msg=one)
        assert abs(own[0] / 1e9 - BEGIN.timestamp()) < 50 * 86_400
    (tmp_path / "f.yaml").write_text(config_text({"s": found.stream}))
    load_config(tmp_path / "f.yaml")


def maxwell(row: int) -> dict[str, Any]:
    kind = "insert" if row % 5 else "delete"
    data = {"id": row, "sensor": f"s{row % 2}", "temp": value(row)}
    return {"database": "d", "table": "t", "type": kind, "ts": epoch(row), "xid": row, "data": data}


def test_deleted_rows_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(lines(maxwell))
    form = import_file(tmp_path / "m.jsonl", {}).guess.form
    assert form == {
        "where": {"type": {"not": "delete"}},
        "time": "ts",
        "series": ["data.sensor"],
        "values": {"temp": "data.temp"},
    }


#: Name → file, content, part of the message or of the question.
REFUSED: dict[str, tuple[str, str, str]] = {
    "arrays without times": (
        "om.json",
        json.dumps({"hourly": {"t": [value(i) for i in range(ROWS)]}}),
        "one of them holds times",
    ),
    "graphite lines": ("g.txt", lines(lambda i: f"a.load {value(i)} {epoch(i)}"), "have one column"),
    "log without times": ("s.log", lines(lambda i: f"[{i}.5] usb device is new"), "no date with a time"),
    "exposition": ("m.prom", "# TYPE a gauge\na 1\n", "name must end in"),
    "json in a csv": ("j.csv", lines(lambda i: {"t": epoch(i), "v": value(i)}), "name it .json"),
    "no header": (
        "mt4.csv",
        lines(lambda i: f"{at(i):%Y.%m.%d,%H:%M},1.1{i:03},{i}"),
        "add a line with their names",
    ),
    "no number": (
        "n.jsonl",
        lines(lambda i: {"@timestamp": iso(i), "message": f"m{i}"}),
        "for log lines --set text=FIELD",
    ),
    "no time": ("z.jsonl", lines(lambda i: {"temperature": value(i)}), "no field holds times"),
}


@pytest.mark.parametrize("export", REFUSED)
def test_an_export_that_is_not_read_says_why(tmp_path: Path, export: str) -> None:
    name, content, part = REFUSED[export]
    (tmp_path / name).write_text(content)
    assert part in answer_to(tmp_path / name)


def answer_to(path: Path) -> str:
    try:
        return str(import_file(path, {}).guess.questions)
    except InputError as error:
        return str(error)


def test_an_answer_takes_its_field_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table("when,zone,v", lambda i: f"{iso(i)},z{i % 2},{value(i)}"))
    form = import_file(tmp_path / "a.csv", {"series": "zone", "time": "when", "values": "v"}).guess.form
    assert form == {"time": "when", "series": ["zone"], "values": ["v"]}


@pytest.mark.parametrize("key", ["code", "text"])
def test_events_are_named_by_their_field(tmp_path: Path, key: str) -> None:
    content = lines(lambda i: {"ts": iso(i), "host": f"web-{i % 2}", "message": f"user {i % 9} logs in"})
    (tmp_path / "log.jsonl").write_text(content)
    found = import_file(tmp_path / "log.jsonl", {key: "message"})
    assert found.guess.form == {"time": "ts", "series": ["host"], key: "message"}
    assert found.guess.questions == {}
    assert found.probe is not None
    assert found.probe.decoded == found.probe.read > 0
    assert "events: {idle: 10m}" in found.advice[0]


LOGS: dict[str, tuple[str, str, str, str]] = {
    "syslog": (
        "s.log",
        lines(lambda i: f"<34>1 {iso(i)} host app - - - user {i} in"),
        "log_lines",
        "message",
    ),
    "text with stack traces": (
        "app.txt",
        lines(lambda i: f"{at(i):%Y-%m-%d %H:%M:%S},123 ERROR it failed: {i}\n\tat a.B(C.java:{i})"),
        "log_lines",
        "message",
    ),
    "json": (
        "app.log",
        lines(lambda i: {"ts": iso(i), "level": "info", "pid": 12 + i % 3, "msg": f"user {i % 9} is in"}),
        "json",
        "msg",
    ),
    "json lines": (
        "app.jsonl",
        lines(lambda i: {"@timestamp": iso(i), "message": f"job {i % 7} is done"}),
        "json",
        "message",
    ),
}


@pytest.mark.parametrize("log", LOGS)
def test_log_lines_are_recognised(tmp_path: Path, log: str) -> None:
    name, content, kind, field = LOGS[log]
    (tmp_path / name).write_text(content)
    found = import_file(tmp_path / name, {})
    assert found.guess.questions == {}
    assert found.guess.form["text"] == field
    assert found.guess.form["series"] == []
    assert list(found.stream["format"]) == [kind]
    assert found.probe is not None
    assert found.probe.decoded > 0
    assert found.probe.refused == {}
    assert "until there is a model" in found.advice[1]


def test_a_log_without_the_year_takes_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(lines(lambda i: f"Jun 14 15:16:{i % 60:02} host sshd[{i}]: check pass"))
    os.utime(tmp_path / "a.log", (1_150_000_000, 1_150_000_000))
    found = import_file(tmp_path / "a.log", {})
    assert found.guess.form["year"] == 2006
    assert "last change of the file" in found.guess.why["year"][1]


def test_measurements_beside_a_remark_stay_measurements(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(
        lines(lambda i: {"ts": iso(i), "temp": value(i), "message": f"note of shift {i}"})
    )
    assert import_file(tmp_path / "m.jsonl", {}).guess.form["values"] == ["temp"]
    (tmp_path / "n.jsonl").write_text(lines(lambda i: {"ts": iso(i), "n": i, "message": f"part {i} is done"}))
    assert import_file(tmp_path / "n.jsonl", {"values": "n"}).guess.form["values"] == ["n"]


def test_names_that_yaml_reads_otherwise_are_quoted(tmp_path: Path) -> None:
    names = ["@timestamp", "yes", "12", "a: b", "*x", "%", "true", "a #b", "1e5"]
    stream = {
        "source": {"files": {"paths": ["a.jsonl"]}},
        "format": {
            "json": {"series": names[2:4], "time": names[0], "values": {"on": names[5], "v": names[8]}}
        },
    }
    (tmp_path / "f.yaml").write_text(config_text({"s": stream}))
    form = load_config(tmp_path / "f.yaml").streams["s"].format.chosen
    assert (form.time, form.series, form.values) == ("@timestamp", ["12", "a: b"], {"on": "%", "v": "1e5"})
