"""Streams of events in the scorer: order, sessions, new codes, snapshots, however the records are cut."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detectors.sequences.code_numbers import code_numbers
from detectors.sequences.stream_detector import EventStreamDetector
from pipeline.core.anomaly_text import anomaly_statement
from pipeline.core.errors import DamagedState
from pipeline.core.types import Anomaly, AnomalyState, Partition
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from tests.support.events import (
    CYCLE,
    PARTITION,
    Event,
    batch,
    cycles,
    door_model,
    door_scorer,
    encoded,
    process,
)


def rows(results: Sequence[BatchResult]) -> list[tuple[Any, ...]]:
    """Every row with its verdict, by series in the order of the rows."""
    found = []
    for result in results:
        scored = result.scored
        if scored is None:
            continue
        points, verdicts = scored.points, scored.verdicts
        found += [
            (
                int(points.slot[row]),
                int(points.time[row]),
                float(points.values[row, 0]),
                int(scored.offset[row]),
                int(scored.seq[row]),
                verdicts.surprise[row].tobytes(),
                bool(verdicts.flag[row]),
                int(verdicts.cause[row]),
                verdicts.likely[row].tobytes(),
                verdicts.recent[row].tobytes(),
            )
            for row in range(len(points))
        ]
    return sorted(found, key=lambda one: one[0])


def anomalies(results: Sequence[BatchResult]) -> dict[str, Anomaly]:
    """Return the last revision of each anomaly, by its statement."""
    last = {one.id: one for result in results for one in result.anomalies}
    return {anomaly_statement(one) or "": one for one in last.values()}


def mixed_events(seed: int) -> list[Event]:
    """Return events of five doors with wrong orders, unknown codes, late ones and lost ends."""
    chance = random.Random(seed)
    events = []
    for door in "abcde":
        for n in range(12):
            steps = list(CYCLE)
            if chance.random() < 0.3:
                steps.insert(chance.randrange(5), chance.choice([*CYCLE, f"new {door}{n}"]))
            if chance.random() < 0.2:
                steps = steps[: chance.randrange(1, 5)]
            start = n * 300 + chance.random() * 50
            events += [(door, start + step * chance.random() * 20, code) for step, code in enumerate(steps)]
    events.sort(key=lambda one: one[1] + chance.random() * 30)
    return events


def test_a_wrong_order_is_an_anomaly_that_its_session_closes():
    scorer = door_scorer()
    wrong = [("b", 10 + step, code) for step, code in enumerate(["badge", "open", "unlock", "close", "lock"])]
    results = process(scorer, encoded([*cycles("a", 1), *wrong, *cycles("a", 3, 600)]))
    (anomaly,) = [one for result in results for one in result.anomalies if one.series == "b"]
    assert anomaly.state is AnomalyState.CLOSED
    assert anomaly.cause == "unexpected_event"
    assert anomaly.event is not None
    assert anomaly.event.code == "open"
    assert anomaly.event.recent == ["badge"]
    assert anomaly.event.likely[0] == "unlock"
    statement = anomaly_statement(anomaly)
    assert statement is not None
    assert statement.startswith("“open” came after “badge”, as it does ")
    assert "; usual here: “unlock” (" in statement


def test_a_session_that_ends_too_early_is_told_at_its_end():
    scorer = door_scorer()
    results = process(scorer, encoded([("a", 0, "badge"), ("a", 1, "unlock"), *cycles("b", 1, 300)]))
    (anomaly,) = [one for result in results for one in result.anomalies]
    assert anomaly.cause == "missing_event"
    assert anomaly.end_ns == (1_750_000_001 + 60) * 10**9
    assert (anomaly_statement(anomaly) or "").startswith(
        "no event came after “badge”, “unlock”, which happens "
    )


@pytest.mark.parametrize("lateness", ["0s", "2m"])
def test_batches_and_snapshots_change_nothing(lateness):
    values = encoded(mixed_events(3))
    whole = process(door_scorer(lateness=lateness), values)
    expected = rows(whole)
    assert sum(row[6] for row in expected) > 10
    chance = random.Random(5)
    for _ in range(4):
        cuts = sorted(chance.sample(range(1, len(values)), 7))
        scorer, results = door_scorer(lateness=lateness), []
        for start, end in zip([0, *cuts], [*cuts, len(values)], strict=True):
            results.append(scorer.process([batch(values[start:end], start)]))
            if start in cuts[::2]:  # a restart: another process continues from the snapshot
                scorer = restarted(scorer, lateness=lateness)
        assert rows(results) == expected
    counts = [sum(o.counts.late for o in r.outcomes.values()) for r in whole]
    assert (sum(counts) > 0) == (lateness == "0s")


def restarted(scorer: StreamScorer, **settings: Any) -> StreamScorer:
    """Return a new scorer that continues from the state of ``scorer``."""
    pages = list(scorer.pages(PARTITION, np.empty(0, np.int32)))
    other = door_scorer(**settings)
    other.restore(PARTITION, scorer.meta(), pages)
    return other


def test_events_of_one_time_keep_their_order_and_none_is_a_duplicate():
    values = encoded([("a", 0, code) for code in CYCLE])
    (result,) = process(door_scorer(), values)
    assert result.outcomes[PARTITION].counts.scored == 5
    assert not result.anomalies


def test_an_end_event_ends_the_session():
    scorer = door_scorer(events={"end": ["lock"]})
    results = process(scorer, encoded([("a", n, code) for n, code in enumerate([*CYCLE, *CYCLE])]))
    assert not [one for result in results for one in result.anomalies]
    assert results[0].scored is not None
    assert results[0].scored.ends.sum() == 2


def test_a_new_code_in_every_session_raises_few_alarms():
    events = [
        (f"door {n}", n * 5 + step, code)
        for n in range(300)
        for step, code in enumerate((*CYCLE[:3], "repaired", "close", "lock"))
    ]
    results = process(door_scorer(), encoded(sorted(events, key=lambda one: one[1])))
    new = [one for result in results for one in result.anomalies if one.cause == "new_event"]
    assert len({one.id for one in new}) == 3
    assert "and was never seen before" in (anomaly_statement(new[0]) or "")


def test_a_storm_of_codes_is_bounded():
    scorer = door_scorer()
    storm = [("a", n * 0.01, f"code {n}") for n in range(6000)]
    process(scorer, encoded(storm), range(1000, 6000, 1000))
    assert scorer.events is not None
    assert scorer.events.exhausted() == [PARTITION]
    state = scorer.events.dump(PARTITION)
    assert len(state) < 300_000
    assert scorer.events.codes()[PARTITION].full


def test_unusual_records_become_dead_letters_or_events():
    good = {"door": "a", "t": 1_750_000_000}
    codes: list[Any] = [None, ["x"], {"x": 1}, "a\0b", 1.5, "", 7, True, "x" * 1_000_000, "\ud800"]
    values = [json.dumps(good | {"event": code}).encode() for code in codes]
    values += [b"", b"\xff\xfe", json.dumps(good).encode()]
    (result,) = process(door_scorer(), values)
    reasons = {letter.offset: letter.reason for letter in result.outcomes[PARTITION].dead}
    assert set(reasons) == {0, 1, 2, 3, 4, 10, 11, 12}
    assert result.outcomes[PARTITION].counts.scored == 5


def test_templates_are_codes_and_survive_a_restart():
    form = {"json": {"series": "door", "time": "t", "text": "line"}}
    lines = [
        f"user {n} logged in from 10.0.0.{n}" if n % 2 else f"disk /dev/sd{n % 5} is full" for n in range(60)
    ]
    values = encoded([("a", n, line) for n, line in enumerate(lines)], "line")
    whole = door_scorer(format=form)
    expected = rows(process(whole, values))
    scorer, results = door_scorer(format=form), []
    for start in range(0, 60, 7):
        results.append(scorer.process([batch(values[start : start + 7], start)]))
        scorer = restarted(scorer, format=form)
    assert rows(results) == expected
    assert scorer.events is not None
    texts = sorted(one.text for one in scorer.events.codes()[PARTITION].templates())
    assert texts == ["disk <PATH> is full", "user <NUM> logged in from <IP>"]


def test_templates_of_several_partitions_are_one_event_of_the_model():
    form = {"json": {"series": "door", "time": "t", "text": "line"}}
    model = door_model().with_templates({}, [(code, f"{code} door event by <*>") for code in CYCLE])
    scorer = door_scorer(format=form)
    names = ("ann", "bob")
    parts = [Partition("doors", number) for number in range(2)]

    def send(first: int, start: float, order: Sequence[str]) -> BatchResult:
        rows = [
            [("door", start + step, f"{code} door event by {name}") for step, code in enumerate(order)]
            for name in names
        ]
        batches = [batch(encoded(events, "line"), first) for events in rows]
        return scorer.process(
            [replace(one, partition=part) for one, part in zip(batches, parts, strict=True)]
        )

    send(0, 0, CYCLE[:2])
    assert scorer.events is not None
    codes = [{one.code for one in scorer.events.codes()[part].templates()} for part in parts]
    assert not codes[0] & codes[1]
    detector = EventStreamDetector(detector_spec(scorer.stream), model)
    scorer.replace_detector(detector, provenance("doors", scorer.stream, detector))
    result = send(2, 2, CYCLE[2:])
    assert result.scored is not None
    assert not result.scored.verdicts.flag.any()
    recent = result.scored.verdicts.recent[result.scored.points.slot == 0][-1]
    assert recent[recent >= 0].tolist() == code_numbers(CYCLE[:4]).tolist()
    codes = [{one.code for one in scorer.events.codes()[part].templates()} for part in parts]
    assert codes[0] == codes[1] == set(CYCLE)


def test_a_damaged_page_of_codes_is_refused():
    scorer = door_scorer()
    process(scorer, encoded(cycles("a", 1)))
    pages = list(scorer.pages(PARTITION, np.empty(0, np.int32)))
    pages[1] = b"{"
    with pytest.raises(DamagedState, match="codes of the events"):
        door_scorer().restore(PARTITION, scorer.meta(), pages)
