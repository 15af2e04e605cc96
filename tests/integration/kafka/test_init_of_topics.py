"""Topics as people have them: ``init --kafka``, ``check --connect`` and ``backfill``, without an answer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.loader import load_config
from tests.support.kafka_server import Topics

pytestmark = pytest.mark.kafka
T = 1_773_446_400
ROWS = 40


def value(i: int) -> float:
    return 20 + i % 7 / 4


def text(content: Any) -> bytes:
    return json.dumps(content).encode()


def nothing(_: int) -> None:
    return None


class Sibling(NamedTuple):
    """Records of a topic, with the series and the step between their points."""

    record: Callable[[int], bytes | None]
    series: set[str]
    step: int = 60
    key: Callable[[int], bytes | None] = nothing
    headers: Callable[[int], Any] = nothing
    points: int = ROWS
    mean: float | None = None


SIBLINGS = {
    "numbers with a unit, keys of text": Sibling(
        lambda i: f"{value(i)} °C".encode(), {"d0", "d1"}, 120, lambda i: b"d%d" % (i % 2)
    ),
    "words of a switch": Sibling(
        lambda i: b"ON" if i % 10 > 5 else b"OFF", {"pump"}, key=lambda i: b"pump", mean=0.4
    ),
    "true and false": Sibling(
        lambda i: b"true" if i % 10 > 5 else b"false", {"pump"}, key=lambda i: b"pump", mean=0.4
    ),
    "keys that are numbers in eight bytes": Sibling(
        lambda i: text({"v": value(i)}),
        {"0000000000000007", "0000000000000008"},
        120,
        lambda i: (7 + i % 2).to_bytes(8, "big"),
    ),
    "a header names the device": Sibling(
        lambda i: text({"v": value(i)}),
        {"a0", "a1"},
        120,
        headers=lambda i: [("trace", b"%d" % i), ("device-id", b"a%d" % (i % 2))],
    ),
    "gzip in the value, tombstones between": Sibling(
        lambda i: gzip.compress(text({"dev": "a", "t": T + 60 * i, "v": value(i)})) if i % 4 else None,
        {"a"},
        key=lambda i: b"a",
        points=ROWS * 3 // 4,
    ),
    "five bytes of a registry before the JSON": Sibling(
        lambda i: b"\0\0\0\0\x07" + text({"dev": "a", "t": T + 60 * i, "v": value(i)}), {"a"}
    ),
    "packs of SenML whose times count back from the record": Sibling(
        lambda i: text([{"bn": "a:", "n": "temp", "v": value(i)}, {"n": "hum", "v": 1.5, "t": -5}]),
        {"a:temp", "a:hum"},
        points=2 * ROWS,
    ),
    "lines of JSON and arrays in a record": Sibling(
        lambda i: b"\n".join(
            [
                text({"dev": "a", "t": T + 60 * i, "v": value(i)}),
                text([{"dev": "b", "t": T + 60 * i, "v": 1.5}]),
            ]
        ),
        {"a", "b"},
        points=2 * ROWS,
    ),
    "one record of a clock that is ahead": Sibling(
        lambda i: text({"dev": "a", "t": 2_085_000_000 if i == 9 else T + 60 * i, "v": value(i)}),
        {"a"},
        points=ROWS - 1,
    ),
}


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.output


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_topic_is_read_right(
    name: str, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted, topic = SIBLINGS[name], topics.create(1)
    topics.produce(
        topic,
        [wanted.record(i) for i in range(ROWS)],
        key=wanted.key,
        headers=wanted.headers,
        timestamp_ms=lambda i: 1000 * (T + 60 * i),
    )
    call("init", "f.yaml", "--kafka", topics.broker, topic, "--set", "detector=light")
    (stream,) = load_config(Path("f.yaml")).streams
    call("check", "f.yaml", "--connect")
    span = ("--from", "2026-03-13T00:00:00Z", "--to", "2026-03-16T00:00:00Z")
    call("backfill", "f.yaml", "-s", stream, *span, "--scores", "scores.parquet")
    scores = pq.read_table("scores.parquet").to_pandas()
    assert len(scores) == wanted.points
    assert set(scores.series.astype(str)) == wanted.series
    for _, own in scores.groupby("series", observed=True):
        assert own.timestamp.diff().dt.total_seconds().median() == wanted.step
    if wanted.mean is not None:
        assert abs(scores.value.mean() - wanted.mean) < 1e-9
