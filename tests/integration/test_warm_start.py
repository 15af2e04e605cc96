"""Past points in a daemon that runs and in a backfill: both begin with what the files tell."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.config.schema import Config
from pipeline.daemon.daemon import daemon
from pipeline.engine.factory import build_engine
from pipeline.engine.warm_start import read_warm_start
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.services.backfill import run_backfill
from pipeline.services.explain import explain
from pipeline.services.forecaster_status import series_status
from pipeline.sources import make_source
from pipeline.sources.kafka.offset_range import second_reader
from storage.history.reader import HistoryReader
from storage.results import anomalies
from storage.sql.database import Database
from storage.stream_state import positions
from tests.faults.feed import config_tree
from tests.faults.stage import Silent
from tests.unit.engine.test_warm_start import LIVE_S, NAMES, PAST_S, records, write


def config_of(folder: Path, template: Path, history: Path | None, **more: Any) -> Config:
    folder.mkdir()
    (folder / "forewatch.db").write_bytes(template.read_bytes())
    past = {} if history is None else {"warm_start": str(history)}
    source = {"files": {"paths": [str(folder / "live*.csv")], "follow": True}}
    changes = {"limits": {}, "lateness": "0s", "detector": "standard", "retraining": {"schedule": None}}
    return Config.model_validate(
        config_tree(f"sqlite:///{folder}/forewatch.db", source, **changes | past | more)
    )


def run(config: Config, rows: int) -> pd.DataFrame:
    """The history that a daemon writes of so many rows."""
    stopping, database = threading.Event(), Database(config.database)
    with daemon(config, stopping) as process:
        loop = threading.Thread(target=process.run, args=(lambda: None,))
        loop.start()
        deadline = time.monotonic() + 120
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
    return table.to_pandas()[["series", "time", "score", "flag", "guard"]].sort_values(
        ["series", "time"], ignore_index=True
    )


@pytest.mark.timeout(150)
def test_a_daemon_and_a_backfill_begin_with_the_past(tmp_path, sqlite_template):
    past, rows = write(tmp_path / "past.csv", records(0, PAST_S)), LIVE_S * len(NAMES)
    live = config_of(tmp_path / "live", sqlite_template, past)
    write(tmp_path / "live/live.csv", records(PAST_S, PAST_S + LIVE_S))
    said = run(live, rows)
    assert len(said) == rows
    assert (said["guard"] > 1).mean() > 0.9, (
        "no static limits: it knows what is usual from the first point on"
    )

    # The files are gone, what they told is not.
    past.rename(tmp_path / "moved.csv")
    write(tmp_path / "live/live-2.csv", records(PAST_S, PAST_S + 3, "z"))
    assert len(run(live, rows + 3)) == rows + 3
    (tmp_path / "moved.csv").rename(past)

    again = config_of(tmp_path / "again", sqlite_template, past)
    run_backfill(
        again, "plant", [tmp_path / "live/live.csv"], None, None, tmp_path / "scores.parquet", Silent()
    )
    filled = (
        pd.read_parquet(tmp_path / "scores.parquet")
        .astype({"series": str})
        .sort_values(["series", "timestamp"], ignore_index=True)
    )
    assert filled["flag"].tolist() == said["flag"].astype(bool).tolist()
    assert filled["score"].tolist() == pytest.approx(said["score"].tolist(), abs=1e-3)
    database = Database(live.database)
    with database.read() as connection:
        known = anomalies.query(connection, stream="plant")
    assert [explain(live, database, one).verdict for one in known] == ["holds"] * len(known)
    shown = series_status(live, database, "plant", "a")
    assert shown.channels[0].points > LIVE_S, "with those of the past"
    database.close()
    found = []
    for config in (live, again):
        database = Database(config.database)
        with database.read() as connection:
            found.append(
                {
                    (str(a.id), a.start_ns, a.end_ns, a.peak_ns)
                    for a in anomalies.query(connection, stream="plant")
                }
            )
        database.close()
    assert found[0] == found[1] != set()


@pytest.mark.parametrize("decision", ["surprise", "usual_range"])
def test_what_a_backfill_found_in_a_file_is_explained_from_it(tmp_path, sqlite_template, decision):
    changes = {"lateness": "3s", "limits": {"v": {"max": 30.0}}, "decision": decision}
    config = config_of(tmp_path / "live", sqlite_template, None, **changes)
    path = write(
        tmp_path / "some[1].csv", [*records(PAST_S, PAST_S + LIVE_S), *records(PAST_S, PAST_S + LIVE_S, "z")]
    )
    run_backfill(config, "plant", [path], None, None, None, Silent())
    database = Database(config.database)
    with database.read() as connection:
        known = anomalies.query(connection, stream="plant")
    assert {one.series for one in known} == {*NAMES, "z"}
    said = [explain(config, database, one) for one in known]
    assert [one.verdict for one in said] == ["holds"] * len(known)
    now, then = [one.surprise for one in said], [one.surprise for one in known]
    if decision == "surprise":
        assert now == pytest.approx(then, abs=1e-3)
    else:  # the stored one is the largest of all rows that were the peak
        assert all(one <= largest + 1e-3 for one, largest in zip(now, then, strict=True))
    assert all(0 < one.points <= LIVE_S for one in said), "of this series only"
    write(path, records(PAST_S, PAST_S + 100))
    assert [explain(config, database, one).verdict for one in known] == ["unknown"] * len(known)
    path.unlink()
    assert [explain(config, database, one).verdict for one in known] == ["unknown"] * len(known)
    database.close()


@pytest.mark.timeout(100)
def test_a_past_that_cannot_be_read_does_not_stop_the_stream(tmp_path, sqlite_template):
    (tmp_path / "past").mkdir()
    config = config_of(tmp_path / "live", sqlite_template, tmp_path / "past")
    write(tmp_path / "live/live.csv", records(PAST_S, PAST_S + LIVE_S))
    assert len(run(config, LIVE_S * len(NAMES))) == LIVE_S * len(NAMES)


@pytest.mark.kafka
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_the_past_ends_where_the_log_on_a_broker_begins(
    kafka_broker, topics, tmp_path, sqlite_template, start
):
    topic = topics.create(partitions=3)  # one of them stays empty
    for number, name in enumerate("ab"):
        topics.produce(topic, records(PAST_S + 10 * number, PAST_S + 60, name), number)
    (tmp_path / "db").write_bytes(sqlite_template.read_bytes())
    kafka = {"brokers": [kafka_broker], "topics": [topic], "group": f"live-{topic}", "start": start}
    past = write(tmp_path / "past.csv", records(0, PAST_S + 30))
    tree = config_tree(f"sqlite:///{tmp_path}/db", {"kafka": kafka}, lateness="0s", warm_start=str(past))
    config, database = Config.model_validate(tree), Database(f"sqlite:///{tmp_path}/db")
    stream = config.streams["plant"]
    source = make_source("plant", stream.source, stream.format)
    engine = build_engine("plant", config, database, source, StreamMetrics(Metrics(), "plant"))
    scorer = engine.parts.scorer
    list(
        read_warm_start(
            database, "test", "plant", scorer, partial(second_reader, "plant", stream.source, stream.format)
        )
    )
    if start == "latest":
        while len(engine.parts.ownership.positions) < 3:
            engine.turn(0.1)
        for number, name in enumerate("ab"):
            topics.produce(topic, records(PAST_S + 60, PAST_S + 100, name), number)
    want = {"earliest": 60 + 50, "latest": 80}[start]
    deadline = time.monotonic() + 120
    while sum(at.counts.read() for at in engine.parts.ownership.positions.values()) < want:
        engine.turn(0.1)
        assert time.monotonic() < deadline
    assert all(at.counts.scored == at.counts.read() for at in engine.parts.ownership.positions.values())
    seen = {
        scorer.name_of(slot): int(scorer.series.state["windows"]["seq"][slot])
        for p in scorer.series.partitions()
        for slot in scorer.series.slots(p)
    }
    # Where the log is read from its beginning b misses ten points: it begins after a, and the past ends with
    # the first of both.
    assert seen == (
        {"a": PAST_S + 60, "b": PAST_S + 50} if start == "earliest" else {"a": PAST_S + 70, "b": PAST_S + 70}
    )
    engine.close()
    database.close()
