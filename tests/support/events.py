"""Doors whose events have an order: badge, unlock, open, close, lock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from detectors.sequences.detector import NextEventDetector
from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.models.champion import provenance
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Records

CYCLE = ("badge", "unlock", "open", "close", "lock")
START = 1_750_000_000
PARTITION = Partition("doors", 0)

#: (series, seconds after the start, code)
Event = tuple[str, float, str]


@cache
def door_model() -> NextEventDetector:
    """Return a model of sessions of one cycle each, of which some repeat open and close."""
    from detectors.sequences.fit import fit_detector

    sessions = [[*CYCLE[:3], "close", *(("open", "close") if n % 5 == 0 else ()), "lock"] for n in range(200)]
    detector, _ = fit_detector(sessions, size=(8, 16, 1))
    return detector


def saved_door_model(folder: Path) -> Path:
    """Save the model and return its path."""
    path = folder / "doors-model"
    door_model().save(str(path))
    return path


def cycles(series: str, count: int, first: float = 0.0, pause: float = 600.0) -> list[Event]:
    """Return ordinary cycles, one every ``pause`` seconds."""
    return [(series, first + n * pause + step, code) for n in range(count) for step, code in enumerate(CYCLE)]


def stream_tree(model: Path | None, **settings: Any) -> dict[str, Any]:
    """Return the configuration of a stream of doors."""
    events = {"idle": "1m"} | ({} if model is None else {"model": str(model)}) | settings.pop("events", {})
    return {
        "source": {"memory": {"name": "doors"}},
        "format": {"json": {"series": "door", "time": "t", "code": "event"}},
        "events": events,
    } | settings


def encoded(events: Iterable[Event], key: str = "event") -> list[bytes]:
    """Return the events as JSON records."""
    return [json.dumps({"door": door, "t": START + at, key: code}).encode() for door, at, code in events]


def door_scorer(model: NextEventDetector | None = None, **settings: Any) -> StreamScorer:
    """Return a scorer of doors, with the model of ``door_model``."""
    from pipeline.models.champion import event_detector

    stream = Stream.model_validate(stream_tree(None, **settings))
    detector = event_detector(stream, door_model() if model is None else model)
    return StreamScorer(provenance("doors", stream, detector), stream, detector)


def batch(values: Sequence[bytes], first: int = 0) -> Records:
    """Return records of ``PARTITION`` from offset ``first`` on."""
    n = len(values)
    offsets = np.arange(first, first + n)
    return Records(PARTITION, first, first + n, offsets, np.full(n, -1), list(values), [None] * n)


def process(scorer: StreamScorer, values: Sequence[bytes], cuts: Sequence[int] = ()) -> list[BatchResult]:
    """Score records, cut into batches at ``cuts``."""
    bounds = [0, *cuts, len(values)]
    return [scorer.process([batch(values[start:end], start)]) for start, end in pairwise(bounds)]
