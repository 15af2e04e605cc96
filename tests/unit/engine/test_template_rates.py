"""Rates of the templates of log lines: each template of a host is a series of counts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from detectors import build
from pipeline.config.schema import Config, Stream
from pipeline.config.validation import broken_rules
from pipeline.core.anomaly_text import anomaly_statement
from pipeline.core.errors import DamagedState
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.scoring.template_labels import TemplateLabels
from pipeline.services.stored_templates import stored_templates
from tests.faults.feed import START_MS, Log
from tests.support.engines import Bench, essence
from tests.support.events import PARTITION, batch

FORM = {"json": {"series": "host", "time": "t", "values": [], "template": "line"}}
#: Beginning of a minute.
MINUTE_MS = START_MS - START_MS % 60_000
AGGREGATE = {"every": "1m", "values": {"lines": "count"}}


def stream(**settings: Any) -> Stream:
    return Stream.model_validate(
        {"source": {"memory": {"name": "logs"}}, "format": FORM, "aggregate": AGGREGATE, "detector": "light"}
        | settings
    )


def problems(**settings: Any) -> str:
    config = Config.model_validate(
        {"streams": {"logs": stream(**settings).model_dump(exclude_unset=True, by_alias=True)}}
    )
    return "\n".join(one.what for one in broken_rules(config))


def scorer(**settings: Any) -> StreamScorer:
    chosen = stream(**settings)
    detector = build(detector_spec(chosen))
    return StreamScorer(provenance("logs", chosen, detector), chosen, detector)


def lines(minutes: int, first: int = 0, burst: int | None = None) -> list[bytes]:
    """Return some logins and closed sessions a minute, and in the minute ``burst`` many logins."""
    chance, found = random.Random(4 + first), []
    for minute in range(first, first + minutes):
        texts = [f"session {n} closed after {chance.random():.3f} s" for n in range(chance.choice((2, 3, 4)))]
        count = 60 if minute == burst else chance.choice((4, 5, 6))
        texts += [f"login of account {chance.choice('abc')} from 10.0.0.{n}" for n in range(count)]
        for n, text in enumerate(texts):
            at = MINUTE_MS + minute * 60_000 + 59_000 * n // len(texts)
            found.append(json.dumps({"host": "web-1", "t": at, "line": text}).encode())
    return found


def test_a_template_that_comes_much_more_often_is_an_anomaly_of_its_rate() -> None:
    counted, values = scorer(), lines(400, burst=350)
    found = {}
    for start in range(0, len(values), 700):
        result = counted.process([batch(values[start : start + 700], start)])
        found |= {one.id: one for one in result.anomalies}
    worst = max(found.values(), key=lambda one: one.ratio)
    assert worst.labels["host"] == "web-1"
    assert worst.labels["template_text"] == "login of account <*> from <IP>"
    assert worst.labels["template"] in worst.series
    assert max(worst.observed) == 60
    assert (anomaly_statement(worst) or "").startswith("lines ")
    assert len({name for one in counted.names() if (name := one)}) == 2


def test_series_are_the_same_after_restarts() -> None:
    values = lines(30)
    whole = scorer()
    whole.process([batch(values)])
    cut = scorer()
    for start in range(0, len(values), 11):
        cut.process([batch(values[start : start + 11], start)])
        other = scorer()
        other.restore(PARTITION, cut.meta(), list(cut.pages(PARTITION, np.empty(0, np.int32))))
        cut = other
    assert sorted(map(str, cut.names())) == sorted(map(str, whole.names()))
    state, expected = (one.series.state["detector"] for one in (cut, whole))
    for name in expected:
        np.testing.assert_array_equal(np.sort(state[name][:2], 0), np.sort(expected[name][:2], 0))


def test_templates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.decode import log_templates

    monkeypatch.setattr(log_templates.LogTemplates.__init__, "__defaults__", (log_templates.MASKS, 20))
    counted = scorer()
    values = [
        json.dumps({"host": "a", "t": START_MS + n * 1000, "line": f"{'x' * (n + 1)} stopped"}).encode()
        for n in range(600)
    ]
    counted.process([batch(values)])
    names = {name for one in counted.names() if (name := one)}
    assert len(names) == 21
    assert "host=a,template=other" in names


def test_a_damaged_page_is_refused() -> None:
    with pytest.raises(DamagedState, match="templates of log lines cannot be read"):
        TemplateLabels().load(PARTITION, b"nothing")


def test_a_crash_counts_no_line_twice(make: Callable[..., Bench]) -> None:
    values = lines(240, burst=200)
    log = Log(values, ["scored"] * len(values))
    changes = {
        "format": FORM,
        "aggregate": AGGREGATE,
        "lateness": "5s",
        "without": ("every", "limits"),
    }
    whole, killed = make([log], **changes), make([log], **changes)
    whole.fill()
    engine = whole.drain(whole.engine())
    engine.parts.snapshots.take_all(engine.parts.ownership)
    for end in (400, 900, 1400, len(values)):
        killed.fill(lambda log, end=end: end)
        engine = killed.drain(killed.engine())
        if end == 900:
            engine.parts.snapshots.take_all(engine.parts.ownership)
    assert essence(killed.anomalies()) == essence(whole.anomalies()) != []
    assert killed.position().counts == whole.position().counts
    engine.parts.snapshots.take_all(engine.parts.ownership)
    found = stored_templates(killed.config, killed.database, "plant")
    assert found == stored_templates(whole.config, whole.database, "plant")
    assert {one.text for one in found} == {
        "session <NUM> closed after <NUM> s",
        "login of account <*> from <IP>",
    }
    assert sum(one.lines for one in found) == len(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggregate": None}, "is for lines that an aggregate counts"),
        ({"format": {"json": {**FORM["json"], "series": "template"}}}, "the label template is that of"),
        ({"format": {"otlp": {"template": "line"}}}, "samples of metrics have no log lines"),
    ],
)
def test_a_config_that_cannot_count_templates_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in problems(**changes)


def test_a_stream_of_events_has_no_template_label() -> None:
    form = {"json": {"series": "host", "time": "t", "text": "line", "template": "line"}}
    assert "is given together with text" in problems(format=form, aggregate=None)
