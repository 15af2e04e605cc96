"""The import wizard on changes of databases, samples by name, and rows that repeat their time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.services.config_wizard import import_file
from tests.unit.services.test_exports import at, epoch, iso, value
from tests.unit.services.test_more_siblings import MISSING_MEAN, ROWS
from tests.unit.services.test_siblings import MEAN, Sibling, check_sibling, lines, table


def dynamodb(i: int) -> dict[str, object]:
    image = {"device": {"S": f"d{i % 2}"}, "at": {"N": str(epoch(i))}, "temp": {"N": str(value(i))}}
    return {
        "eventName": ("INSERT", "MODIFY")[i % 2],
        "dynamodb": {"ApproximateCreationDateTime": epoch(i) + 3, "NewImage": image, "SizeBytes": 40 + i},
    }


def mongodb(i: int) -> dict[str, object]:
    row = {"sensor": f"s{i % 2}", "at": {"$date": epoch(i) * 1000}, "temp": {"$numberDouble": str(value(i))}}
    return {
        "_id": {"_data": f"82{i:030x}"},
        "operationType": "insert",
        "clusterTime": {"$timestamp": {"t": epoch(i) + 1, "i": 1}},
        "fullDocument": row,
    }


SIBLINGS = {
    "stream of DynamoDB": Sibling("a.jsonl", lines(dynamodb), 2, 120),
    "change stream of MongoDB": Sibling("a.jsonl", lines(mongodb), 2, 120),
    "scan of DynamoDB": Sibling(
        "a.json",
        json.dumps(
            {
                "Items": [
                    {"pk": {"S": "a"}, "ts": {"N": str(epoch(i))}, "v": {"N": str(value(i))}}
                    for i in range(ROWS)
                ]
            }
        ),
    ),
    "samples by name": Sibling(
        "a.jsonl", lines(lambda i: {k: {"t": epoch(i), "v": value(i)} for k in "ab"}), 2, 60, MEAN, 2 * ROWS
    ),
    "lines of JSON in UTF-16": Sibling(
        "a.jsonl", lines(lambda i: {"id": "ü", "t": epoch(i), "v": value(i)}).encode("utf-16")
    ),
    "hour ending": Sibling(
        "a.csv",
        table("Date,Hour Ending,MW", lambda i: f"{at(60 * i):%m/%d/%Y},{at(60 * i).hour + 1},{value(i)}"),
        1, 3600,
    ),
    "ends of intervals and parts of a second": Sibling(
        "a.json",
        json.dumps(
            [
                {"open": 1000 * epoch(i), "ns": 0, "v": value(i), "close": 1000 * epoch(i) + 59_999}
                for i in range(ROWS)
            ]
        ),
    ),
    "9999.9 for none": Sibling(
        "a.csv", table("t,v", lambda i: f"{iso(i)},{9999.9 if i % 9 == 4 else value(i)}"), 1, 60, MISSING_MEAN
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_sibling_is_read_right(tmp_path: Path, name: str) -> None:
    check_sibling(tmp_path, SIBLINGS[name])


def test_removed_rows_of_dynamodb_are_left_out(tmp_path: Path) -> None:
    rows = [dynamodb(i) | ({"eventName": "REMOVE"} if i % 10 == 3 else {}) for i in range(ROWS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert import_file(tmp_path / "a.jsonl", {}).guess.form["where"] == {"eventName": {"not": "REMOVE"}}


def test_lines_of_a_log_among_measurements_are_left_out(tmp_path: Path) -> None:
    def row(i: int) -> dict[str, object]:
        log = {"level": "info", "text": "start", "t": epoch(i)}
        return {"level": "metric", "id": "a", "t": epoch(i), "v": value(i)} if i % 5 else log

    (tmp_path / "a.jsonl").write_text(lines(row))
    found = import_file(tmp_path / "a.jsonl", {})
    assert found.guess.form["where"] == {"v": {"exists": True}}
    assert found.probe is not None
    assert (found.probe.decoded, found.probe.refused) == (ROWS * 4 // 5, {})


def test_rows_that_repeat_series_and_time_are_asked_about(tmp_path: Path) -> None:
    day = table("Date,Periode,MW", lambda i: f"{at(60 * i):%m/%d/%Y},{at(60 * i).hour + 1},{value(i)}")
    (tmp_path / "a.csv").write_text(day)
    question, options = import_file(tmp_path / "a.csv", {}).guess.questions["series"]
    assert question.startswith(f"{ROWS - 2} of {ROWS} rows have the time and the series of another row")
    assert "Periode" in options
    assert not import_file(tmp_path / "a.csv", {"series": "Periode"}).guess.questions
