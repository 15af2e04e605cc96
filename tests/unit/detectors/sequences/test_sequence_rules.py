"""The rule beside the surprise of an event: the k most probable ones."""

from __future__ import annotations

from pipeline.core.anomaly_text import anomaly_statement
from tests.support.events import CYCLE, door_scorer, encoded, process


def repeated_openings(times: int) -> list[str]:
    """Return a cycle in which the door opens and closes again so many times."""
    return [*CYCLE[:3], *(["close", "open"] * times), "close", "lock"]


def test_an_event_that_is_not_among_the_most_probable_ones_is_an_alarm():
    values = encoded([("a", n, code) for n, code in enumerate(repeated_openings(1))])
    assert not [one for r in process(door_scorer(), values) for one in r.anomalies]
    results = process(door_scorer(events={"top_k": 1}), values)
    (anomaly,) = [one for r in results for one in r.anomalies]
    statement = anomaly_statement(anomaly) or ""
    assert statement.startswith("“open” came after “open”, “close”, as it does "), statement
    assert "; usual here: “lock” (" in statement
    assert anomaly.cause == "unexpected_event"
    assert anomaly.surprise >= 2.0
