"""AnomalyTracker: opening, growing, closing, restoring."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.base import CAUSES, Points, Verdicts
from pipeline.core.types import Anomaly, AnomalyState, Partition, Severity
from pipeline.core.verdict_words import CAUSE_TEXTS
from pipeline.scoring.anomaly_tracker import AnomalyTracker, severity_of
from pipeline.scoring.provenance import Provenance, Scored
from pipeline.services.explain import describe_anomaly

P = Partition("t", 0)
PROVENANCE = Provenance("plant", ("x",), alarm_rate=1e-4, close_after=2, config_hash="c", model_version="m")


def scored(flags: list[bool], first: int = 0, surprise: list[float] | None = None, slot: int = 0) -> Scored:
    n = len(flags)
    f32 = np.float32
    seq = np.arange(first, first + n, dtype=np.int64)
    points = Points(
        np.full(n, slot, np.int32),
        seq * 60,
        np.full((n, 1), 5.0),
        np.zeros(n, np.int32),
        np.full(n, 60, np.int64),
    )
    rare = np.array(surprise or [5.0 if flag else 0.0 for flag in flags], f32)
    column = np.ones((n, 1), f32)
    verdicts = Verdicts(
        1 - 10.0**-rare,
        rare,
        np.array(flags),
        column,
        column * 0,
        column * 2,
        column,
        np.full(n, 2, np.uint8),
        np.zeros(n, np.uint8),
    )
    return Scored(points, verdicts, seq + 100, seq)


def run(intervals: AnomalyTracker, batch: Scored) -> list[Anomaly]:
    now = np.array([batch.seq[-1] if len(batch.seq) else 0])
    return intervals.advance(batch, PROVENANCE, now)


def intervals() -> AnomalyTracker:
    return AnomalyTracker(lambda slot: (P, f"s{slot}", {"sensor": f"s{slot}"}))


def test_an_anomaly_keeps_the_cause_at_its_peak() -> None:
    it, batch = intervals(), scored([True, True, True], surprise=[5, 7.5, 6])
    batch.verdicts.cause = np.array(
        [CAUSES.index(word) for word in ("step", "level_shift", "shape")], np.uint8
    )
    (opened,) = run(it, batch)
    assert opened.cause == "level_shift"
    assert "Cause: level shift: the mean of the last rows has moved." in describe_anomaly(opened)


def test_there_is_a_word_for_every_evidence() -> None:
    assert {"none", *CAUSE_TEXTS} == set(CAUSES)


def test_an_anomaly_opens_grows_and_closes() -> None:
    it = intervals()
    (opened,) = run(it, scored([False, True, True], surprise=[0, 5, 7.5]))
    assert (opened.state, opened.points, opened.start_ns, opened.peak_offset) == (
        AnomalyState.OPEN,
        2,
        60,
        102,
    )
    assert (opened.severity, opened.direction, opened.forecaster) == (Severity.MAJOR, "up", "seasonal")
    assert run(it, scored([False], first=3)) == []
    (closed,) = run(it, scored([False], first=4))
    assert (closed.id, closed.state, closed.end_ns, closed.revision) == (
        opened.id,
        AnomalyState.CLOSED,
        120,
        2,
    )
    assert len(it) == 0


def test_an_anomaly_goes_on_while_its_event_lasts_though_only_its_first_row_is_flagged() -> None:
    it = intervals()
    run(it, scored([True, False, False, False, False], surprise=[5, 3.7, 0, 3.9, 3.7]))
    (closed,) = run(it, scored([False] * 3, first=5))
    assert (closed.state, closed.points, closed.end_ns, closed.surprise) == (AnomalyState.CLOSED, 4, 240, 5.0)
    assert run(it, scored([False] * 2, first=8, surprise=[3.9, 3.9])) == []  # nothing opens without a flag


def test_the_way_back_to_what_is_usual_does_not_turn_an_anomaly_round() -> None:
    batch = scored([True, True], surprise=[7, 8])
    # far below its band, then back within it, above what is expected
    batch.points.values[:] = [[-9.0], [1.5]]
    (opened,) = run(intervals(), batch)
    assert (opened.direction, opened.surprise, opened.peak_offset) == ("down", 7.0, 100)
    batch.points.values[:] = [[-9.0], [5.0]]  # beyond the other end: that is news
    assert run(intervals(), batch)[0].direction == "up"


def test_the_identity_does_not_depend_on_who_found_it() -> None:
    (a,) = run(intervals(), scored([True]))
    (b,) = run(intervals(), scored([True, False, True]))
    assert a.id == b.id


def test_a_restored_anomaly_closes_even_if_its_series_counts_from_zero() -> None:
    it = intervals()
    (opened,) = run(it, scored([True], first=500))
    other = intervals()
    other.restore(0, opened, seq=0)
    (closed,) = run(other, scored([False, False, False]))
    assert closed.id == opened.id


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.data())
def test_how_the_stream_is_cut_into_batches_does_not_matter(flags: list[bool], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(flags)))) | {len(flags)})

    def ended(pieces: list[int]) -> dict:
        it, found, start = intervals(), {}, 0
        for end in pieces:
            for anomaly in run(it, scored(flags[start:end], first=start)):
                found[anomaly.id] = (anomaly.start_ns, anomaly.end_ns, anomaly.points, anomaly.state)
            start = end
        return found

    assert ended(cuts) == ended([len(flags)])


@pytest.mark.parametrize(
    ("surprise", "level"), [(4.2, "info"), (5, "warning"), (7.1, "major"), (30, "critical")]
)
def test_severity_counts_decades_over_the_alarm_rate(surprise: float, level: str) -> None:
    assert severity_of(surprise, 1e-4) == level


def test_a_filled_point_opens_nothing() -> None:
    filled = scored([True, True])
    filled.offset[0] = -1
    (opened,) = run(intervals(), filled)
    assert (opened.points, opened.first_offset) == (1, 101)
