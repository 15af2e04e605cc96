"""Configuration of streams of events: their rate, what is refused, and the unchanged hash of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.loader import load_config
from pipeline.config.schema import Stream
from pipeline.config.yaml_file import ConfigFileError


def tree(form: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    form = {"series": "door", "time": "t", "code": "event"} if form is None else form
    return {"source": {"memory": {"name": "doors"}}, "format": {"json": form}, **settings}


def load(folder: Path, stream: dict[str, Any]) -> Stream:
    path = folder / "forewatch.yaml"
    path.write_text(yaml.safe_dump({"streams": {"doors": stream}}))
    return load_config(path).streams["doors"]


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 1e-4),
        ({"events": {"idle": "1m"}}, 1e-2),
        ({"events": {"end": ["lock"]}, "sensitivity": "low"}, 1e-3),
        ({"events": {"idle": "1m"}, "alarm_rate": 0.05}, 0.05),
    ],
)
def test_the_rate_is_that_of_sessions_if_there_are_any(tmp_path, settings, rate):
    stream = load(tmp_path, tree(**settings))
    assert stream.of_events
    assert stream.channels == ("event",)
    assert stream.target_alarm_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (tree({"series": "door", "time": "t"}), "give exactly one of values"),
        (tree({"series": "door", "time": "t", "code": "a", "text": "b"}), "code and text"),
        (tree({"time": "t", "values": "v"}, events={"idle": "1m"}), "the format names no event"),
        (tree(detector="light"), "is for streams of numbers"),
        (tree(limits={"event": {"max": 3}}), "is for streams of numbers"),
        (tree(events={"model": "nowhere"}), "there is no model at"),
    ],
)
def test_what_events_cannot_have_is_refused(tmp_path, stream, message):
    with pytest.raises(ConfigFileError, match=message):
        load(tmp_path, stream)
