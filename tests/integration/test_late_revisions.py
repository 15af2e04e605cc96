"""Late and corrected points revise verdicts until they are those of the order of time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import text

from pipeline.alerts.outbox import outbox_of
from pipeline.config.schema import Config
from pipeline.core.types import Anomaly, Partition
from pipeline.daemon import revision_service
from pipeline.daemon.daemon import Daemon
from pipeline.observability.health import Health
from pipeline.observability.metrics import Metrics
from pipeline.observability.watchdog import Watchdog
from pipeline.services import series_revision, state_checkpoints
from pipeline.services.backfill import run_backfill
from pipeline.services.revision import verify
from pipeline.services.series_replay import SeriesReplay
from pipeline.services.series_revision import StreamRevision
from storage.results import anomalies, late_records
from storage.sql.database import Database
from storage.stream_state import positions
from tests.faults.feed import Log, config_tree, record
from tests.faults.stage import Silent
from tests.integration.test_replay_parity import csv_file
from tests.support.engines import Bench

ROWS, LATE_FROM = 400, 300


def values(series: str = "a") -> list[tuple[str, float, float]]:
    rng = np.random.default_rng(ord(series))
    return [(series, second, 50 + rng.normal()) for second in range(ROWS)]


def log_of(points: Sequence[tuple[str, float, float]]) -> Log:
    return Log([record(*point) for point in points], ["scored"] * len(points))


def late_limits() -> tuple[list, list]:
    """Four values below a hard limit that come a minute late, and the same in the order of time."""
    points = [(s, t, -5.0 if LATE_FROM <= t < LATE_FROM + 4 else v) for s, t, v in values()]
    late = points[LATE_FROM : LATE_FROM + 4]
    rest = points[:LATE_FROM] + points[LATE_FROM + 4 :]
    return rest[:360] + late + rest[360:], points


def late_context() -> tuple[list, list]:
    """A value far off, whose correction comes later; and a late value within an anomaly."""
    points = values()
    wrong = [*points]
    wrong[LATE_FROM] = ("a", LATE_FROM, 500.0)
    return [*wrong, ("a", LATE_FROM, points[LATE_FROM][2])], points


SETTINGS: dict[str, Any] = {
    "lateness": "0s",
    "duplicates": "last",
    "limits": {"v": {"min": 0, "max": 100}},
}


def late_step() -> tuple[list, list]:
    """Values that make later ones usual, and come a minute late."""
    points = [(s, t, v + 60 * (LATE_FROM <= t < LATE_FROM + 40 or t >= 385)) for s, t, v in values()]
    late = points[LATE_FROM : LATE_FROM + 40]
    rest = points[:LATE_FROM] + points[LATE_FROM + 40 :]
    return rest[:330] + late + rest[330:], points


def quiet() -> list[tuple[str, float, float]]:
    """Return a series without late points."""
    return values("b")


CASES = {"limits": late_limits, "correction": late_context, "step": late_step}


def history_of(folder: Path) -> dict[str, Any]:
    return {"storage": {"history_path": str(folder / "history")}}


@pytest.fixture
def benches(tmp_path: Path, sqlite_template: Path) -> Iterator[Any]:
    made: list[Bench] = []

    def bench(name: str, points: Sequence[tuple[str, float, float]], **keys: Any) -> Bench:
        folder = tmp_path / name
        made.append(
            Bench(folder, sqlite_template, [log_of(points)], **SETTINGS, **history_of(folder), **keys)
        )
        made[-1].fill()
        made[-1].drain(made[-1].engine(history=True)).close()
        made[-1].open.clear()
        return made[-1]

    yield bench
    for one in made:
        one.close()


def revise(bench: Bench, config: Config | None = None) -> None:
    """Let an owner that comes later revise the verdicts, and leave with a snapshot."""
    bench.config = config or bench.config
    on_changes = outbox_of(bench.config, "plant")
    engine = bench.drain(bench.engine(history=True, revisions=True, on_changes=on_changes))
    bench.revise(engine)
    engine.close()
    bench.open.clear()


def pending(bench: Bench) -> int:
    with bench.database.read() as connection:
        return len(late_records.pending(connection, "plant", [Partition("plant", 0)], 10))


def essence(found: Sequence[Anomaly]) -> list[tuple]:
    """Return what does not depend on the order of arrival."""
    return sorted(
        (a.series, a.start_ns, a.end_ns, a.peak_ns, a.points, a.severity, a.cause, a.state, str(a.id))
        for a in found
    )


@pytest.mark.parametrize("decision", ["usual_range", "surprise"])
@pytest.mark.parametrize("case", CASES)
def test_verdicts_become_those_of_the_order_of_time(benches, case, decision):
    arrived, ordered = CASES[case]()
    right, live = benches("right", ordered, decision=decision), benches("live", arrived, decision=decision)
    assert essence(live.anomalies()) != essence(right.anomalies())
    assert verify(live.database, live.config, "plant")[1]
    assert pending(live)
    revise(live)
    assert essence(live.anomalies()) == essence(right.anomalies())
    assert verify(live.database, live.config, "plant") == (1, [])
    assert not pending(live)  # once


def test_a_stream_without_a_recorded_point_has_nothing_to_compare(tmp_path, sqlite_template):
    bench = Bench(tmp_path, sqlite_template, [Log()])
    assert verify(bench.database, bench.config, "plant") == (0, [])
    bench.close()


def test_events_of_a_retraction_and_of_a_new_anomaly(benches):
    arrived, _ = late_context()
    hook = {"hook": {"webhook": {"url": "http://127.0.0.1:9/x"}}}
    live = benches("live", arrived)
    config = live.config.model_copy(update={"endpoints": hook})
    revise(live, config)
    with live.database.read() as connection:
        bodies = connection.execute(text("SELECT body FROM alert_events")).scalars().all()
    assert [msgspec.json.decode(body)["points"] for body in bodies] == [0]


@pytest.mark.parametrize(
    ("case", "retracted"), [(late_limits, False), (late_context, True)], ids=["found", "retracted"]
)
def test_an_anomaly_states_when_late_points_changed_it(benches, case, retracted):
    began_ns, live = time.time_ns(), benches("live", case()[0])
    assert not any(one.revised_ns for one in live.anomalies())
    revise(live)
    with live.database.read() as connection:
        changed = anomalies.query(connection, stream="plant", retracted=retracted)
    assert changed
    assert all(began_ns < one.revised_ns < time.time_ns() for one in changed)


def test_points_beyond_the_age_are_stored_only(benches):
    arrived, _ = late_limits()
    live = benches("live", arrived, revise="10s")
    before = essence(live.anomalies())
    revise(live)
    assert essence(live.anomalies()) == before
    assert len(live.late()) == 4
    assert verify(live.database, live.config, "plant") == (1, [])
    assert not pending(live)


def test_the_age_of_a_late_point_is_that_of_its_arrival(benches):
    """The points came a minute late, and are revised when their series is 100 s further."""
    arrived, ordered = late_limits()
    right, live = benches("right", ordered), benches("live", arrived, revise="80s")
    revise(live)
    assert essence(live.anomalies()) == essence(right.anomalies())
    assert verify(live.database, live.config, "plant") == (1, [])


def test_the_series_goes_on_in_the_state_of_the_order_of_time(benches, tmp_path, sqlite_template):
    """Points that come while the series is scored again, and all later ones, are judged in that state."""
    arrived, ordered = late_limits()
    for at in (374, 375, 390):
        ordered[at] = ("a", at, 400.0)
    arrived = [*arrived[:364], *ordered[364:]]
    right = benches("right", ordered)
    live = Bench(
        tmp_path / "live", sqlite_template, [log_of(arrived)], **SETTINGS, **history_of(tmp_path / "live")
    )
    try:
        engine = live.engine(history=True, revisions=True)
        live.fill(lambda log: 370)
        live.drain(engine)
        (revision,) = (one for one in engine.parts.sinks if isinstance(one, StreamRevision))
        revision.prepare(engine, time.sleep, at_once=True)
        live.fill(lambda log: 375)  # an anomaly is open
        live.drain(engine)
        revision.apply(engine)
        live.fill()
        live.drain(engine)
        assert essence(live.anomalies()) == essence(right.anomalies())
        assert revision._recent.watched() == {}
    finally:
        live.close()


def test_an_owner_that_dies_before_its_snapshot_revises_nothing_twice(benches):
    arrived, ordered = late_limits()
    right, live = benches("right", ordered), benches("live", arrived)
    hook = {"hook": {"webhook": {"url": "http://127.0.0.1:9/x"}}}
    live.config = live.config.model_copy(update={"endpoints": hook})
    engine = live.engine(history=True, revisions=True, on_changes=outbox_of(live.config, "plant"))
    engine.parts.snapshots.take_due = lambda ownership: None
    live.revise(live.drain(engine))
    assert essence(live.anomalies()) == essence(right.anomalies())
    assert pending(live) == 4
    revise(live, live.config)
    assert essence(live.anomalies()) == essence(right.anomalies())
    assert pending(live) == 0
    with live.database.read() as connection:
        bodies = connection.execute(text("SELECT body FROM alert_events")).scalars().all()
    assert len(bodies) == len(right.anomalies())


def test_a_series_starts_from_its_last_state_before_the_late_point(
    benches, tmp_path, sqlite_template, monkeypatch
):
    """The verdicts are those of the whole history, and a point that comes later is distinguished."""
    monkeypatch.setattr(state_checkpoints, "CHECKPOINT_EVERY_NS", 1)
    monkeypatch.setattr(state_checkpoints, "kept_checkpoints", lambda found, *rest: set(found))
    arrived, ordered = late_limits()
    ordered[250] = ("a", 250, 300.0)
    arrived = [*arrived[:250], *arrived[251:], ordered[250]]
    right = benches("right", ordered)
    live = Bench(
        tmp_path / "live", sqlite_template, [log_of(arrived)], **SETTINGS, **history_of(tmp_path / "live")
    )
    fed: list[int] = []
    feed = SeriesReplay.feed

    def counted(replay: SeriesReplay, points: Any, *pause: Any) -> None:
        fed.append(len(points))
        feed(replay, points, *pause)

    monkeypatch.setattr(SeriesReplay, "feed", counted)
    try:
        engine = live.engine(history=True, revisions=True)
        for until in (100, 200, 280, len(arrived) - 1, len(arrived)):
            live.fill(lambda log, until=until: until)
            live.drain(engine)
            live.revise(engine)
            engine.parts.snapshots.renew()
            engine.turn(0.0)
            live.revise(engine)  # a checkpoint
        assert essence(live.anomalies()) == essence(right.anomalies())
        scored = [rows for rows in fed if rows]
        assert scored == [399 - 280, 400 - 200], "from the states of 280 and 200 points"
    finally:
        live.close()


@pytest.mark.parametrize("lateness", ["0s", "3s"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("case", ["limits", "correction", "step"])
def test_a_backfill_ends_with_the_verdicts_of_the_order_of_time(
    benches, tmp_path, sqlite_template, case, parts, lateness
):
    """Each file has a state of its own."""
    arrived, ordered = CASES[case]()
    found = {}
    for name, points in (("right", ordered), ("arrived", arrived)):
        folder = tmp_path / f"backfill-{name}"
        folder.mkdir()
        (folder / "forewatch.db").write_bytes(sqlite_template.read_bytes())
        files = [folder / f"{part}.csv" for part in range(parts)]
        for part, path in enumerate(files):
            some = [(s, t + 10_000 * part, v) for s, t, v in (*points, *quiet())]
            csv_file(path, [record(*one) for one in some])
        tree = config_tree(
            f"sqlite:///{folder}/forewatch.db",
            {"files": {"paths": [str(one) for one in files]}},
            **SETTINGS | {"lateness": lateness},
        )
        tree["streams"]["plant"]["format"] = {"csv": {"series": "s", "time": "t", "values": ["v"]}}
        config = Config.model_validate(tree)
        report = run_backfill(config, "plant", files, None, None, None, Silent())
        database = Database(config.database)
        with database.read() as connection:
            found[name] = essence(anomalies.query(connection, stream="plant"))
            here = [Partition(str(path), 0) for path in files]
            assert not late_records.pending(connection, "plant", here, 10), "they are no daemon's"
        database.close()
        assert report.anomalies == len(found[name])
        assert bool(report.counts.late + report.counts.duplicate) == (name == "arrived")
    assert found["arrived"] == found["right"]
    assert (found["right"] == []) == (case == "correction"), "a value that was wrong for a while"


class Daemons:
    """Daemons one after the other over one topic and one database."""

    def __init__(self, config: Config) -> None:
        self.config, self.database = config, Database(config.database)

    def start(self) -> None:
        self.stopping = threading.Event()
        watchdog = Watchdog(600.0)
        self.daemon = Daemon(self.config, self.database, Metrics(), Health(watchdog), self.stopping)
        self.thread = threading.Thread(target=self.daemon.run, args=(lambda: None,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(60)
        self.daemon.close()

    def read(self) -> int:
        with self.database.read() as connection:
            return sum(p.next_offset or 0 for p in positions.all_of(connection, "plant"))

    def anomalies(self) -> list[Anomaly]:
        with self.database.read() as connection:
            return anomalies.query(connection, stream="plant")

    def pending(self) -> int:
        with self.database.read() as connection:
            here = [one.partition for one in positions.all_of(connection, "plant")]
            return len(late_records.pending(connection, "plant", here, 10))

    def until(self, condition: Any, seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{self.read()} read, {self.pending()} pending"
            time.sleep(0.2)


@pytest.mark.kafka
@pytest.mark.postgres
def test_a_daemon_revises_on_kafka_and_postgresql(tmp_path, topics, postgres_url, benches, monkeypatch):
    monkeypatch.setattr(series_revision, "QUIET_NS", 3 * 10**9)
    monkeypatch.setattr(revision_service, "INTERVAL_SECONDS", 0.5)
    arrived, ordered = late_limits()
    right = benches("right", ordered)
    topic = topics.create(1)
    source = {"kafka": {"brokers": [topics.broker], "topics": [topic], "start": "earliest"}}
    keys = {"lateness": "0s", "duplicates": "last", "limits": {"v": {"min": 0, "max": 100}}, "future": None}
    storage = {"history_path": str(tmp_path / "history")}
    config = Config.model_validate(config_tree(postgres_url, source, storage=storage, **keys))
    daemons = Daemons(config)
    daemons.database.upgrade()
    topics.produce(topic, [record(*point) for point in arrived])
    daemons.start()
    daemons.until(lambda: daemons.read() == len(arrived))
    daemons.stop()  # before anything was revised
    assert daemons.pending() == 4
    daemons.start()
    daemons.until(lambda: daemons.pending() == 0)
    daemons.until(lambda: essence(daemons.anomalies()) == essence(right.anomalies()), 20)
    daemons.stop()
    daemons.database.close()
