"""The import wizard guesses right or asks, on cases of users and on inputs of the same kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.loader import load_config
from pipeline.core.errors import InputError
from pipeline.services.config_guess import Guess, guess_stream
from pipeline.services.config_wizard import import_file, import_topic
from pipeline.services.sample_rows import samples_of_file, samples_of_records

CASES = Path(__file__).parents[3] / ".." / "shared" / "cases"
T = 1_764_028_800
KTV = {"series": ["k"], "time": "t", "values": ["v"]}
#: Case → keys of the format that are right.
RIGHT: dict[str, dict[str, Any]] = {
    "check-connect-delimiter/input.csv": {**KTV, "delimiter": ";"},
    "compact-date/input.csv": {**KTV, "time": "d"},
    "cp1252/input.csv": {**KTV, "encoding": "cp1252", "values": ["Temp °C"]},
    "date-and-time-columns/input.csv": {**KTV, "time": ["Date", "Time"]},
    "day-month-year/input.csv": {**KTV, "delimiter": ";"},
    "debezium-delete/records.jsonl": {
        "series": ["payload.after.id"],
        "time": "payload.after.at",
        "values": {"temp": "payload.after.temp"},
    },
    "decimal-comma/input.csv": {**KTV, "delimiter": ";", "decimal": ","},
    "hour-24-and-utc/input.csv": KTV,
    "hour-24-and-utc/utc.csv": KTV,
    "lines-in-a-record/records.jsonl": {
        "series": ["metric_name", "dimensions.InstanceId"],
        "time": "timestamp",
        "values": {name: f"value.{name}" for name in ("count", "sum", "max", "min")},
    },
    "newest-first/input.csv": KTV,
    "nothing-decoded/input.csv": {**KTV, "time": "when"},
    "one-bad-sample/records.jsonl": {
        "samples": "m",
        "series": ["dev", "n"],
        "time": "t",
        "values": ["v"],
    },
    "optional-label/records.jsonl": {**KTV, "series": ["cluster", "ns"], "optional": ["ns"]},
    "preamble/input.csv": {**KTV, "comment": "#"},
    "quoted-numbers/records.jsonl": {
        "series": ["name", "labels.instance"],
        "time": "timestamp",
        "values": ["value"],
    },
    "record-timestamp/records.jsonl": {"series": ["dev"], "time": "$timestamp", "values": ["v"]},
    "sentinel/input.csv": {**KTV, "missing": [-9999]},
    "single-series-file/boiler.csv": {"time": "timestamp", "values": ["value"]},
    "sparse-counts/input.csv": KTV,
    "top-level-array/records.jsonl": {"series": ["sym"], "time": "t", "values": ["p", "s"]},
    "zero-price/input.csv": KTV,
}


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here")
@pytest.mark.parametrize("case", RIGHT)
def test_cases_of_users(case: str) -> None:
    path = CASES / case
    found = guess_stream(samples_of_file(path), stamped=path.suffix == ".jsonl")
    assert (found.form, found.questions) == (RIGHT[case], {})


def table(tmp_path: Path, text: str, name: str = "data.csv") -> Guess:
    (tmp_path / name).write_text(text)
    return guess_stream(samples_of_file(tmp_path / name), stamped=False)


def test_a_date_that_may_be_day_or_month_first_is_asked(tmp_path: Path) -> None:
    rows = "".join(f"03/04/2026 10:{i:02}:00,{i}\n" for i in range(20))
    found = table(tmp_path, "when,temp\n" + rows)
    question, options = found.questions["time_format"]
    assert "day or month first" in question
    assert options == ["%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S"]
    with_13 = table(tmp_path, "when,temp\n" + rows + "13/04/2026 10:00:00,1\n")
    assert with_13.questions == {}


def test_a_value_whose_name_ends_like_an_id_is_a_value(tmp_path: Path) -> None:
    rows = "".join(f"2026-03-01T00:{i:02}:00Z,{i % 2},{40 + i % 3},{i}\n" for i in range(30))
    found = table(tmp_path, "time,unit_id,humid,temp\n" + rows)
    assert (found.form["series"], found.form["values"]) == (["unit_id"], ["humid", "temp"])


def test_units_missing_texts_and_counters(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        "time,host,temp,bytes_total\n"
        + "".join(f"2026-03-01T00:{i:02}:00Z,h{i % 2},{20 + i} °C,{1000 * i}\n" for i in range(30)),
    )
    assert (found.form["units"], found.form["values"]) == (["°C"], ["temp", "bytes_total"])
    assert found.stream["counters"] == ["bytes_total"]
    odd = table(
        tmp_path,
        "time,v\n" + "".join(f"2026-03-01T00:{i:02}:00Z,{'Bad' if i % 9 == 4 else i}\n" for i in range(30)),
    )
    assert odd.form["missing"] == ["Bad"]


def test_lines_above_the_header_and_units_below_it(tmp_path: Path) -> None:
    rows = "".join(f"2026-03-01 00:{i:02};{i},5;{i}\n" for i in range(20))
    found = table(tmp_path, "Logger 7\nExport\ntime;temp;hum\n-;°C;%\n" + rows)
    assert {k: found.form[k] for k in ("skip", "skip_after_header", "delimiter", "decimal")} == {
        "skip": 2,
        "skip_after_header": 1,
        "delimiter": ";",
        "decimal": ",",
    }


def test_prices_of_a_columnar_file(tmp_path: Path) -> None:
    columns = {
        "symbol": ["A", "B"] * 5,
        "date": [f"2026-03-{d:02}" for d in range(1, 11)],
        "close": [1.5] * 10,
    }
    pq.write_table(pa.table(columns), tmp_path / "bars.parquet")
    found = import_file(tmp_path / "bars.parquet", {})
    assert (found.stream["preset"], found.guess.form["series"]) == ("stock", ["symbol"])
    assert found.probe is not None
    assert found.probe.decoded == 10


def mixed() -> list[bytes]:
    rows = [{"name": "cpu", "t": T + i, "idle": i} for i in range(9)]
    rows += [{"name": "mem", "t": T + i, "used": i} for i in range(9)]
    return [json.dumps(row).encode() for row in rows]


def test_several_kinds_in_a_topic_are_asked(tmp_path: Path) -> None:
    found = guess_stream(samples_of_records(mixed(), "x"), stamped=True)
    assert found.questions["where"][1] == ["name=cpu", "name=mem"]
    (tmp_path / "m.jsonl").write_bytes(b"\n".join(mixed()))
    answered = import_file(tmp_path / "m.jsonl", {"where": "name=cpu"})
    assert answered.guess.form["values"] == ["idle"]
    assert answered.probe is not None
    assert answered.probe.decoded == 9


@pytest.mark.parametrize("text", ["", "a,b\n", "1,2\n3,4\n", "no table at all"])
def test_what_is_no_data(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError):
        import_file(tmp_path / "x.csv", {"values": "b"})


def test_the_command_writes_a_config_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"03/04/2026 10:{i:02}:00;{i},5\n" for i in range(20))
    (tmp_path / "boiler 1.csv").write_text("when;temp\n" + rows)
    asked = CliRunner().invoke(app, ["init", "f.yaml", "--from", "boiler 1.csv"])
    assert isinstance(asked.exception, InputError)
    assert "--set time_format=" in str(asked.exception)
    assert not Path("f.yaml").exists()
    answer = ["--set", "time_format=%d/%m/%Y %H:%M:%S"]
    done = CliRunner().invoke(app, ["init", "f.yaml", "--from", "boiler 1.csv", *answer])
    assert done.exit_code == 0, done.output
    form = load_config(Path("f.yaml")).streams["boiler-1"].format.chosen
    assert (form.time_format, form.decimal, form.delimiter) == ("%d/%m/%Y %H:%M:%S", ",", ";")  # type: ignore[union-attr]


@pytest.mark.kafka
def test_a_topic(topics: Any) -> None:
    topic = topics.create(1)
    topics.produce(topic, mixed()[:9])
    found = import_topic(topics.broker, topic, {})
    assert found.guess.form["values"] == ["idle"]
    assert found.probe is not None
    assert found.probe.decoded == 9


KEYED = {
    "key of text": (lambda i: b"d%d" % (i % 3), ["$key"]),
    "key of JSON": (lambda i: b'{"site": "n", "dev": %d}' % (i % 3), ["$key.site", "$key.dev"]),
    "another key each": (lambda i: b"%d" % i, []),
    "no key": (lambda i: None, []),
}


@pytest.mark.kafka
@pytest.mark.parametrize("kind", KEYED)
def test_keys_of_records_name_the_series_if_no_field_does(topics: Any, kind: str) -> None:
    key, series = KEYED[kind]
    topic = topics.create(1)
    topics.produce(topic, [b'{"t": %d, "v": %d}' % (1_764_028_800 + i, i) for i in range(30)], key=key)
    found = import_topic(topics.broker, topic, {})
    assert found.guess.form.get("series", []) == series
    assert found.probe is not None
    assert (found.probe.decoded, found.probe.read) == (30, 30)


@pytest.mark.kafka
def test_a_topic_of_bare_numbers_and_one_of_line_protocol(topics: Any) -> None:
    bare, lines, words = topics.create(1), topics.create(1), topics.create(1)
    topics.produce(bare, [b"2%d.5" % (i % 9) for i in range(20)], key=lambda i: b"boiler")
    found = import_topic(topics.broker, bare, {})
    assert found.guess.form == {"time": "$timestamp", "series": ["$key"], "values": {"value": "$value"}}
    assert found.probe is not None
    assert found.probe.decoded == 20
    topics.produce(
        lines, [b"cpu,host=h%d idle=%d %d000000000" % (i % 2, i, 1_764_028_800 + i) for i in range(20)]
    )
    found = import_topic(topics.broker, lines, {})
    assert list(found.stream["format"]) == ["line_protocol"]
    assert found.probe is not None
    assert found.probe.decoded == 20
    topics.produce(words, [b"a;b"])
    with pytest.raises(InputError, match="neither JSON nor line protocol"):
        import_topic(topics.broker, words, {})
