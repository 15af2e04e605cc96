"""States of live series before their first record, for code that scores their points once more."""

from __future__ import annotations

from collections.abc import Mapping

from detectors.base import State
from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.decode import series_key
from pipeline.engine.offloaded_state import WARM_START_PARTITION, OffloadedSeries, warm_start_reader
from pipeline.models.champion import Champion
from pipeline.scoring.stream_scorer import SelectPoints, StreamScorer
from storage.sql.database import Database


def scorer_with_initial_states(
    database: Database,
    champion: Champion,
    stream: Stream,
    keep: SelectPoints | None = None,
    reader: str | None = None,
) -> StreamScorer:
    """Return a scorer of the champion whose series start from the warm start, as in a daemon.

    Args:
        database: Where the states of the warm start are stored.
        champion: The detector, and the provenance of its verdicts.
        stream: The configuration of the stream.
        keep: See ``StreamScorer``.
        reader: Name under which the states are kept, None for the stream's.
    """
    reader = reader or champion.provenance.stream
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


def copy_initial_states(
    initial: StreamScorer, scorer: StreamScorer, partition: Partition, first_ns: Mapping[str, int]
) -> None:
    """Add series with their states of the warm start to a scorer whose keys are names.

    Args:
        initial: A scorer with initial states.
        scorer: Receives the series.
        partition: Their partition.
        first_ns: Event time of the first point of each series, by series name.
    """
    keys = {series_key(initial.stream, name): ns for name, ns in first_ns.items()}
    found = initial.add_series(WARM_START_PARTITION, keys)
    slots = scorer.add_series(partition, first_ns)
    for layer, state in scorer.series.state.items():
        for name, array in state.items():
            array[slots] = initial.series.state[layer][name][found]
