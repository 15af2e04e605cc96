"""Rates of codes through the numeric pipeline: one series for each code, its events counted."""

from __future__ import annotations

import random

from detectors import build
from pipeline.config.schema import Stream
from pipeline.core.anomaly_text import anomaly_statement
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.stream_scorer import StreamScorer
from tests.support.events import CYCLE, cycles, encoded, process


def test_a_code_that_comes_much_more_often_is_an_anomaly_of_its_rate():
    stream = Stream.model_validate(
        {
            "source": {"memory": {"name": "doors"}},
            "format": {"json": {"series": ["door", "event"], "time": "t", "values": []}},
            "preset": "sensor",
            "aggregate": {"every": "1m", "values": {"events": "count"}},
        }
    )
    chance = random.Random(4)
    starts = [
        minute * 60 + chance.random() * 30 for minute in range(400) for _ in range(chance.choice((2, 3, 4)))
    ]
    events = [one for start in starts for one in cycles("a", 1, start)]
    burst = [("a", 350 * 60 + 2 + n * 0.05, "badge") for n in range(1000)]
    events = sorted([*events, *burst], key=lambda one: one[1])
    detector = build(detector_spec(stream))
    scorer = StreamScorer(provenance("doors", stream, detector), stream, detector)
    results = process(scorer, encoded(events))
    found = {one.id: one for result in results for one in result.anomalies}
    worst = max(found.values(), key=lambda one: one.ratio)
    assert set(worst.labels.values()) == {"a", "badge"}
    assert (anomaly_statement(worst) or "").startswith("events "), anomaly_statement(worst)
    assert max(worst.observed) > 600
    assert len({name for one in scorer.names() if (name := one)}) == len(CYCLE)
