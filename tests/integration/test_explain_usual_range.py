"""From a file to stored anomalies, and from a stored anomaly to its explanation, with usual ranges."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config.loader import load_config
from pipeline.core.end_text import told_statement
from pipeline.services.backfill import run_backfill
from pipeline.services.explain import Recheck, explain
from storage.results import anomalies
from storage.sql.database import Database
from tests.faults.stage import Silent


@pytest.mark.parametrize("detector", ["light", "standard"])
def test_the_explanation_of_a_stored_anomaly_holds(
    tmp_path: Path, sqlite_template: Path, detector: str
) -> None:
    shutil.copy(sqlite_template, tmp_path / "forewatch.db")
    rng, rows = np.random.default_rng(4), 96 * 20
    rpm = 1450 + 40 * np.sin(np.arange(rows) / 96 * 2 * np.pi) + rng.normal(0, 2, rows)
    rpm[96 * 18 + 10 : 96 * 18 + 30] += 80
    ts = pd.date_range("2026-03-02", periods=rows, freq="15min", tz="UTC")
    pd.DataFrame({"s": "b1", "t": ts, "rpm": rpm}).to_csv(tmp_path / "past.csv", index=False)
    stream = {
        "source": {"files": {"paths": [str(tmp_path / "past.csv")]}},
        "format": {"csv": {"series": "s", "time": "t", "values": ["rpm"]}},
        "detector": detector,
        "decision": "usual_range",
        "alerts": {"units": {"rpm": "1/min"}},
    }
    tree = {"database": f"sqlite:///{tmp_path}/forewatch.db", "streams": {"plant": stream}}
    (tmp_path / "forewatch.yaml").write_text(json.dumps(tree))
    config = load_config(tmp_path / "forewatch.yaml")
    run_backfill(config, "plant", [tmp_path / "past.csv"], None, None, None, Silent())
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")
    try:
        with database.read() as connection:
            found = anomalies.query(connection, stream="plant")
        fault = next(a for a in found if a.start_ns == ts[96 * 18 + 10].value)
        assert (fault.direction, fault.severity) == ("up", "critical")
        explanation = explain(config, database, fault)
    finally:
        database.close()
    assert explanation.verdict is Recheck.HOLDS, explanation
    statement = told_statement(fault, "1/min")
    assert statement is not None
    assert "rpm was as high as 1,5" in statement
    assert re.search(r" at \d\d:\d\d UTC, .*; now 1,4\d\d 1/min, usual at this hour$", statement)
    assert statement in explanation.sentence
