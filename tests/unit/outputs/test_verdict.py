"""Messages of verdicts: their schema, ids and texts."""

from __future__ import annotations

import json
import math

import jsonschema
import numpy as np
import pytest

from detectors.base import CAUSES, FORECASTERS, Points, Verdicts
from pipeline.core.types import Partition
from pipeline.outputs.verdict import VerdictRows, verdict_schema

#: Readers keep ids: the hash must not change.
FIRST_ID = "3f2ea9566d919c2b286863640d0a75df"
TIME_NS = 1_764_028_800_000_000_001


def rows(count: int = 2, names: tuple[str, ...] = ("a", "b"), events: list[str] | None = None) -> VerdictRows:
    """Return flagged points of two channels."""
    n, pairs = count, (count, 2)
    verdicts = Verdicts(
        score=np.full(n, 0.5, np.float32),
        surprise=np.full(n, np.inf, np.float32),
        flag=np.arange(n) % 2 == 0,
        expected=np.full(pairs, np.nan, np.float32),
        lower=np.zeros(pairs, np.float32),
        upper=np.ones(pairs, np.float32),
        contribution=np.zeros(pairs, np.float32),
        forecaster=np.full(n, FORECASTERS.index("lstm"), np.uint8),
        cause=np.full(n, CAUSES.index("unusual_value"), np.uint8),
        ratio=np.full(n, 2.5, np.float32),
        channel=np.ones(n, np.int16),
        side=np.full(n, -1, np.int8),
        observed=np.full(n, 7.0, np.float32),
        usual_low=np.full(n, 8.0, np.float32),
        usual_high=np.full(n, np.inf, np.float32),
    )
    points = Points(
        np.arange(n, dtype=np.int32),
        TIME_NS + np.arange(n),
        np.array([[1.5, math.nan]] * n),
        np.zeros(n, np.int32),
        np.zeros(n, np.int64),
    )
    offset = np.arange(n, dtype=np.int64)
    return VerdictRows("plant", Partition("t", 3), ("x", "y"), "m1", points, verdicts, offset, names, events)


def messages(made: VerdictRows) -> list[dict]:
    return [json.loads(one.value) for one in made.messages(lambda name: {"s": name})]


def test_messages_fit_their_schema():
    for made in (rows(), rows(events=["login", "logout"])):
        for message in messages(made):
            jsonschema.validate(message, verdict_schema())


def test_numbers_that_do_not_exist_are_null():
    first, second = messages(rows())
    assert first["time"] == "2025-11-25T00:00:00.000000001Z"
    assert first["values"] == {"x": 1.5, "y": None}
    assert first["expected"] == {"x": None, "y": None}
    assert (first["score"], first["surprisal"]) == (0.5, None)
    assert (first["cause"], first["forecaster"]) == ("unusual_value", "lstm")
    assert first["quantity"] == {
        "channel": "y",
        "direction": "down",
        "observed": 7.0,
        "low": 8.0,
        "high": None,
        "ratio": 2.5,
    }
    assert second["quantity"] is None
    assert first["source"] == {"topic": "t", "partition": 3, "offset": 0}


def test_the_id_depends_on_the_place_and_the_point_only():
    ids = [message["id"] for message in messages(rows(4, ("a", "b", "c", "d")))]
    assert len(set(ids)) == 4
    assert ids[:2] == [message["id"] for message in messages(rows())]
    assert ids[0] == FIRST_ID


def test_an_event_has_its_code_and_no_values():
    message = messages(rows(events=["login", "logout"]))[0]
    assert message["event"] == {"code": "login", "probability": None}
    assert message["values"] == message["lower"] == {}


@pytest.mark.parametrize("name", ["\ud800", "grün,=☃"])
def test_names_of_any_text(name):
    (one,) = rows(1, (name,)).messages(lambda series: {"s": series})
    found = json.loads(one.value)
    assert found["series"].encode() == one.key
    assert found["labels"] == {"s": found["series"]}
