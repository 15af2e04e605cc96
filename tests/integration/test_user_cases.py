"""Failing inputs of real users, from ``../shared/cases``: each is read as its ``expected.md`` says.

The inputs are not part of the repository. Without the folder the tests are skipped. Our own inputs of the same
kinds are in ``tests/unit/decode/test_shapes.py`` and ``tests/integration/test_data_as_it_is.py``.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.config.schema import Config, Stream
from pipeline.decode import Decoded, make_decoder
from pipeline.observability.progress_bar import Progress
from pipeline.services.backfill import BackfillReport, run_backfill
from pipeline.services.preflight import probe_stream
from tests.support.decoding import records, stream
from tests.support.frames import anomalies_of

CASES = Path(__file__).parents[2] / ".." / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here")
pytestmark = needs_cases
K_T_V = {"series": "k", "time": "t", "values": ["v"]}


class Quiet(Progress):
    """Progress that is not shown."""

    def advance(self, count: int) -> None: ...
    def expect(self, total: int) -> None: ...


def lines(case: str) -> list[bytes]:
    return (CASES / case / "records.jsonl").read_bytes().splitlines()


def decode(form: dict[str, Any], values: list[bytes], **settings: Any) -> Decoded:
    return make_decoder("s", stream({"json": form})).decode(records(values, **settings))


def backfill(
    folder: Path, case: str, form: dict[str, Any], name: str = "input.csv", **keys: Any
) -> tuple[BackfillReport, list[dict[str, Any]]]:
    config = Config.model_validate(
        {
            "database": f"sqlite:///{folder}/{name}.db",
            "storage": {"history": False},
            "streams": {
                "s": {
                    "source": {"files": {"paths": [str(CASES / case / name)]}},
                    "format": {"csv": form},
                    "detector": "light",
                    **keys,
                }
            },
        }
    )
    scores = folder / f"{name}.parquet"
    report = run_backfill(config, "s", [CASES / case / name], None, None, scores, Quiet())
    return report, pq.read_table(scores).to_pylist() if scores.exists() else []


JSON_CASES = {
    # case: (format, points, dead letters that are kept, filtered)
    "lines-in-a-record": (
        {"series": "dimensions.InstanceId", "time": "timestamp", "values": {"sum": "value.sum"}},
        (120, 0, 0),
    ),
    "top-level-array": ({"series": "sym", "time": "t", "values": ["p"]}, (120, 0, 0)),
    "quoted-numbers": ({"series": "labels.instance", "time": "timestamp", "values": ["value"]}, (60, 0, 0)),
    "one-bad-sample": ({"series": ["dev", "n"], "time": "t", "values": ["v"], "samples": "m"}, (200, 100, 0)),
    "optional-label": (
        {"series": ["cluster", "ns"], "time": "t", "values": ["v"], "optional": ["ns"]},
        (120, 0, 0),
    ),
    "mixed-measurements": (
        {
            "series": "tags.host",
            "time": "timestamp",
            "values": {"idle": "fields.usage_idle"},
            "where": {"name": "cpu"},
        },
        (600, 0, 1200),
    ),
}


@pytest.mark.parametrize("case", JSON_CASES)
def test_records_of_json(case: str) -> None:
    form, expected = JSON_CASES[case]
    values: list[bytes] = lines(case)
    if case == "lines-in-a-record":
        values = [json.loads(value).encode() for value in values]
    columns, dead = decode(form, values)
    assert (len(columns), len(dead), columns.filtered) == expected


def test_deleted_rows_are_filtered() -> None:
    form = {
        "series": "payload.after.id",
        "time": "payload.after.at",
        "values": {"temp": "payload.after.temp"},
    }
    columns, dead = decode(form, lines("debezium-delete"))
    assert (len(columns), dead) == (80, [])


def test_a_bad_sample_is_the_dead_letter() -> None:
    form = {"series": ["dev", "n"], "time": "t", "values": ["v"], "samples": "m"}
    _, dead = decode(form, lines("one-bad-sample"))
    assert json.loads(dead[0].value or b"")["m"] == [{"n": "state", "t": 1764028800, "v": "RUN"}]


def test_three_series_with_an_optional_label() -> None:
    form = {"series": ["cluster", "ns"], "time": "t", "values": ["v"], "optional": ["ns"]}
    columns, _ = decode(form, lines("optional-label"))
    assert set(columns.keys.flat()) == {"c\0web", "c\0", "d\0"}


def test_a_prefix_of_a_schema_registry() -> None:
    values = [
        bytes.fromhex(line) for line in (CASES / "confluent-json-schema/records.hex").read_text().split()
    ]
    columns, dead = decode(K_T_V, values)
    assert (len(columns), dead) == (60, [])


def test_the_time_of_the_record() -> None:
    stamps = [int(line) * 10**6 for line in (CASES / "record-timestamp/timestamps.txt").read_text().split()]
    form = {"series": "dev", "time": "$timestamp", "values": ["v"]}
    columns, dead = decode(form, lines("record-timestamp"), timestamps=stamps)
    assert (columns.time.tolist(), dead) == (stamps, [])


FILE_CASES: dict[str, tuple[dict[str, Any], int]] = {
    "compact-date": ({"series": "k", "time": "d", "values": ["v"]}, 60),
    "date-and-time-columns": ({"series": "k", "time": ["Date", "Time"], "values": ["v"]}, 120),
    "day-month-year": ({**K_T_V, "delimiter": ";", "time_format": "%d.%m.%Y %H:%M:%S"}, 120),
    "decimal-comma": ({**K_T_V, "delimiter": ";", "decimal": ","}, 60),
    "hour-24-and-utc": (K_T_V, 72),
    "cp1252": ({"series": "k", "time": "t", "values": {"temp": "Temp °C"}, "encoding": "cp1252"}, 60),
    "preamble": ({**K_T_V, "comment": "#"}, 60),
    "newest-first": (K_T_V, 60),
    "check-connect-delimiter": ({**K_T_V, "delimiter": ";"}, 60),
}


@pytest.mark.parametrize("case", FILE_CASES)
def test_files(case: str, tmp_path: Path) -> None:
    form, scored = FILE_CASES[case]
    report, _ = backfill(tmp_path, case, form)
    assert (report.counts.scored, report.counts.dead_lettered, report.counts.late) == (scored, 0, 0)


def test_times_that_end_in_utc(tmp_path: Path) -> None:
    report, _ = backfill(tmp_path, "hour-24-and-utc", K_T_V, "utc.csv")
    assert report.counts.scored == 60


def test_compact_dates_are_of_2026(tmp_path: Path) -> None:
    _, points = backfill(tmp_path, "compact-date", {"series": "k", "time": "d", "values": ["v"]})
    assert {str(point["timestamp"])[:4] for point in points} == {"2026"}


def test_a_sentinel_is_no_value(tmp_path: Path) -> None:
    _, points = backfill(tmp_path, "sentinel", {**K_T_V, "missing": [-9999]})
    assert -9999 not in {point["value"] for point in points}


def test_one_series_in_a_file(tmp_path: Path) -> None:
    form = {"time": "timestamp", "values": ["value"]}
    report, points = backfill(tmp_path, "single-series-file", form, "boiler.csv")
    assert report.counts.scored == 60
    assert {point["series"] for point in points} == {"boiler"}


def test_a_row_of_the_future_is_refused_alone(tmp_path: Path) -> None:
    report, _ = backfill(tmp_path, "future-row", K_T_V)
    assert (report.counts.scored, report.counts.dead_lettered, report.counts.late) == (59, 1, 0)


@pytest.mark.parametrize("decision", ["surprise", "usual_range"])
@pytest.mark.parametrize("detector", ["light", "standard"])
def test_a_price_of_0_is_an_anomaly(tmp_path: Path, detector: str, decision: str) -> None:
    keys = {"preset": "stock", "detector": detector, "decision": decision}
    _, points = backfill(tmp_path, "zero-price", K_T_V, **keys)
    assert [(p["value"], p["cause"]) for p in points if p["flag"]] == [(0.0, "impossible_value")]


@pytest.mark.parametrize("decision", ["surprise", "usual_range"])
def test_a_bad_tick_is_told_as_it_is(tmp_path: Path, decision: str) -> None:
    frame = pd.read_csv(CASES / "bad-tick-told-wrongly" / "input.csv", parse_dates=["t"]).set_index("t")
    anomalies = anomalies_of(frame[["v"]], preset="stock", decision=decision)
    told = max(anomalies, key=lambda one: one.observed[0])
    assert told.observed[0] == 10000
    assert told.expected[0] == pytest.approx(97.7, abs=0.3)
    assert told.severity in ("major", "critical")


def test_the_encoding_of_a_label(tmp_path: Path) -> None:
    _, points = backfill(tmp_path, "cp1252", FILE_CASES["cp1252"][0])
    assert {point["series"] for point in points} == {"Kühler"}


def test_a_header_below_comments_needs_no_setting(tmp_path: Path) -> None:
    report, _ = backfill(tmp_path, "preamble", K_T_V)
    assert report.counts.scored == 60


def test_newest_first_is_scored_in_the_order_of_time(tmp_path: Path) -> None:
    _, points = backfill(tmp_path, "newest-first", K_T_V)
    times = [point["timestamp"] for point in points]
    assert times == sorted(times)


def test_a_backfill_that_decoded_nothing_says_why(tmp_path: Path) -> None:
    report, _ = backfill(tmp_path, "nothing-decoded", K_T_V)
    assert "no column t; there are when, k, v" in report.nothing_decoded


def test_check_connect_reads_as_the_run_does() -> None:
    path = CASES / "check-connect-delimiter/input.csv"
    checked = probe_stream(
        "s",
        Stream.model_validate(
            {"source": {"files": {"paths": [str(path)]}}, "format": {"csv": {**K_T_V, "delimiter": ";"}}}
        ),
    )
    assert (checked.read, checked.decoded, checked.exit_code) == (60, 60, 0)


def test_the_repeated_hour_is_told_apart(tmp_path: Path) -> None:
    form = {**K_T_V, "timezone": "Europe/Berlin"}
    report, points = backfill(tmp_path, "dst-local-repeated-hour", form)
    assert (report.counts.scored, report.counts.late, report.counts.duplicate) == (40, 0, 0)
    times = [point["timestamp"] for point in points]
    assert {(after - before).total_seconds() for before, after in pairwise(times)} == {900.0}
