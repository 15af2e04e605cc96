"""What live series knew before their first record, for those who go through their points once more."""

from __future__ import annotations

from collections.abc import Mapping

from detectors.base import State
from pipeline.config.schema import Stream
from pipeline.decode import series_key
from pipeline.engine.offloaded_state import WARM_START_PARTITION, OffloadedSeries, warm_start_reader
from pipeline.models.champion import Champion
from pipeline.scoring.stream_scorer import SelectPoints, StreamScorer
from storage.sql.database import Database


def scorer_with_initial_states(
    database: Database, champion: Champion, stream: Stream, keep: SelectPoints | None = None
) -> StreamScorer:
    """By the champion, with series that begin with what past points tell of them, as in a daemon.

    ``keep`` as in ``StreamScorer``.
    """
    ledger = champion.provenance.stream
    stored = OffloadedSeries(database, ledger)
    scoring = StreamScorer(
        champion.provenance,
        stream,
        champion.detector,
        lambda partition, first_ns: stored.of_past(first_ns),
        keep,
    )
    stored.past = warm_start_reader(ledger, scoring)
    return scoring


def initial_states(
    database: Database, champion: Champion, stream: Stream, first_ns: Mapping[str, int]
) -> State:
    """What the detector knows of series, a row each, before their first points, by name: what past points
    tell of them, or only how they are called.
    """
    scoring = scorer_with_initial_states(database, champion, stream)
    slots = scoring.begin(
        WARM_START_PARTITION, {series_key(stream, name): ns for name, ns in first_ns.items()}
    )
    return {array: rows[slots] for array, rows in scoring.series.state["detector"].items()}
