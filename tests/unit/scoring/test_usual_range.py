"""AnomalyTracker under the decision "usual_range": the row told, closing, severity, takeover."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from detectors.base import CAUSES, Points, Verdicts
from pipeline.core.deviation_severity import severity_of_deviation
from pipeline.core.types import Anomaly, AnomalyState, Partition
from pipeline.scoring.anomaly_tracker import AnomalyTracker
from pipeline.scoring.provenance import Provenance, Scored
from storage.results import anomalies
from storage.tables.stream import Base

P = Partition("t", 0)
PROVENANCE = Provenance("plant", ("x", "y"), 1e-4, 3, "c", "m", "usual_range")


@dataclass(frozen=True)
class Row:
    """One row outside its usual range, which is −10 to 10 for every quantity."""

    cause: str = "unusual_value"
    observed: float = 20.0
    channel: int = 0


IN = None


def scored(rows: list[Row | None], first: int = 0) -> Scored:
    n = len(rows)
    seq = np.arange(first, first + n, dtype=np.int64)
    f32 = np.float32
    points = Points(
        np.zeros(n, np.int32),
        seq * 60,
        np.column_stack([np.full(n, 3.0), np.full(n, 7.0)]),
        np.zeros(n, np.int32),
        np.full(n, 60, np.int64),
    )
    column = np.ones((n, 2), f32)
    given_rows = [row or Row(observed=np.nan) for row in rows]
    observed = np.array([row.observed for row in given_rows], f32)
    verdicts = Verdicts(
        np.full(n, 0.5, f32),
        np.full(n, 0.3, f32),
        np.array([row is not None for row in rows]),
        column * 6,
        column * 5,
        column * 8,
        column / 2,
        np.full(n, 2, np.uint8),
        np.array([CAUSES.index(row.cause) for row in given_rows], np.uint8),
        np.nan_to_num(np.abs(observed) / 10),
        np.array([row.channel for row in given_rows], np.int16),
        np.sign(np.nan_to_num(observed)).astype(np.int8),
        observed,
        np.full(n, -10, f32),
        np.full(n, 10, f32),
    )
    return Scored(points, verdicts, seq + 100, seq)


def tracker() -> AnomalyTracker:
    return AnomalyTracker(lambda slot: (P, f"s{slot}", {}))


def told(rows: list[Row | None]) -> list[Anomaly]:
    """Return the anomalies of a series in one batch, each in its last revision, by start."""
    batch = scored(rows)
    found = {a.id: a for a in tracker().advance(batch, PROVENANCE, np.array([len(rows) - 1]))}
    return sorted(found.values(), key=lambda a: a.start_ns)


def up(*sizes: float, cause: str = "unusual_value") -> list[Row | None]:
    return [Row(cause, size) for size in sizes]


def test_the_leading_channel_states_its_quantity_and_the_other_one_its_forecast() -> None:
    (one,) = told([Row("unusual_step", -30.0, channel=1)])
    assert (one.cause, one.direction, one.ratio, one.contribution) == ("unusual_step", "down", 3.0, [0, 1])
    assert (one.observed, one.expected, one.lower, one.upper) == ([3, -30], [6, 0], [5, -10], [8, 10])


def test_the_largest_row_of_the_first_run_is_told() -> None:
    (one,) = told([*up(20, 30), IN, IN, *up(40, 25), IN, IN, IN, *up(90)])
    assert (one.observed[0], one.peak_ns, one.peak_offset) == (40, 240, 104)
    assert (one.start_ns, one.end_ns, one.points) == (0, 540, 5)


def test_the_way_back_is_never_told() -> None:
    (one,) = told([Row("unusual_step", 20), IN, Row("unusual_step", -90), Row("unusual_level", 80)])
    assert (one.cause, one.direction, one.observed[0]) == ("unusual_step", "up", 20)


def test_a_later_reading_that_is_farther_outside_is_kept_beside_the_peak() -> None:
    (one,) = told([Row("relation", 20), *[IN] * 5, *up(90, 60), Row("unusual_value", -200)])
    assert (one.cause, one.observed[0]) == ("relation", 20)
    far = one.context and one.context.farthest
    assert far is not None
    assert (far.cause, far.observed, far.low, far.high, far.ratio, far.value) == (
        "unusual_value",
        90,
        -10,
        10,
        9,
        3,
    )
    for cause in ("unusual_step", "unusual_noise"):  # a trend can end with a step back
        (back,) = told([Row(cause, 20), IN, Row("unusual_step", -90)])
        assert back.context is not None
        assert back.context.farthest is None


def test_an_oscillation_keeps_its_largest_mean_change() -> None:
    rows: list[Row | None] = [Row("unusual_step", 20), IN, Row("unusual_step", -25), Row("unusual_noise", 50)]
    (one,) = told(rows)
    assert one.context is not None
    assert one.context.farthest is not None
    assert (one.context.farthest.cause, one.context.farthest.observed) == ("unusual_noise", 50)


def test_a_standstill_counts_the_rows_in_which_another_quantity_leads() -> None:
    rows: list[Row | None] = [
        Row("flatline", 20),
        Row("flatline", 21),
        Row("relation", 30, 1),
        Row("relation", 30, 1),
    ]
    (one,) = told(rows)
    assert (one.cause, one.observed[0]) == ("flatline", 23)
    moved = scored(rows)
    moved.points.values[2:, 0] = 4.0
    (one,) = tracker().advance(moved, PROVENANCE, np.array([3]))
    assert one.observed[0] == 21


def test_the_kind_of_the_leading_channel_is_kept() -> None:
    known = replace(PROVENANCE, kinds=("price", "count"))
    (one,) = tracker().advance(scored([Row(channel=1)]), known, np.array([0]))
    assert one.context is not None
    assert one.context.kind == "count"


def test_changes_of_logarithmic_presets_are_relative() -> None:
    relative = replace(PROVENANCE, relative_changes=True)
    for cause, expected in (("unusual_step", True), ("relation", True), ("unusual_value", False)):
        (one,) = tracker().advance(scored([Row(cause)]), relative, np.array([0]))
        assert one.relative is expected


def test_another_channel_does_not_replace_the_first() -> None:
    (one,) = told([Row(), Row(channel=1, observed=80)])
    assert (one.contribution, one.observed) == ([1, 0], [20, 7])


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ([Row("unusual_step", 50), IN, IN, Row(observed=20)], "unusual_value"),
        ([Row("unusual_step", 50), IN, IN, IN, Row(observed=20)], "unusual_step"),
        ([Row("unusual_step", 50), Row(observed=-20)], "unusual_step"),
        ([Row("unusual_step", 50), Row(observed=20, channel=1)], "unusual_step"),
        ([Row("absence", -50), Row(observed=-20)], "unusual_value"),
        ([Row("flatline", 50), Row(observed=20)], "flatline"),
        ([Row("forecast", 50), Row(observed=20)], "forecast"),
    ],
)
def test_the_value_takes_over_in_the_first_rows(rows: list[Row | None], cause: str) -> None:
    (one,) = told(rows)
    assert one.cause == cause
    # The value is the same in all rows, so the standstill goes on.
    assert one.observed[0] == (rows[-1].observed if cause == "unusual_value" else 50 + (cause == "flatline"))


def test_an_anomaly_closes_after_twelve_rows_in_range() -> None:
    assert len(told([Row(), *[IN] * 11, Row()])) == 1
    two = told([Row(), *[IN] * 12, Row()])
    assert [one.state for one in two] == [AnomalyState.CLOSED, AnomalyState.OPEN]
    (closed,) = told([Row(), *[IN] * 12])
    assert (closed.state, closed.end_ns) == (AnomalyState.CLOSED, 0)


def test_a_longer_close_after_counts() -> None:
    patient = replace(PROVENANCE, close_after=30)
    (one,) = tracker().advance(scored([Row(), *[IN] * 20]), patient, np.array([20]))
    assert one.state is AnomalyState.OPEN


def test_a_surprising_row_without_a_flag_extends_nothing() -> None:
    batch = scored([Row(), IN])
    batch.verdicts.surprise[:] = 9
    (one,) = tracker().advance(batch, PROVENANCE, np.array([1]))
    assert one.points == 1


#: Robust spreads over the half width of the usual range of normal noise (about 5.5 spreads).
HALF_RANGE_SPREADS = 5.5


@pytest.mark.parametrize(
    ("spreads", "rows", "severity"),
    [
        (8, 1, "warning"),
        (8, 10, "major"),
        (8, 60, "major"),
        (20, 1, "major"),
        (20, 10, "major"),
        (20, 60, "critical"),
        (40, 1, "critical"),
        (40, 10, "critical"),
        (40, 60, "critical"),
        (6, 1, "info"),
        (6, 10, "warning"),
        (6, 60, "major"),
    ],
)
def test_severity_of_canonical_shapes(spreads: float, rows: int, severity: str) -> None:
    assert severity_of_deviation(spreads / HALF_RANGE_SPREADS, rows) == severity
    (one,) = told(up(*[spreads / HALF_RANGE_SPREADS * 10] * rows))
    assert one.severity == severity


def test_severity_only_rises() -> None:
    it, found = tracker(), []
    for seq, row in enumerate([Row("unusual_step", 70), Row(observed=11), *[IN] * 12]):
        changed = it.advance(scored([row], seq), PROVENANCE, np.array([seq]))
        found += [(one.cause, one.severity, one.state) for one in changed]
    assert found == [
        ("unusual_step", "critical", "open"),
        ("unusual_value", "critical", "open"),
        ("unusual_value", "critical", "closed"),
    ]


CAUSE_WORDS = ("unusual_value", "unusual_step", "unusual_level", "flatline", "absence", "forecast")
rows_outside = st.builds(
    Row, st.sampled_from(CAUSE_WORDS), st.sampled_from([-40.0, -11.0, 12.0, 50.0]), st.integers(0, 1)
).filter(lambda row: row.cause != "flatline" or row.observed > 0)  # the length of a standstill


@given(
    st.lists(st.one_of(st.none(), st.none(), rows_outside, st.just([None] * 11)), min_size=1, max_size=40),
    st.data(),
)
def test_cuts_and_takeovers_do_not_change_an_anomaly(parts: list, data: st.DataObject) -> None:
    rows = [row for part in parts for row in (part if isinstance(part, list) else [part])]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=12)) | {len(rows)})
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    start = 0
    for end in cuts:
        it = tracker()  # a new owner: only the database goes from one batch to the next
        with engine.begin() as connection:
            for one in anomalies.open_of(connection, "plant", P):
                it.restore(0, one, start - 1)
            changed = it.advance(scored(rows[start:end], start), PROVENANCE, np.array([end - 1]))
            anomalies.upsert(connection, changed)
        start = end
    with engine.begin() as connection:
        stored = anomalies.query(connection)
    whole = told(rows)
    assert [replace(a, revision=0) for a in reversed(stored)] == [replace(a, revision=0) for a in whole]
    for one in whole:
        channel = int(np.argmax(one.contribution))
        observed, low, high = one.observed[channel], one.lower[channel], one.upper[channel]
        assert not low <= observed <= high
        assert one.direction == (
            "mixed" if one.cause == "flatline" else "up" if observed > one.expected[channel] else "down"
        )
