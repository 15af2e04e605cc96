"""Anomalies of generated streams of each preset state a quantity outside its usual range."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from numpy.typing import NDArray

from detectors import build
from detectors.stages.usual_range import stage
from detectors.stages.usual_range.rows import LEVEL_ROWS
from pipeline.config.schema import Stream
from pipeline.core.types import Anomaly, Partition
from pipeline.core.usual_range_text import EXTREME_HOURS, MEAN_READINGS, usual_range_text
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import TableRecords

P = Partition("generated", 0)
EVERY_NS = 15 * 60 * 10**9
DAY_ROWS, DAYS = 96, 24
ROWS = DAY_ROWS * DAYS
FAULT_KINDS = ("spike", "shift", "noise", "stuck", "absence", "relation")
PRESETS = ("sensor", "network", "stock")


def series_of(preset: str, kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return (ROWS, 2) values of one series with a fault in the last days."""
    phase = np.arange(ROWS) / DAY_ROWS * 2 * np.pi
    wave, start = np.sin(phase), ROWS - 2 * DAY_ROWS + int(rng.integers(0, DAY_ROWS))
    noise = rng.normal(0, 0.1, (ROWS, 2))
    x = np.column_stack([3 + wave, 1 + 2 * wave]) + noise
    fault = slice(start, start + int(rng.integers(1, 40)))
    sign = rng.choice([-1.0, 1.0])
    match kind:
        case "spike":
            x[start, 0] += sign * 8
        case "shift":
            x[fault, 1] += sign * 4
        case "noise":
            x[fault, 0] += rng.normal(0, 2, (ROWS, 2))[fault, 0]
        case "stuck":
            x[start : start + 60, 1] = x[start, 1]
        case "absence":
            x[start : start + DAY_ROWS, 0] = 2 + noise[start : start + DAY_ROWS, 0]
        case "relation":
            x[start : start + 60, 1] = 1 - 2 * wave[start : start + 60]
    if preset == "network":
        return np.floor(np.exp(x + 3))
    if preset == "stock":
        price = np.exp(np.cumsum(rng.standard_t(4, ROWS) * 1e-3)) * 100
        price[start:] *= 1 + sign * 0.08
        return np.column_stack([price, np.floor(np.exp(x[:, 1] + 6))])
    return x


def table_of(preset: str, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    names = [f"{kind}-{seed}" for kind in FAULT_KINDS]
    values = np.stack([series_of(preset, kind, rng) for kind in FAULT_KINDS], axis=1).reshape(-1, 2)
    time = np.repeat(1_772_409_600 * 10**9 + np.arange(ROWS) * EVERY_NS, len(names))
    return pa.table(
        {"s": names * ROWS, "t": time, "x": values[:, 0], "y": values[:, 1]},
    )


def scorer_of(preset: str, detector: str) -> StreamScorer:
    stream = Stream.model_validate(
        {
            "source": {"memory": {}},
            "format": {"csv": {"series": "s", "time": "t", "time_unit": "ns", "values": ["x", "y"]}},
            "preset": preset,
            "detector": detector,
            "decision": "usual_range",
            "every": "15m",
            "future": None,
            "limits": {"y": {"max": 1e9}},
        }
    )
    made = build(detector_spec(stream))
    return StreamScorer(provenance("generated", stream, made), stream, made)


def changes(preset: str, detector: str, seed: int, batch_rows: int) -> Iterator[Anomaly]:
    """Yield each change of each anomaly of a generated stream."""
    table, scorer = table_of(preset, seed), scorer_of(preset, detector)
    for start in range(0, len(table), batch_rows):
        part = table.slice(start, batch_rows)
        offsets = np.arange(start, start + len(part), dtype=np.int64)
        unstamped = np.full(len(part), -1, np.int64)
        records = TableRecords(P, start, start + len(part), offsets, unstamped, part)
        yield from scorer.process([records]).anomalies
    yield from scorer.flush({P: len(table)}).anomalies


@cache
def last_revisions(preset: str, detector: str, seed: int, batch_rows: int = 2_000) -> dict[str, Anomaly]:
    return {str(a.id): a for a in changes(preset, detector, seed, batch_rows)}


def check(anomaly: Anomaly) -> None:
    channel = int(np.argmax(anomaly.contribution))
    observed, low, high = (getattr(anomaly, name)[channel] for name in ("observed", "lower", "upper"))
    assert anomaly.contribution[channel] == 1
    assert anomaly.ratio > 1
    above, below = observed > high, observed < low
    assert above != below, anomaly
    if anomaly.cause == "flatline":
        assert above
        assert anomaly.direction == "mixed"
    elif anomaly.direction == "mixed":
        assert anomaly.cause == "unusual_noise"
        assert above
    else:
        assert anomaly.direction == ("up" if above else "down")
    assert anomaly.start_ns <= anomaly.peak_ns <= anomaly.end_ns
    assert anomaly.began_ns <= anomaly.peak_ns <= anomaly.lasted_until_ns <= anomaly.end_ns
    assert anomaly.readings >= 1
    assert math.isfinite(observed)
    assert usual_range_text(anomaly)


@pytest.mark.parametrize("detector", ["light", "standard", "strong"])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_observed_quantity_lies_outside_its_usual_range(preset: str, detector: str) -> None:
    found = last_revisions(preset, detector, seed=1)
    assert found
    for anomaly in changes(preset, detector, 1, 500):
        check(anomaly)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("seed", [2, 3])
def test_other_seeds(preset: str, seed: int) -> None:
    for anomaly in last_revisions(preset, "light", seed).values():
        check(anomaly)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_anomaly_does_not_depend_on_how_records_are_cut(preset: str) -> None:
    def stories(found: dict[str, Anomaly]) -> dict[str, tuple[object, ...]]:
        return {
            id_: (a.cause, a.direction, a.start_ns, a.end_ns, a.peak_ns, a.points, a.severity, a.state)
            for id_, a in found.items()
        }

    whole = stories(last_revisions(preset, "light", 1))
    assert stories(last_revisions(preset, "light", 1, batch_rows=97)) == whole


def test_each_kind_of_fault_is_found_in_a_sensor() -> None:
    found = {a.series for a in last_revisions("sensor", "standard", 1).values()}
    assert {f"{kind}-1" for kind in ("spike", "shift", "noise", "stuck")} <= found


def test_the_text_names_the_windows_of_the_quantities() -> None:
    assert (MEAN_READINGS, EXTREME_HOURS) == (LEVEL_ROWS, stage.EXTREME_HOURS)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_span_of_a_deviation_does_not_depend_on_the_batches(preset: str) -> None:
    spans = [
        {key: (a.began_ns, a.lasted_until_ns, a.readings) for key, a in found.items()}
        for found in (last_revisions(preset, "light", 1), last_revisions(preset, "light", 1, 500))
    ]
    assert spans[0] == spans[1] != {}


def test_a_standstill_is_told_from_its_first_to_its_last_equal_value() -> None:
    table = table_of("sensor", 1)
    own = table.filter(pa.compute.equal(table["s"], "stuck-1"))
    still = np.flatnonzero(np.diff(own["y"].to_numpy()) == 0)
    time = own["t"].to_numpy()
    (one,) = [a for a in last_revisions("sensor", "light", 1).values() if a.cause == "flatline"]
    assert (one.began_ns, one.lasted_until_ns) == (time[still[0]], time[still[-1] + 1])
    assert one.began_ns < one.start_ns
    assert one.readings == len(still) + 1
