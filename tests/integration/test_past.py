"""Past points in a daemon that runs and in a backfill: both begin with what the files tell."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.backfill import run_backfill
from pipeline.config import Config
from pipeline.daemon import daemon
from storage import anomalies, positions
from storage.history import HistoryReader
from storage.session import Database
from tests.faults.feed import config_tree
from tests.faults.stage import Silent
from tests.unit.test_past import LIVE_S, NAMES, PAST_S, records, write


def config_of(folder: Path, template: Path, history: Path | None) -> Config:
    folder.mkdir()
    (folder / "forewatch.db").write_bytes(template.read_bytes())
    past = {} if history is None else {"history": str(history)}
    source = {"files": {"paths": [str(folder / "live*.csv")], "follow": True}}
    changes = {"limits": {}, "lateness": "0s", "detector": "standard", "retraining": {"schedule": None}}
    return Config.model_validate(config_tree(f"sqlite:///{folder}/forewatch.db", source, **changes | past))


def run(config: Config, rows: int) -> pd.DataFrame:
    """The history that a daemon writes of so many rows."""
    stopping, database = threading.Event(), Database(config.database)
    with daemon(config, stopping) as process:
        loop = threading.Thread(target=process.run, args=(lambda: None,))
        loop.start()
        deadline = time.monotonic() + 60
        try:
            while True:
                with database.read() as connection:
                    done = sum(p.counts.scored for p in positions.all_of(connection, "plant"))
                if done >= rows:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            stopping.set()
            loop.join()
    database.close()
    table = HistoryReader(f"{config.database.removeprefix('sqlite:///')}.history").read("plant")
    return table.to_pandas()[["series", "time", "score", "flag", "guard"]].sort_values(["series", "time"], ignore_index=True)


@pytest.mark.timeout(150)
def test_a_daemon_and_a_backfill_begin_with_the_past(tmp_path, sqlite_template):
    past, rows = write(tmp_path / "past.csv", records(0, PAST_S)), LIVE_S * len(NAMES)
    live = config_of(tmp_path / "live", sqlite_template, past)
    write(tmp_path / "live/live.csv", records(PAST_S, PAST_S + LIVE_S))
    said = run(live, rows)
    assert len(said) == rows
    assert (said["guard"] > 1).mean() > 0.9, "no static limits: it knows what is usual from the first point on"

    # The files are gone, what they told is not.
    past.rename(tmp_path / "moved.csv")
    write(tmp_path / "live/live-2.csv", records(PAST_S, PAST_S + 3, "z"))
    assert len(run(live, rows + 3)) == rows + 3
    (tmp_path / "moved.csv").rename(past)

    again = config_of(tmp_path / "again", sqlite_template, past)
    run_backfill(again, "plant", [tmp_path / "live/live.csv"], None, None, tmp_path / "scores.parquet", Silent())
    filled = pd.read_parquet(tmp_path / "scores.parquet").astype({"series": str}).sort_values(["series", "timestamp"], ignore_index=True)
    assert filled["flag"].tolist() == said["flag"].astype(bool).tolist()
    assert filled["score"].tolist() == pytest.approx(said["score"].tolist(), abs=1e-3)
    found = []
    for config in (live, again):
        database = Database(config.database)
        with database.read() as connection:
            found.append({(str(a.id), a.start_ns, a.end_ns, a.peak_ns) for a in anomalies.query(connection, stream="plant")})
        database.close()
    assert found[0] == found[1] != set()


@pytest.mark.timeout(100)
def test_a_past_that_cannot_be_read_does_not_stop_the_stream(tmp_path, sqlite_template):
    (tmp_path / "past").mkdir()
    config = config_of(tmp_path / "live", sqlite_template, tmp_path / "past")
    write(tmp_path / "live/live.csv", records(PAST_S, PAST_S + LIVE_S))
    assert len(run(config, LIVE_S * len(NAMES))) == LIVE_S * len(NAMES)
