"""A warm start of events: a session that is open at the end of the files goes on in the stream."""

from __future__ import annotations

from pathlib import Path

from detectors.sequences.stream_detector import NO_EVENT
from pipeline.config.schema import Stream
from pipeline.decode import series_key
from pipeline.engine.offloaded_state import OffloadedSeries, warm_start_reader
from pipeline.engine.warm_start import read_warm_start
from pipeline.models.champion import event_detector, provenance
from pipeline.scoring.stream_scorer import StreamScorer
from storage.sql.database import Database
from tests.support.events import START, Event, cycles, door_model, encoded, process, stream_tree

PAST: list[Event] = [*cycles("a", 40), ("a", 24_000, "badge"), ("a", 24_001, "unlock")]


def test_an_open_session_goes_on_in_the_stream(tmp_path: Path, sqlite_template: Path) -> None:
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    past = tmp_path / "past.csv"
    lines = [f"{door},{START + second},{code}" for door, second, code in PAST]
    past.write_text("\n".join(["door,t,event", *lines]))
    stream = Stream.model_validate(stream_tree(None, warm_start=str(past)))
    detector, database = event_detector(stream, door_model()), Database(f"sqlite:///{tmp_path}/forewatch.db")
    origin = provenance("doors", stream, detector)
    list(read_warm_start(database, "test", "doors", StreamScorer(origin, stream, detector), lambda: None))
    offloaded = OffloadedSeries(database, "doors", warm_start_reader("doors", stream, detector.state_version))
    assert len(offloaded.load_warm_start({series_key(stream, "a"): (START + 24_002) * 10**9})) == 1
    live = StreamScorer(
        origin, stream, detector, lambda partition, first_ns: offloaded.load_warm_start(first_ns)
    )
    rest: list[Event] = [("a", 24_002 + step, code) for step, code in enumerate(("open", "close", "lock"))]
    (result,) = process(live, encoded(rest))
    database.close()
    assert result.scored is not None
    assert not result.scored.verdicts.flag.any()
    assert (result.scored.verdicts.recent[0] != NO_EVENT).sum() == 2
