"""What live series knew before their first record, for those who go through their points once more."""

from __future__ import annotations

from collections.abc import Mapping

from detectors.base import State
from pipeline.config.schema import Stream
from pipeline.decode import series_key
from pipeline.engine.offloaded_state import PAST, StoredSeries, past_ledger
from pipeline.models.champion import Champion
from pipeline.scoring.stream_scorer import Keep, Scoring
from storage.sql.database import Database


def beginning(database: Database, champion: Champion, stream: Stream, keep: Keep | None = None) -> Scoring:
    """By the champion, with series that begin with what past points tell of them, as in a daemon.

    ``keep`` as in ``Scoring``.
    """
    ledger = champion.provenance.stream
    stored = StoredSeries(database, ledger)
    scoring = Scoring(
        champion.provenance,
        stream,
        champion.detector,
        lambda partition, first_ns: stored.of_past(first_ns),
        keep,
    )
    stored.past = past_ledger(ledger, scoring)
    return scoring


def begun(database: Database, champion: Champion, stream: Stream, first_ns: Mapping[str, int]) -> State:
    """What the detector knows of series, a row each, before their first points, by name: what past points
    tell of them, or only how they are called.
    """
    scoring = beginning(database, champion, stream)
    slots = scoring.begin(PAST, {series_key(stream, name): ns for name, ns in first_ns.items()})
    return {array: rows[slots] for array, rows in scoring.series.state["detector"].items()}
