"""A folder of files that follow each other: series and anomalies go on from file to file."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import delete

from pipeline.core.types import Anomaly, AnomalyState, EndReason
from pipeline.engine import engine
from storage.results import anomalies, faults
from storage.stream_state import positions
from storage.tables.stream import SnapshotRow
from tests.support.file_daemons import Running, running, stream

HEADER = b"s,t,v\n"
START = 1_700_000_000
ROWS = 1500


def rows(series: str, first: int, count: int, outlier: bool = False) -> bytes:
    """Rows of a quiet series, the last one of which can be an outlier."""
    values = [20.0 + (first + i) * 7919 % 100 / 100 for i in range(count)]
    if outlier:
        values[-1] = 500.0
    return b"".join(b"%s,%d,%.3f\n" % (series.encode(), START + first + i, v) for i, v in enumerate(values))


def found(one: Running) -> list[Anomaly]:
    with one.database.read() as connection:
        return anomalies.query(connection, stream="plant")


def plant(folder: Path, **changes: str | int) -> dict:
    return {"plant": stream(folder / "*.csv") | changes}


def test_an_anomaly_at_the_end_of_a_file_is_closed_by_the_next_file(tmp_path, sqlite_template):
    """The files are read by their times, whatever they are called."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "z-first.csv").write_bytes(HEADER + rows("a", 0, ROWS, outlier=True))
    (folder / "a-second.csv").write_bytes(HEADER + rows("a", ROWS, ROWS, outlier=True))
    with running(tmp_path, sqlite_template, plant(folder)) as one:
        one.until(lambda: one.read("plant") == 2 * ROWS)
        one.until(lambda: len(found(one)) == 2)
        second, first = sorted(found(one), key=lambda anomaly: anomaly.partition.topic)
        assert "z-first" in first.partition.topic
        assert (first.state, second.state) == (AnomalyState.CLOSED, AnomalyState.OPEN)
        assert (first.end_reason, second.end_reason) == (EndReason.CONTINUED, EndReason.UNKNOWN)
        # No warm-up in the second file: its series knows the first one.
        series = one.daemon._engines["plant"].parts.scorer.series
        seqs = [int(series.state["windows"]["seq"][slot]) for slot in range(len(series))]
        assert sorted(seqs) == [ROWS, 2 * ROWS]
        (folder / "m-third.csv").write_bytes(HEADER + rows("a", 2 * ROWS, 100))
        one.until(lambda: one.read("plant") == 2 * ROWS + 100)
        one.until(lambda: all(anomaly.state is AnomalyState.CLOSED for anomaly in found(one)))


def test_after_a_restart_between_two_files_the_series_goes_on(tmp_path, sqlite_template):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.csv").write_bytes(HEADER + rows("a", 0, ROWS, outlier=True))
    with running(tmp_path, sqlite_template, plant(folder)) as one:
        one.until(lambda: one.read("plant") == ROWS and found(one))
    (folder / "2.csv").write_bytes(HEADER + rows("a", ROWS, ROWS))
    with running(tmp_path, sqlite_template, plant(folder)) as one:
        one.until(lambda: one.read("plant") == 2 * ROWS)
        one.until(lambda: [anomaly.state for anomaly in found(one)] == [AnomalyState.CLOSED])
        series = one.daemon._engines["plant"].parts.scorer.series
        assert max(int(series.state["windows"]["seq"][slot]) for slot in range(len(series))) == 2 * ROWS


def test_an_anomaly_of_a_series_that_does_not_go_on_is_closed_after_idle_after(tmp_path, sqlite_template):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.csv").write_bytes(HEADER + rows("a", 0, ROWS, outlier=True))
    with running(tmp_path, sqlite_template, plant(folder, idle_after="1h")) as one:
        one.until(lambda: one.read("plant") == ROWS and found(one))
        (folder / "2.csv").write_bytes(HEADER + rows("b", ROWS, 100))
        one.until(lambda: one.read("plant") == ROWS + 100)
        assert [anomaly.state for anomaly in found(one)] == [AnomalyState.OPEN]
        (folder / "3.csv").write_bytes(HEADER + rows("b", ROWS + 3700, 100))
        one.until(lambda: one.read("plant") == ROWS + 200)
        one.until(lambda: [anomaly.state for anomaly in found(one)] == [AnomalyState.CLOSED])
        assert found(one)[0].end_reason is EndReason.SILENT


def seqs(one: Running) -> list[int]:
    """Return the number of points that each series in memory has had."""
    series = one.daemon._engines["plant"].parts.scorer.series
    return sorted(int(series.state["windows"]["seq"][slot]) for slot in range(len(series)))


def test_buffered_records_at_the_end_of_a_file_come_before_the_next_file(tmp_path, sqlite_template):
    """They are released once the series go on, also after a restart in between."""
    folder, changes = tmp_path / "in", {"lateness": "10s"}
    folder.mkdir()
    (folder / "b.csv").write_bytes(HEADER + rows("a", 0, ROWS))
    with running(tmp_path, sqlite_template, plant(folder, **changes)) as one:
        one.until(lambda: one.read("plant") == ROWS and one.buffered("plant") == 10)
    (folder / "a.csv").write_bytes(HEADER + rows("a", ROWS, ROWS))
    for _ in range(2):  # the second time nothing is left to release, and nothing is scored twice
        with running(tmp_path, sqlite_template, plant(folder, **changes)) as one:
            one.until(lambda: one.read("plant") == 2 * ROWS and len(seqs(one)) == 2)
            one.until(lambda: seqs(one) == [ROWS, 2 * ROWS - 10])
            assert one.buffered("plant") == 10
            with one.database.read() as connection:
                scored = sum(at.counts.scored for at in positions.all_of(connection, "plant"))
            assert scored == 2 * ROWS - 10


def test_a_file_beside_another_leaves_its_buffered_records(tmp_path, sqlite_template):
    """They are not released for other series, nor for rows that are earlier."""
    folder, changes = tmp_path / "in", {"lateness": "10s"}
    folder.mkdir()
    (folder / "1.csv").write_bytes(HEADER + rows("a", 0, ROWS))
    with running(tmp_path, sqlite_template, plant(folder, **changes)) as one:
        one.until(lambda: one.read("plant") == ROWS and one.buffered("plant") == 10)
        (folder / "2.csv").write_bytes(HEADER + rows("b", ROWS, ROWS))
        one.until(lambda: one.read("plant") == 2 * ROWS)
        assert one.buffered("plant") == 20
        (folder / "3.csv").write_bytes(HEADER + rows("a", ROWS - 5, ROWS))
        one.until(lambda: one.read("plant") == 3 * ROWS)
        assert one.buffered("plant") == 30


def test_an_anomaly_of_a_file_that_is_moved_away_is_closed(tmp_path, sqlite_template):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.csv").write_bytes(HEADER + rows("a", 0, ROWS, outlier=True))
    (folder / "2.csv").write_bytes(HEADER + rows("b", ROWS, 100))
    with running(tmp_path, sqlite_template, plant(folder)) as one:
        one.until(lambda: one.read("plant") == ROWS + 100 and found(one))
        (folder / "1.csv").rename(tmp_path / "1.csv")
        one.until(lambda: [anomaly.state for anomaly in found(one)] == [AnomalyState.CLOSED])
        assert found(one)[0].end_reason is EndReason.FILE_REMOVED


def test_a_file_that_is_moved_away_before_the_next_one_begins_hands_its_series_on(tmp_path, sqlite_template):
    folder = tmp_path / "in"
    folder.mkdir()
    with running(tmp_path, sqlite_template, plant(folder)) as one:
        for number in range(3):
            (folder / f"{number}.csv").write_bytes(HEADER + rows("a", number * ROWS, ROWS))
            one.until(lambda number=number: one.read("plant") == (number + 1) * ROWS)
            assert seqs(one)[-1] == (number + 1) * ROWS
            (folder / f"{number}.csv").rename(tmp_path / f"{number}.csv")
            one.until(lambda: not one.daemon._engines["plant"].parts.ownership.positions)
    # also across a restart, and not from a later file to an earlier one
    (folder / "3.csv").write_bytes(HEADER + rows("a", 3 * ROWS, ROWS))
    (folder / "past.csv").write_bytes(HEADER + rows("a", -100, 100))
    with running(tmp_path, sqlite_template, plant(folder)) as one:
        one.until(lambda: one.read("plant") == 4 * ROWS + 100)
        assert seqs(one)[-1] == 4 * ROWS
        assert 100 in seqs(one)


def test_a_file_that_is_moved_while_no_daemon_runs_is_ended_at_the_start(tmp_path, sqlite_template):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.csv").write_bytes(HEADER + rows("a", 0, ROWS, outlier=True))
    changes = {"lateness": "10s"}
    with running(tmp_path, sqlite_template, plant(folder, **changes)) as one:
        one.until(lambda: one.read("plant") == ROWS and one.buffered("plant") == 10)
    (folder / "1.csv").rename(tmp_path / "1.csv")
    with running(tmp_path, sqlite_template, plant(folder, **changes)) as one:
        one.until(lambda: [anomaly.state for anomaly in found(one)] == [AnomalyState.CLOSED])
        assert found(one)[0].end_reason is EndReason.FILE_REMOVED
        assert one.buffered("plant") == 0
        (folder / "2.csv").write_bytes(HEADER + rows("a", ROWS, ROWS))
        one.until(lambda: one.read("plant") == 2 * ROWS)
        assert seqs(one)[-1] == 2 * ROWS - 10


def test_an_anomaly_without_a_state_is_closed_at_the_start(tmp_path, sqlite_template):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.csv").write_bytes(HEADER + rows("a", 0, ROWS, outlier=True))
    with running(tmp_path, sqlite_template, plant(folder)) as one:
        one.until(lambda: one.read("plant") == ROWS and found(one))
        database = one.database
        one.stopping.set()
        one.thread.join(60)
        with database.begin() as connection:
            connection.execute(delete(SnapshotRow))
    (folder / "1.csv").rename(tmp_path / "1.csv")
    with running(tmp_path, sqlite_template, plant(folder)) as one:
        one.until(lambda: [anomaly.state for anomaly in found(one)] == [AnomalyState.CLOSED])
        assert found(one)[0].end_reason is EndReason.FILE_REMOVED


def test_records_that_are_buffered_at_the_end_of_a_file_are_scored(tmp_path, sqlite_template):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.csv").write_bytes(HEADER + rows("a", 0, ROWS))
    with running(tmp_path, sqlite_template, plant(folder, idle_after="1h", lateness="10s")) as one:
        one.until(lambda: one.read("plant") == ROWS)
        (folder / "2.csv").write_bytes(HEADER + rows("a", ROWS + 3700, 100))
        one.until(lambda: one.read("plant") == ROWS + 100)
        one.until(lambda: one.buffered("plant") == 10, seconds=30)


def test_a_series_that_goes_on_in_many_files_is_one_series_for_the_limit(tmp_path, sqlite_template):
    folder, files = tmp_path / "in", 8
    folder.mkdir()
    for number in range(files):
        content = b"".join(rows(series, 100 * number, 100) for series in ("a", "b"))
        (folder / f"{number}.csv").write_bytes(HEADER + content)
    with running(tmp_path, sqlite_template, plant(folder, max_series=3)) as one:
        one.until(lambda: one.read("plant") == files * 200)
        with one.database.read() as connection:
            counts = [position.counts for position in positions.all_of(connection, "plant")]
            assert faults.query(connection, open_only=True) == []
        assert sum(one.filtered for one in counts) == 0
        (folder / "8.csv").write_bytes(HEADER + b"".join(rows(series, 800, 100) for series in "abcd"))
        one.until(lambda: one.read("plant") == files * 200 + 400)
        with one.database.read() as connection:
            counts = [position.counts for position in positions.all_of(connection, "plant")]
        assert sum(one.filtered for one in counts) == 100, "the fourth series"


def test_counts_that_stop_with_the_folder_are_zero_by_the_clock(tmp_path, sqlite_template, monkeypatch):
    monkeypatch.setattr(engine, "CHECK_SECONDS", 0.1)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.csv").write_bytes(HEADER + rows("a", 0, 60))
    (folder / "2.csv").write_bytes(HEADER + rows("a", 60, 60))
    counted = stream(folder / "*.csv") | {
        "aggregate": {"every": "1s", "values": {"rows": "count"}},
        "every": None,
        "limits": {"rows": {"min": 1}},
    }
    with running(tmp_path, sqlite_template, {"plant": counted}) as one:
        one.until(lambda: one.read("plant") == 120)
        one.until(lambda: len(one.daemon._engines["plant"].parts.silence._seen) == 2)
        with (folder / "2.csv").open("ab") as file:
            file.write(rows("a", 120, 1))
        one.until(lambda: one.found("plant"))
        one.until(lambda: one.buffered("plant") == 0 or one.found("plant")[0].points > 1)
    (anomaly,) = one.found("plant")
    assert anomaly.observed == [0.0]
    assert anomaly.start_ns == (START + 121) * 10**9
    assert anomaly.partition.topic.endswith("2.csv")
