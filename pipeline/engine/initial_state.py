"""States of live series before their first record, for code that scores their points once more."""

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
    """Return a scorer of the champion whose series start from the warm start, as in a daemon.

    Args:
        database: Where the states of the warm start are stored.
        champion: The detector, and the provenance of its verdicts.
        stream: The configuration of the stream.
        keep: See ``StreamScorer``.
    """
    reader = champion.provenance.stream
    offloaded = OffloadedSeries(
        database, reader, warm_start_reader(reader, stream, champion.detector.state_version)
    )
    return StreamScorer(
        champion.provenance,
        stream,
        champion.detector,
        lambda partition, first_ns: offloaded.load_warm_start(first_ns),
        keep,
    )


def initial_states(
    database: Database, champion: Champion, stream: Stream, first_ns: Mapping[str, int]
) -> State:
    """Return the detector's state of series before their first points, one row each.

    Args:
        database: Where the states of the warm start are stored.
        champion: The detector, and the provenance of its verdicts.
        stream: The configuration of the stream.
        first_ns: Event time of the first point of each series, by series name.
    """
    scorer = scorer_with_initial_states(database, champion, stream)
    keys = {series_key(stream, name): ns for name, ns in first_ns.items()}
    slots = scorer.add_series(WARM_START_PARTITION, keys)
    return {array: rows[slots] for array, rows in scorer.series.state["detector"].items()}
