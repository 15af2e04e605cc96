"""Limits in a backfill: it goes on, as a daemon does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import func, select

from pipeline.config.schema import Config
from pipeline.engine.offloaded_state import WARM_START_PARTITION
from pipeline.engine.warm_start import read_warm_start
from pipeline.models.champion import champion_of
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.backfill import run_backfill
from storage.sql.database import Database
from storage.tables.stream import SeriesStateRow
from tests.faults.feed import config_tree, record
from tests.faults.stage import Silent
from tests.integration.test_replay_parity import csv_file

MOST = 10


def config_of(folder: Path, template: Path, *, follow: bool = False, **changes: Any) -> Config:
    (folder / "forewatch.db").write_bytes(template.read_bytes())
    source = {"files": {"paths": [str(folder / "ids.csv")], "follow": follow}}
    tree = config_tree(f"sqlite:///{folder}/forewatch.db", source, max_series=MOST, **changes)
    tree["streams"]["plant"]["format"] = {"csv": {"series": "s", "time": "t", "values": ["v"]}}
    return Config.model_validate(tree)


def ids(folder: Path) -> Path:
    """Return a file in which every row has a series of its own, beside a steady one."""
    pairs = ((name, n) for n in range(200) for name in ("steady", f"id-{n}"))
    return csv_file(folder / "ids.csv", [record(name, n, 20.0) for name, n in pairs])


def test_series_over_the_limit_are_counted_and_the_others_scored(tmp_path, sqlite_template):
    config = config_of(tmp_path, sqlite_template)
    report = run_backfill(config, "plant", [ids(tmp_path)], None, None, None, Silent())
    assert report.counts.read() == 400
    assert report.counts.filtered == 200 - (MOST - 1)
    assert report.counts.scored == 200 + MOST - 1


def test_a_warm_start_stores_no_more_series_than_the_limit(tmp_path, sqlite_template):
    config = config_of(tmp_path, sqlite_template, warm_start=str(ids(tmp_path)))
    stream, database = config.streams["plant"], Database(config.database)
    champion = champion_of(database, "plant", stream)
    scorer = StreamScorer(champion.provenance, stream, champion.detector)
    for _ in read_warm_start(database, "me", "plant", scorer, lambda: None):
        pass
    statement = select(func.count()).where(SeriesStateRow.partition == WARM_START_PARTITION.number)
    with database.read() as connection:
        assert connection.execute(statement).scalar_one() == MOST
    database.close()


def test_series_go_on_from_file_to_file_within_a_batch(tmp_path, sqlite_template):
    """A batch has rows of several files; the verdicts are those of one file."""
    rows = [record(name, n, 20 + 3 * np.sin(n / 7) + (n % 5)) for n in range(400) for name in ("a", "b")]
    whole = csv_file(tmp_path / "whole.csv", rows)
    parts = [csv_file(tmp_path / f"{n}.csv", rows[200 * n : 200 * (n + 1)]) for n in range(4)]
    found = []
    for name, files in (("one", [whole]), ("many", parts)):
        folder = tmp_path / name
        folder.mkdir()
        config = config_of(folder, sqlite_template, follow=True, lateness="0s", detector="standard")
        scores = folder / "scores.parquet"
        run_backfill(config, "plant", files, None, None, scores, Silent())
        table = pd.read_parquet(scores).astype({"series": str}).sort_values(["series", "timestamp"])
        found.append(table[["series", "timestamp", "score", "flag", "expected"]].reset_index(drop=True))
    pd.testing.assert_frame_equal(*found, check_exact=True)


def _scores(folder: Path, template: Path, files: list[Path], **changes: Any) -> pd.DataFrame:
    """Backfill files of a followed folder, and return the verdicts."""
    folder.mkdir()
    config = config_of(folder, template, follow=True, **changes)
    scores = folder / "scores.parquet"
    report = run_backfill(config, "plant", files, None, None, scores, Silent())
    assert report.counts.scored == report.counts.read()
    table = pd.read_parquet(scores).astype({"series": str}).sort_values(["series", "timestamp"])
    return table[["series", "timestamp", "score", "flag", "expected"]].reset_index(drop=True)


@pytest.mark.parametrize("lateness", ["0s", "30s"])
@pytest.mark.parametrize("per_file", [200, 40_000], ids=["small", "longer than a batch"])
def test_files_whose_names_are_not_in_order_are_read_by_time(tmp_path, sqlite_template, lateness, per_file):
    """The verdicts are those of one file, also with records buffered at its end."""
    rows = [
        record(name, n, 20 + 3 * np.sin(n / 7) + (n % 5))
        for n in range(3 * per_file // 2)
        for name in ("a", "b")
    ]
    whole = csv_file(tmp_path / "whole.csv", rows)
    parts = [
        csv_file(tmp_path / f"{name}.csv", rows[per_file * n : per_file * (n + 1)])
        for n, name in enumerate("cab")
    ]
    changes = {"lateness": lateness, "detector": "light"}
    one, many = (
        _scores(tmp_path / str(len(files)), sqlite_template, files, **changes) for files in ([whole], parts)
    )
    pd.testing.assert_frame_equal(one, many, check_exact=True)
