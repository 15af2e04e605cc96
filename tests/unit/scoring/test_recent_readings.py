"""The begin of a deviation of a mean, from the last readings of its series."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from detectors import build
from detectors.base import CAUSES, Points
from pipeline.config.schema import Stream
from pipeline.core.types import Anomaly, Partition
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.provenance import Scored
from pipeline.scoring.recent_readings import RECENT_ROWS, Begin, ReadingsBefore, RecentReadings
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.scoring.stream_state import RECENT_LAYER
from pipeline.sources.base import TableRecords
from tests.unit.scoring.test_usual_range import PROVENANCE, Row, scored

P = Partition("generated", 0)
EVERY_NS, FIRST_NS = 15 * 60 * 10**9, 1_772_409_600 * 10**9
ROWS, FAULT_ROW = 2_000, 1_900
#: Preset → cause of the anomalies of its series, and rows by which their begin may be stated late.
FAULTS = {"network": ("unusual_level", 4), "stock": ("unusual_noise", 0), "sensor": ("unusual_noise", 1)}


def table_of(preset: str) -> pa.Table:
    """Return four series in turn, of which the first two have a fault from ``FAULT_ROW`` on."""
    rng, names = np.random.default_rng(5), ["a", "b", "c", "d"]
    x = rng.normal(0, 1, (ROWS, len(names)))
    if preset == "network":
        rate = np.full(x.shape, 40.0)
        rate[FAULT_ROW:, :2] *= 1.5
        x = rng.poisson(rate).astype(float)
    elif preset == "stock":
        x[FAULT_ROW:, :2] += 2
        x = 80 * np.exp(np.cumsum(4e-4 * x, axis=0))
    else:
        x = rng.uniform(-1, 1, x.shape)
        x[FAULT_ROW:, :2] = np.where(np.arange(ROWS - FAULT_ROW) % 2, 0.9, -0.9)[:, None]
        x += 20 * np.sin(np.arange(ROWS)[:, None] / 96 * 2 * np.pi)
    time = np.repeat(FIRST_NS + np.arange(ROWS) * EVERY_NS, len(names))
    return pa.table({"s": names * ROWS, "t": time, "close": x.ravel()})


def scorer_of(preset: str) -> StreamScorer:
    stream = Stream.model_validate(
        {
            "source": {"memory": {}},
            "format": {"csv": {"series": "s", "time": "t", "time_unit": "ns", "values": ["close"]}},
            "preset": preset,
            "detector": "light",
            "every": "15m",
            "future": None,
        }
    )
    made = build(detector_spec(stream))
    return StreamScorer(provenance("generated", stream, made), stream, made)


def process(scorer: StreamScorer, table: pa.Table, start: int, stop: int, batch_rows: int) -> list[Anomaly]:
    """Return each change of an anomaly in some rows of a table."""
    found = []
    for first in range(start, stop, batch_rows):
        part = table.slice(first, min(batch_rows, stop - first))
        offsets = np.arange(first, first + len(part), dtype=np.int64)
        records = TableRecords(P, first, first + len(part), offsets, np.full(len(part), -1, np.int64), part)
        found += scorer.process([records]).anomalies
    return found


def last(changes: list[Anomaly]) -> dict[str, dict[str, Any]]:
    """Return the anomalies of the fault in their last revision, by id."""
    begun_ns = FIRST_NS + FAULT_ROW * EVERY_NS
    known = {str(one.id): asdict(one) for one in changes if one.start_ns >= begun_ns}
    return {
        name: {key: value for key, value in one.items() if key != "revision"} for name, one in known.items()
    }


@pytest.mark.parametrize("preset", FAULTS)
def test_the_begin_of_a_mean_is_that_of_the_values_that_moved_it(preset: str) -> None:
    table, (cause, late) = table_of(preset), FAULTS[preset]
    found = last(process(scorer_of(preset), table, 0, len(table), 3_000))
    assert found
    for one in found.values():
        assert one["cause"] == cause
        assert one["series"] in ("a", "b")
        assert 0 <= (one["onset_ns"] - FIRST_NS) / EVERY_NS - FAULT_ROW <= late
        assert one["course"]["uncertain_ns"] == 0


@pytest.mark.parametrize("preset", FAULTS)
def test_a_begin_does_not_depend_on_batches_or_restarts(preset: str) -> None:
    table, before = table_of(preset), 4 * (FAULT_ROW - 20)
    whole = last(process(scorer_of(preset), table, 0, len(table), 3_000))
    for batch_rows in (4, 7):
        scorer = scorer_of(preset)
        process(scorer, table, 0, before, 3_000)
        changes = []
        for start in range(before, len(table), 5 * batch_rows):
            stop = min(start + 5 * batch_rows, len(table))
            changes += process(scorer, table, start, stop, batch_rows)
            scorer = restarted(preset, scorer)
        assert last(changes) == whole


def restarted(preset: str, scorer: StreamScorer, without: str = "") -> StreamScorer:
    """Return a scorer that goes on with the snapshot of another one, which may lack a layer."""
    if without:
        del scorer.series.layers[without], scorer.series.state[without]
    other, nothing = scorer_of(preset), np.empty(0, np.int32)
    other.restore(P, scorer.meta(), list(scorer.pages(P, nothing)))
    open_ones = [scorer.tracker.open_at(slot) for slot in scorer.tracker.slots()]
    other.restore_open(P, [one for one in open_ones if one is not None])
    return other


def test_the_state_of_a_version_without_readings_goes_on() -> None:
    table, at = table_of("network"), 4 * (FAULT_ROW + 4)
    scorer = scorer_of("network")
    process(scorer, table, 0, at, 3_000)
    with capture_logs() as logged:
        scorer = restarted("network", scorer, without=RECENT_LAYER)
    assert logged == []
    found = last(process(scorer, table, at, len(table), 100))
    assert [one["cause"] for one in found.values()] == ["unusual_level"] * 2
    for one in found.values():  # the first kept reading is still beyond the limit
        assert one["course"]["uncertain_ns"] == 8 * EVERY_NS
        assert (one["onset_ns"] - FIRST_NS) / EVERY_NS == FAULT_ROW + 4


def readings(cause: str, kind: str, x: list[float], **row: Any) -> Begin | None:
    """Return the begin of a deviation whose last reading is flagged, of readings in two batches."""
    half = len(x) // 2
    known = replace(PROVENANCE, channels=("x",), kinds=(kind,))
    state, found = RecentReadings(1, related=True).initial(1), None
    for part in (x[:half], x[half:]):
        batch = batch_of(part, cause, **row)
        before = ReadingsBefore(state, np.zeros(len(part), np.bool_))
        found = before.begin(batch, np.intp(len(part) - 1), known, 0)
        before.keep(batch)
    return found


def batch_of(
    x: list[float], cause: str, observed: float = 20.0, low: float = -10.0, high: float = 10.0
) -> Scored:
    batch = scored([Row(cause, observed) for _ in x])
    points, verdicts = batch.points, batch.verdicts
    values = np.array(x)[:, None]
    batch.points = Points(points.slot, points.time, values, points.missed, points.every)
    verdicts.relation = values.astype(np.float32)
    verdicts.usual_low[:], verdicts.usual_high[:] = low, high
    verdicts.cause[:] = CAUSES.index(cause)
    return batch


@pytest.mark.parametrize(
    ("cause", "kind", "x", "row", "earlier"),
    [
        ("unusual_level", "measurement", [0, 0, 1, 15, 14, 16], {}, 2),
        ("unusual_level", "measurement", [0, 0, 30, 9, 14, 16], {}, 3),  # one of them is inside
        ("unusual_level", "count", [500, 700, 600, 0, 0, 0], {"observed": 2, "low": 9, "high": 900}, 2),
        ("relation", "measurement", [0, 1, 2, -14, -14, -16], {"observed": -12}, 2),
        ("unusual_noise", "measurement", [0, 1, 0, 20, 0, 20], {}, 2),
        ("unusual_noise", "price", [80, 80.1, 80, 90, 80, 90], {"observed": 0.1, "high": 0.05}, 2),
        ("trend", "price", [80, 79.9, 80, 80.5, 81, 81.5], {"observed": 0.02, "low": -0.01, "high": 0.01}, 3),
    ],
)
def test_a_begin_is_where_the_readings_go_beyond_the_limit(cause, kind, x, row, earlier) -> None:
    found = readings(cause, kind, x, **row)
    assert found is not None
    assert found[:2] == (earlier, True)
    assert (found.farthest is not None) == (cause == "unusual_level")


def test_the_farthest_value_since_the_begin_of_a_level_is_known() -> None:
    assert readings("unusual_level", "measurement", [0, 1, 1, 15, 19, 14]) == Begin(2, True, 19.0)


def test_a_begin_before_the_kept_readings_is_not_sure() -> None:
    long = [15.0] * (RECENT_ROWS + 4)
    assert readings("unusual_level", "measurement", long) == Begin(RECENT_ROWS - 1, False, 15.0)


def test_changes_that_32_bits_do_not_hold_say_nothing_about_a_begin() -> None:
    x = [1.7e9, 1.7e9 + 1, 1.7e9 - 1, 1.7e9 + 1]
    batch = batch_of(x, "unusual_noise", observed=2, high=1)
    before = ReadingsBefore(RecentReadings(1, related=False).initial(1), np.zeros(4, np.bool_))
    known = replace(PROVENANCE, channels=("x",), kinds=("measurement",))
    assert before.begin(batch, np.intp(3), known, 0) is None


def test_a_series_that_is_reset_begins_without_readings() -> None:
    state, restart = RecentReadings(1, related=True).initial(1), np.zeros(4, np.bool_)
    known = replace(PROVENANCE, channels=("x",), kinds=("measurement",))
    ReadingsBefore(state, restart).keep(batch_of([15, 15, 15, 15], "unusual_level"))
    restart[2] = True
    before, batch = ReadingsBefore(state, restart), batch_of([15, 15, 15, 15], "unusual_level")
    assert before.begin(batch, np.intp(1), known, 0) == Begin(5, False, 15.0)
    assert before.begin(batch, np.intp(3), known, 0) == Begin(1, False, 15.0)
    before.keep(batch)
    assert np.isfinite(state["values"]).sum() == 2


@pytest.mark.parametrize("cause", ["unusual_value", "unusual_step", "flatline", "absence", "static_limit"])
def test_only_means_have_an_estimated_begin(cause: str) -> None:
    before = ReadingsBefore(RecentReadings(1, related=False).initial(1), np.zeros(2, np.bool_))
    known = replace(PROVENANCE, channels=("x",), kinds=("measurement",))
    assert before.begin(batch_of([15, 15], cause), np.intp(1), known, 0) is None
