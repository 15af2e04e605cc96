"""Anomalies, dead letters, late records, faults and retention, the same on both databases."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from pipeline.core.errors import InputError
from pipeline.core.types import (
    Anomaly,
    AnomalyState,
    DeadLetter,
    Fault,
    FaultKind,
    LateRecord,
    Partition,
    Severity,
)
from storage import retention
from storage.history.segments import Segment, SegmentStore, folder_of
from storage.results import anomalies, dead_letters, faults, late_records
from storage.sql.column_types import safe
from storage.stream_state import offloaded_series, positions

P = Partition("sensors", 2)


def anomaly(series="hall/pump", start_ns=1000, **changes):
    made = Anomaly(
        id=Anomaly.identify("plant", series, start_ns),
        stream="plant",
        series=series,
        labels={"site": "hall", "sensor": "pump"},
        state=AnomalyState.CLOSED,
        severity=Severity.MAJOR,
        direction="up",
        start_ns=start_ns,
        end_ns=start_ns + 50,
        peak_ns=start_ns + 20,
        points=6,
        score=0.99999,
        surprise=5.2,
        channels=["temperature", "pressure"],
        observed=[81.5, math.inf],
        expected=[20.25, 1e-300],
        lower=[19.0, -math.inf],
        upper=[21.5, 1.7976931348623157e308],
        contribution=[1.0, 0.0],
        forecaster="lstm",
        model_version="standard-1",
        config_hash="abc",
        partition=P,
        first_offset=10,
        last_offset=2**62,
        peak_offset=12,
        last_flag_seq=77,
    )
    return replace(made, **changes)


def test_an_anomaly_comes_back_as_it_was(database):
    one = anomaly()
    with database.begin() as connection:
        anomalies.upsert(connection, [one])
        anomalies.upsert(connection, [])
    with database.read() as connection:
        assert anomalies.query(connection) == [one]
        assert anomalies.get(connection, str(one.id)) == one


def test_the_words_of_0_1_0_are_read_as_the_current_ones(database):
    one = anomaly(forecaster="last_value", cause="seasonal_profile")
    with database.begin() as connection:
        anomalies.upsert(connection, [one])
        assert connection.execute(text("SELECT guard, evidence FROM anomalies")).one() == (
            "last_value",
            "seasonal_profile",
        )
        connection.execute(text("UPDATE anomalies SET guard = 'last', evidence = 'season'"))
    with database.read() as connection:
        assert anomalies.query(connection) == [one]


def test_a_missing_value_stays_missing(database):
    one = anomaly(observed=[math.nan, 1.0])
    with database.begin() as connection:
        anomalies.upsert(connection, [one])
    with database.read() as connection:
        found = anomalies.get(connection, one.id.hex)
    assert math.isnan(found.observed[0])
    assert found.observed[1] == 1.0


def test_writing_again_changes_one_row_and_an_older_revision_nothing(database):
    one = anomaly(state=AnomalyState.OPEN)
    grown = replace(one, points=9, surprise=8.0)
    revised = replace(grown, revision=1, severity=Severity.CRITICAL)
    for step, expected in (
        ([one], one),
        ([one, grown], grown),
        ([grown], grown),
        ([revised], revised),
        ([one], revised),
    ):
        with database.begin() as connection:
            anomalies.upsert(connection, step)
            assert anomalies.query(connection) == [expected]


def test_a_burst_of_anomalies(database):
    burst = [anomaly(series=f"s{i}") for i in range(3000)]
    with database.begin() as connection:
        anomalies.upsert(connection, burst)
    with database.read() as connection:
        assert len(anomalies.query(connection)) == 3000


def test_the_new_owner_finds_the_open_ones_of_its_partition(database):
    mine = anomaly("a", state=AnomalyState.OPEN)
    others = [
        anomaly("b"),
        anomaly("c", state=AnomalyState.OPEN, partition=Partition("sensors", 3)),
        anomaly("d", state=AnomalyState.OPEN, stream="edge"),
    ]
    with database.begin() as connection:
        anomalies.upsert(connection, [mine, *others])
    with database.read() as connection:
        assert anomalies.open_of(connection, "plant", P) == [mine]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [4000, 3000, 2000, 1000]),
        ({"stream": "plant"}, [3000, 2000, 1000]),
        ({"series": "hall/*"}, [2000, 1000]),
        ({"series": "HALL/*"}, []),
        ({"series": "hall/pump-?"}, [2000, 1000]),
        ({"series": "hall/pump-1"}, [1000]),
        ({"series": "*/p[1].x%_"}, [3000]),
        ({"state": AnomalyState.OPEN}, [2000]),
        ({"severity": Severity.MAJOR}, [4000, 1000]),
        ({"severity": Severity.CRITICAL}, [4000]),
        ({"since_ns": 2050}, [4000, 3000, 2000]),
        ({"since_ns": 2051}, [4000, 3000]),
        ({"until_ns": 2000}, [1000]),
        ({"since_ns": 1000, "until_ns": 3001, "limit": 2}, [3000, 2000]),
    ],
)
def test_questions(database, filters, found):
    rows = [
        anomaly("hall/pump-1", 1000),
        anomaly("hall/pump-2", 2000, state=AnomalyState.OPEN, severity=Severity.INFO),
        anomaly("yard/p[1].x%_", 3000, severity=Severity.WARNING),
        anomaly("eth0", 4000, stream="edge", severity=Severity.CRITICAL),
    ]
    with database.begin() as connection:
        anomalies.upsert(connection, rows)
        assert [a.start_ns for a in anomalies.query(connection, **filters)] == found


def test_an_anomaly_by_the_beginning_of_its_id(database):
    rows = [anomaly(f"s{i}") for i in range(40)]
    with database.begin() as connection:
        anomalies.upsert(connection, rows)
    with database.read() as connection:
        for one in rows:
            assert anomalies.get(connection, str(one.id)[:13]) == one
            assert anomalies.get(connection, one.id.hex[:12].upper()) == one
        with pytest.raises(InputError, match="several anomalies"):
            anomalies.get(
                connection, next(d for d in "0123456789abcdef" if sum(a.id.hex[0] == d for a in rows) > 1)
            )
        with pytest.raises(InputError, match="there is no anomaly"):
            anomalies.get(connection, "0" * 20)
        for wrong in ("", "xyz", "a" * 33):
            with pytest.raises(InputError, match="not an anomaly id"):
                anomalies.get(connection, wrong)


def letter(offset=7, **changes):
    headers = [("trace", b"\x00\xff"), ("empty", None), ("nul\x00", b"")]
    return replace(
        DeadLetter(
            "plant", P, offset, 5, b"\x00k", b"{broken\xff", headers, "not_json", "at byte 1: \x00 \ud800"
        ),
        **changes,
    )


def test_a_dead_letter_keeps_its_bytes(database):
    with database.begin() as connection:
        dead_letters.add(connection, [letter(), letter(8, key=None, value=None, headers=[])])
        dead_letters.add(connection, [])
    with database.read() as connection:
        second, first = dead_letters.query(connection)
        assert (second.letter.key, second.letter.value, second.letter.headers) == (None, None, [])
        expected = letter()
        assert (first.letter.key, first.letter.value) == (expected.key, expected.value)
        assert first.letter.headers == [("trace", b"\x00\xff"), ("empty", None), ("nul␀", b"")]
        assert first.letter.detail == "at byte 1: ␀ \\ud800"
        assert dead_letters.get(connection, first.id) == first
        with pytest.raises(InputError, match="no dead letter 999"):
            dead_letters.get(connection, 999)


def test_dead_letters_that_were_put_in_again(database):
    with database.begin() as connection:
        dead_letters.add(connection, [letter(i, reason="not_json" if i % 2 else "no_time") for i in range(6)])
        before = dead_letters.query(connection, reason="no_time")
        dead_letters.mark_replayed(connection, [kept.id for kept in before])
        assert [kept.letter.offset for kept in dead_letters.query(connection, replayed=False)] == [5, 3, 1]
        assert [
            kept.letter.offset
            for kept in dead_letters.query(connection, stream="plant", replayed=True, limit=2)
        ] == [4, 2]
        assert dead_letters.query(connection, stream="edge") == []
        assert dead_letters.query(connection, since_ns=time.time_ns()) == []
        assert len(dead_letters.query(connection, until_ns=time.time_ns())) == 6
        assert dead_letters.counts(connection) == {"not_json": 3}
        assert dead_letters.counts(connection, "edge") == {}


def test_late_records(database):
    records = [LateRecord("plant", P, i, f"s{i % 2}", 100 + i, [1.5, math.nan]) for i in range(4)]
    with database.begin() as connection:
        late_records.add(connection, records)
        late_records.add(connection, [])
        found = late_records.query(connection, stream="plant", series="s1")
        assert [r.offset for r in found] == [3, 1]
        assert math.isnan(found[0].values[1])
        assert len(late_records.query(connection, limit=3, since_ns=0)) == 3


def test_a_late_record_that_was_too_old_revises_nothing(database):
    young, old = (LateRecord("plant", P, i, "s", 100 + i, [1.5], revises=i == 0) for i in range(2))
    with database.begin() as connection:
        late_records.add(connection, [young, old])
        assert [one.record for one in late_records.pending(connection, "plant", [P], 9)] == [young]
        assert [one.record for one in late_records.of_series(connection, "plant", ["s"])] == [young]
        assert late_records.reopen(connection, "plant", P) == 0
        assert len(late_records.query(connection, stream="plant")) == 2


def test_a_fault_is_open_once_while_it_lasts(database):
    gap = Fault(
        "plant",
        FaultKind.RETENTION_GAP,
        "offsets 3 … 9 are gone",
        100,
        P,
        detail={"from": 3, "ratio": math.inf},
    )
    whole = Fault("plant", FaultKind.SOURCE_DOWN, "the broker is away", 101)
    with database.begin() as connection:
        for fault in (gap, gap, replace(gap, started_ns=150), whole, whole):
            faults.save(connection, fault)
        assert faults.query(connection) == [whole, replace(gap, detail={"from": 3, "ratio": "inf"})]
        faults.save(connection, replace(gap, ended_ns=200))
        assert not faults.close(connection, "plant", FaultKind.RETENTION_GAP, P, 201)
        assert faults.close(connection, "plant", FaultKind.SOURCE_DOWN, None, 202)
        assert faults.query(connection, open_only=True) == []
        faults.save(connection, replace(gap, ended_ns=200))
        faults.save(connection, replace(gap, started_ns=300))
        assert [(f.started_ns, f.ended_ns) for f in faults.query(connection, stream="plant")] == [
            (300, None),
            (101, 202),
            (100, 200),
        ]
        assert len(faults.query(connection, since_ns=101, limit=1)) == 1


def test_a_fault_that_began_and_ended_while_the_database_was_away(database):
    over = Fault("plant", FaultKind.DATABASE_DOWN, "no answer", 100, ended_ns=200)
    with database.begin() as connection:
        faults.save(connection, over)
        faults.save(connection, over)
        assert faults.query(connection) == [over]


@dataclass
class Policy:
    keep_anomalies: timedelta = timedelta(days=365)
    keep_dead_letters: timedelta = timedelta(days=30)
    keep_audit: timedelta = timedelta(days=365)
    keep_history: timedelta = timedelta(days=30)
    keep_history_bytes: int | None = None


def test_retention_takes_what_is_old_and_over(database, monkeypatch):
    monkeypatch.setattr(retention, "ROWS_PER_TRANSACTION", 7)
    owned = positions.acquire(database, "plant", P, "me", "")
    with database.begin() as connection:
        anomalies.upsert(
            connection, [anomaly(f"s{i}") for i in range(20)] + [anomaly("lasts", state=AnomalyState.OPEN)]
        )
        dead_letters.add(connection, [letter(i) for i in range(20)])
        late_records.add(connection, [LateRecord("plant", P, 1, "s", 1, [1.0])])
        offloaded_series.offload(
            connection, owned, [offloaded_series.SeriesState(f"s{i}", b"", "v", 1) for i in range(9)]
        )
        faults.save(connection, Fault("plant", FaultKind.STUCK_STREAM, "over", 1, ended_ns=2))
        faults.save(connection, Fault("plant", FaultKind.SOURCE_DOWN, "lasts", 1))
        for statement in (
            "UPDATE anomalies SET updated_ns = 5 WHERE series <> 's0'",
            'UPDATE dead_letters SET created_ns = 5 WHERE "offset" < 15',
            "UPDATE series_states SET evicted_ns = 5 WHERE series <> 's0'",
        ):
            connection.execute(text(statement))
    taken = retention.prune(database, Policy())
    assert {table: rows for table, rows in taken.items() if rows} == {
        "anomalies": 19,
        "dead_letters": 15,
        "faults": 1,
        "series_states": 8,
    }
    with database.read() as connection:
        assert {a.series for a in anomalies.query(connection)} == {"s0", "lasts"}
        assert [f.message for f in faults.query(connection)] == ["lasts"]
    assert set(retention.prune(database, Policy()).values()) == {0}


def test_retention_of_history_by_age_and_by_size(tmp_path):
    store, now = SegmentStore(str(tmp_path)), int(time.time())
    folder = folder_of("plant", P, "")
    made = [Segment(folder, i * 10, i * 10 + 10, 1, 0, 0, now - (10 - i) * 86_400) for i in range(10)]
    for segment in made:
        store.write(segment, b"x" * 100)
    store.write(replace(made[9], epoch=0), b"superseded")
    assert retention.prune_history(str(tmp_path), Policy(keep_history=timedelta(days=8, hours=1))) == 3
    assert [s.first for s in store.list()] == [s.first for s in made[2:]]
    half = next(tmp_path.rglob("*.parquet")).with_name("half.parquet.17.partial")
    half.write_bytes(b"")
    assert retention.prune_history(str(tmp_path), Policy(keep_history_bytes=250)) == 6
    assert [s.first for s in store.list()] == [80, 90]
    os.utime(half, (0, 0))
    assert retention.prune_history(str(tmp_path), Policy()) == 1
    assert not half.exists()


@given(st.text(st.characters(categories=None)))
def test_any_text_can_be_stored(text):
    shown = safe(text)
    assert "\x00" not in shown
    shown.encode("utf-8")
    assert safe(shown) == shown


def test_anomalies_are_found_by_all_labels_of_their_series(database):
    odd = 'odd"name\\$.x'
    first = anomaly("hall/pump", labels={"site": "hall", odd: "ü"})
    second = anomaly("hall/fan", labels={"site": "hall"})
    with database.begin() as connection:
        anomalies.upsert(connection, [first, second])
    with database.read() as connection:

        def found(**labels):
            return {one.series for one in anomalies.query(connection, labels=labels)}

        assert found(site="hall") == {"hall/pump", "hall/fan"}
        assert found(**{"site": "hall", odd: "ü"}) == {"hall/pump"}
        assert found(site="hal") == found(sensor="hall") == found(**{odd: "u"}) == set()


def test_retracted_anomalies_are_found_alone(database):
    kept, retracted = anomaly("a"), anomaly("b", points=0)
    with database.begin() as connection:
        anomalies.upsert(connection, [kept, retracted])
    with database.read() as connection:
        assert [one.series for one in anomalies.query(connection, retracted=True)] == ["b"]
        assert [one.series for one in anomalies.query(connection)] == ["a"]
