"""Replay parity: the daemon over Kafka, a backfill of the same stretch of the log, and a backfill of the same
records in files say the same.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.config.loader import load_config
from pipeline.core.types import Anomaly
from pipeline.services.backfill import run_backfill
from storage.results import anomalies
from storage.sql.database import Database
from tests.faults.feed import config_tree, make_log
from tests.faults.stage import Silent, Stage
from tests.support.kafka_server import Topics

pytestmark = [pytest.mark.kafka]


def test_daemon_and_backfills_say_the_same(tmp_path: Path, topics: Topics, sqlite_template: Path):
    import shutil

    shutil.copy(sqlite_template, tmp_path / "live.db")
    logs = [make_log(number, 200, seed=8) for number in range(2)]
    # A revision leaves some figures of an anomaly as they are; its tests are in tests/faults.
    stage = Stage(tmp_path / "stage", topics, f"sqlite:///{tmp_path}/live.db", logs, revise="0s")
    try:
        stage.allow(1.0)
        stage.member()
        stage.until_drained()
        stage.leave()
        # it holds the daemon against a backfill of the topic: counts, anomalies, verdicts
        figures = stage.account()
        assert figures.problems == []
        live = {str(a.id): verdict(a) for a in stage.anomalies()}
    finally:
        stage.close()
    assert len(live) > 10

    files = [csv_file(tmp_path / f"part{number}.csv", log.values) for number, log in enumerate(logs)]
    config = tmp_path / "files.yaml"
    tree = config_tree(f"sqlite:///{tmp_path}/files.db", {"files": {"paths": ["part*.csv"]}})
    tree["streams"]["plant"]["revise"] = "0s"
    tree["streams"]["plant"]["format"] = {"csv": {"series": "s", "time": "t", "values": ["v"]}}
    config.write_text(json.dumps(tree))
    scores = tmp_path / "files.parquet"
    run_backfill(load_config(config), "plant", files, None, None, scores, Silent())
    database = Database(f"sqlite:///{tmp_path}/files.db")
    with database.read() as connection:
        filed = {str(a.id): verdict(a) for a in anomalies.query(connection, stream="plant")}
    database.close()
    assert filed == live
    of_log, of_files = (
        pd.read_parquet(path)
        .assign(series=lambda f: f["series"].astype(str))
        .sort_values(["series", "timestamp"])
        .reset_index(drop=True)
        for path in (tmp_path / "stage" / "backfill.parquet", scores)
    )
    pd.testing.assert_frame_equal(
        of_log[["series", "timestamp", "flag", "value"]], of_files[["series", "timestamp", "flag", "value"]]
    )
    pd.testing.assert_series_equal(of_log["score"], of_files["score"], atol=1e-4)


def verdict(anomaly: Anomaly) -> tuple[Any, ...]:
    """What the records say, wherever they lay: all but partition and offsets, and the config that names the
    source.
    """
    return (
        *(
            anomaly.series,
            anomaly.state,
            anomaly.severity,
            anomaly.direction,
            anomaly.start_ns,
            anomaly.end_ns,
            anomaly.peak_ns,
        ),
        *(
            anomaly.points,
            round(anomaly.score, 4),
            anomaly.forecaster,
            anomaly.model_version,
            anomaly.observed,
        ),
    )


def csv_file(path: Path, values: list[bytes]) -> Path:
    """The records of one partition as rows; those that are not JSON, or lack a field, are not rows."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["s", "t", "v"])
        for value in values:
            try:
                record = json.loads(value)
            except ValueError:
                continue
            if {"s", "t", "v"} <= record.keys():
                rows.writerow([record["s"], record["t"], record["v"]])
    return path
