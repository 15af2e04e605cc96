"""Recorded scores in files that other programs read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.errors import InputError
from pipeline.services.export import export_scores
from tests.faults.feed import START_MS, Log, record
from tests.support.engines import Bench

ROWS = 120


@pytest.fixture
def bench(tmp_path: Path, sqlite_template: Path):
    values = [record("a", second, 500.0 if second == 100 else second % 7) for second in range(ROWS)]
    storage = {"history_path": str(tmp_path / "bench" / "history")}
    made = Bench(
        tmp_path / "bench", sqlite_template, [Log(values, ["scored"] * ROWS)], lateness="0s", storage=storage
    )
    made.fill()
    made.drain(made.engine(history=True)).close()
    made.open.clear()
    yield made
    made.close()


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_each_format_holds_the_points(bench, tmp_path, ending):
    path = tmp_path / f"scores.{ending}"
    assert export_scores(bench.config, "plant", path, None, None) == ROWS
    read = {"parquet": pd.read_parquet, "csv": pd.read_csv, "jsonl": lambda p: pd.read_json(p, lines=True)}
    frame = read[ending](path)
    assert frame["value:v"].tolist() == [500.0 if i == 100 else i % 7 for i in range(ROWS)]
    assert frame["flag"].tolist().index(True) == 100
    assert {"series", "time", "score", "surprise", "expected:v", "forecaster", "model"} <= set(frame)
    assert pd.to_datetime(frame["time"], utc=True)[0] == pd.Timestamp(START_MS, unit="ms", tz="UTC")
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_time_range_and_what_is_refused(bench, tmp_path):
    since = (START_MS + 100_000) * 10**6
    assert export_scores(bench.config, "plant", tmp_path / "x.parquet", since, since + 10**9) == 1
    with pytest.raises(InputError, match="the ending is the format"):
        export_scores(bench.config, "plant", tmp_path / "x.xlsx", None, None)
    with pytest.raises(InputError, match="cannot be written"):
        export_scores(bench.config, "plant", tmp_path / "no" / "x.csv", None, None)
