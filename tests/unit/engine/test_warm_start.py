"""Past points: a series that has a history begins as if it had been watched all along, and however the
reading is broken off.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from detectors.stages.forecaster_selection import COL_ROWS
from pipeline.core.errors import InputError, SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.engine.initial_state import initial_states
from pipeline.engine.warm_start import read_warm_start
from pipeline.models.champion import champion_of
from pipeline.sources.base import Poll
from pipeline.sources.memory import MemorySource
from pipeline.training.dataset import from_history
from pipeline.training.quarantine import ExclusionReason, ReviewLabel
from pipeline.training.state_fitting import fit_state, refit_reviewed_series
from storage.stream_state import reader as stored_readers
from storage.tables.stream import SeriesStateRow
from tests.faults.feed import START_MS, Log, record
from tests.support.engines import Bench, Tally, away_twice, essence

NAMES = "abc"
PAST_S, LIVE_S = 900, 200


def value(name: str, second: int) -> float:
    noise = random.Random(f"{name}{second}").gauss(0, 0.3)
    return round(
        20
        + 3 * math.sin(second / 10 + ord(name))
        + noise
        + (15 if second % 150 > 146 and second > PAST_S else 0),
        3,
    )


def records(begin: int, end: int, names: str = NAMES) -> list[bytes]:
    return [record(name, second, value(name, second)) for second in range(begin, end) for name in names]


def live() -> list[bytes]:
    """What comes after the past; at its end a tide that lifts the watermark over all the others.

    It is ahead by less than the ten minutes from which one series alone does not set the clock.
    """
    return [*records(PAST_S, PAST_S + LIVE_S), record("tide", PAST_S + LIVE_S + 300, 1.0)]


def write(path: Path, values: Sequence[bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, ("s", "t", "v"))
        rows.writeheader()
        rows.writerows(map(json.loads, values))
    return path


@pytest.fixture
def make(tmp_path: Path, sqlite_template: Path) -> Iterator[type]:
    benches: list[Bench] = []

    def one(values: list[bytes], history: Path | None = None, **changes) -> Bench:
        past = {} if history is None else {"warm_start": str(history)}
        # The limit of the feed would flag without any knowledge; here only what is usual counts.
        settings = {"limits": {}, "detector": "standard"} | past | changes
        benches.append(
            Bench(
                tmp_path / f"bench{len(benches)}",
                sqlite_template,
                [Log(values, ["scored"] * len(values))],
                **settings,
            )
        )
        return benches[-1]

    yield one
    for bench in benches:
        bench.close()


def reading(bench: Bench, owner: str = "test") -> Iterator[int]:
    """Read the warm start as a daemon does before the first poll."""
    return read_warm_start(
        bench.database,
        owner,
        "plant",
        bench.engine().parts.scorer,
        lambda: MemorySource(bench.log, group=owner),
    )


def read(bench: Bench, steps: int | None = None) -> None:
    """Broken off after so many steps."""
    for step, _ in enumerate(reading(bench)):
        if step == steps:
            return


def verdicts(bench: Bench, tally: Tally) -> dict[tuple[str, int], tuple]:
    scorer, found = bench.open[-1].parts.scorer, {}
    for result in tally.results:
        if (scored := result.scored) is not None:
            said = (getattr(scored.verdicts, name).tolist() for name in ("score", "flag", "forecaster"))
            for slot, time, score, flag, forecaster in zip(
                scored.points.slot.tolist(), scored.points.time.tolist(), *said, strict=True
            ):
                found[scorer.name_of(slot), time // 10**9 - START_MS // 1000] = (score, flag, forecaster)
    return {at: one for at, one in found.items() if at[0] != "tide"}


def watched(
    make, history: Path | None, values: list[bytes], **changes
) -> tuple[Bench, dict[tuple[str, int], tuple]]:
    bench, tally = make(values, history, **changes), Tally()
    bench.fill()
    read(bench)
    bench.drain(bench.engine(sinks=[tally]))
    return bench, verdicts(bench, tally)


def assert_same(said: dict[tuple[str, int], tuple], expected: dict[tuple[str, int], tuple]) -> None:
    """But for what a batched LSTM step rounds otherwise."""
    assert {at: one[1:] for at, one in said.items()} == {at: one[1:] for at, one in expected.items()}
    assert {at: one[0] for at, one in said.items()} == pytest.approx(
        {at: one[0] for at, one in expected.items()}, abs=1e-3
    )


@pytest.fixture
def all_along(make) -> dict[tuple[str, int], tuple]:
    """The verdicts of a run that saw past and present as one log."""
    _, said = watched(make, None, records(0, PAST_S) + live())
    of_live = {at: one for at, one in said.items() if at[1] >= PAST_S}
    assert len(of_live) == LIVE_S * len(NAMES), "the last ones, too"
    assert sum(flag for _, flag, _ in of_live.values()) >= len(NAMES)
    return of_live


@pytest.mark.parametrize("lateness", ["0s", "3s"])
def test_a_series_goes_on_where_its_past_ends(make, tmp_path, all_along, lateness):
    path = write(tmp_path / "past.csv", records(0, PAST_S))
    bench, said = watched(make, path, live(), lateness=lateness)
    assert_same(said, all_along)
    assert bench.position().counts.read() == LIVE_S * len(NAMES) + 1


def test_without_its_past_the_verdicts_differ(make, all_along):
    _, said = watched(make, None, live())
    assert said.keys() == all_along.keys()
    first = [at for at in said if at[1] < PAST_S + 30]
    assert all(said[at][2] != all_along[at][2] for at in first), "another forecaster"


@pytest.mark.parametrize("files", ["months", "series"])
def test_many_files_are_read_in_the_order_of_their_times(make, tmp_path, all_along, files):
    if files == "months":  # in the order of their names they would be 1, 10, 2, …
        for month in range(12):
            write(
                tmp_path / f"past/{month + 1}.csv", records(month * PAST_S // 12, (month + 1) * PAST_S // 12)
            )
    else:
        for name in NAMES:
            write(tmp_path / f"past/{name}.csv", records(0, PAST_S, name))
    _, said = watched(make, tmp_path / "past", live())
    assert_same(said, all_along)


def test_nothing_of_the_past_goes_out_and_what_never_comes_takes_no_memory(make, tmp_path):
    past = records(0, PAST_S) + [record("a", PAST_S + s, 900.0) for s in range(5)] + records(0, 50, "xyz")
    bench = make(records(PAST_S + 5, PAST_S + 100), write(tmp_path / "past.csv", past))
    read(bench)
    assert not bench.anomalies()
    assert not bench.positions()
    bench.fill()
    engine = bench.drain(bench.engine())
    assert len(engine.parts.scorer.series) == len(NAMES)


def test_of_a_past_that_goes_on_beside_the_log_only_what_is_older_is_learnt(make, tmp_path, all_along):
    path = write(tmp_path / "past.csv", records(0, PAST_S + LIVE_S + 100))
    bench, said = watched(make, path, live())
    assert_same(said, all_along)
    assert bench.position().counts.duplicate == 0


def test_a_series_whose_past_goes_on_after_its_first_record_begins_without(make, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.engine.warm_start.PEEK_RECORDS", 1)  # so that c is not seen
    log = [*records(PAST_S + 50, PAST_S + 90, "ab"), *records(PAST_S, PAST_S + 90, "c")]
    _, blind = watched(make, None, log, lateness="0s")
    bench, said = watched(make, write(tmp_path / "past.csv", records(0, PAST_S + 200)), log, lateness="0s")
    assert_same(
        {at: one for at, one in said.items() if at[0] == "c"},
        {at: one for at, one in blind.items() if at[0] == "c"},
    )
    assert all(said[at][2] != blind[at][2] for at in said if at[0] in "ab" and at[1] < PAST_S + 60)
    assert bench.position().counts.scored == len(log)


def test_without_access_to_the_log_the_last_point_of_the_past_may_be_its_first(make, tmp_path):
    bench, tally = (
        make(
            live(),
            write(tmp_path / "past.csv", [*records(0, PAST_S + 1, "ab"), *records(0, PAST_S + 2, "c")]),
        ),
        Tally(),
    )
    bench.fill()
    list(read_warm_start(bench.database, "test", "plant", bench.engine().parts.scorer, lambda: None))
    bench.drain(bench.engine(sinks=[tally]))
    assert bench.position().counts.duplicate == 2, (
        "a and b go on; c begins without its past, for that knows the future"
    )
    said = verdicts(bench, tally)
    assert [said[name, PAST_S + 1][2] > 1 for name in NAMES] == [True, True, False]
    assert ("c", PAST_S) in said


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_killed_while_reading_it_begins_again(make, tmp_path, all_along, steps, monkeypatch):
    monkeypatch.setattr("pipeline.engine.warm_start.SERIES_PER_TRANSACTION", 1)
    monkeypatch.setattr("pipeline.engine.warm_start.MAX_BATCH_RECORDS", 2000)
    bench, tally = make(live(), write(tmp_path / "past.csv", records(0, PAST_S))), Tally()
    read(bench, steps)
    bench.fill()
    read(bench)
    bench.drain(bench.engine(sinks=[tally]))
    assert_same(verdicts(bench, tally), all_along)


def test_two_members_that_read_at_once_store_the_same(make, tmp_path, all_along):
    bench, tally = make(live(), write(tmp_path / "past.csv", records(0, PAST_S))), Tally()
    bench.fill()
    one, two = reading(bench, "one"), reading(bench, "two")
    for _ in range(3):
        next(one, None), next(two, None)
    list(one), list(two)
    assert list(reading(bench, "three")) == [], "it is known"
    bench.drain(bench.engine(sinks=[tally]))
    assert_same(verdicts(bench, tally), all_along)


def test_broken_off_anywhere_the_verdicts_are_those_of_one_run(make, tmp_path):
    path, log = write(tmp_path / "past.csv", records(0, PAST_S)), live()
    once, _ = watched(make, path, log)
    assert essence(once.anomalies())
    bench, rng = make(log, path, engine={"max_batch": 40}, storage={"snapshot_every": "1h"}), random.Random(4)
    bench.fill()
    for _ in range(12):  # the snapshot is that of the first batch: each time nearly all is replayed
        read(bench)
        engine = bench.engine()
        for _ in range(rng.randrange(2, 14)):
            engine.turn(0.0)
    bench.drain(bench.engine())
    assert essence(bench.anomalies()) == essence(once.anomalies())
    assert bench.position().counts.read() == len(log)


def name(bench: Bench, history: Path | None) -> None:
    """Another config."""
    streams = {"plant": bench.config.streams["plant"].model_copy(update={"warm_start": history})}
    bench.config = bench.config.model_copy(update={"streams": streams})


def stored(bench: Bench) -> int:
    with bench.database.read() as connection:
        assert len(stored_readers.names(connection, "plant (history ")) <= 1
        return len(connection.execute(select(SeriesStateRow.series)).all())


def test_another_path_is_read_again_and_none_is_forgotten(make, tmp_path):
    bench = make(live(), write(tmp_path / "past.csv", records(0, 60)))
    read(bench)
    assert stored(bench) == 3
    name(bench, write(tmp_path / "other.csv", records(0, 60, "abcde")))
    read(bench)
    assert stored(bench) == 5
    name(bench, None)
    read(bench)
    assert stored(bench) == 0


def test_files_that_cannot_be_read_are_named_and_leave_nothing(make, tmp_path):
    good = records(0, 600)
    bench = make([], write(tmp_path / "past.csv", good))
    path = bench.config.streams["plant"].warm_start
    path.write_text(path.read_text().replace(",", ",x"))
    with pytest.raises(SourceError, match=r"past\.csv: .*correct the input or the format"):
        read(bench)
    name(bench, tmp_path / "bench0")
    with pytest.raises(InputError, match="holds no file that ends in"):
        read(bench)
    assert stored(bench) == 0


def test_a_database_that_is_away_is_waited_for(make, tmp_path, all_along, monkeypatch):
    from storage.stream_state import offloaded_series

    failures = away_twice(monkeypatch, offloaded_series, "store")
    _, said = watched(make, write(tmp_path / "past.csv", records(0, PAST_S)), live())
    assert_same(said, all_along)
    assert next(failures, None) is None, "it was asked three times"


def test_series_are_found_whichever_partition_they_come_in(tmp_path, sqlite_template):
    logs = [Log(values := records(PAST_S, PAST_S + 50, name), ["scored"] * len(values)) for name in NAMES]
    path = write(tmp_path / "past.csv", records(0, PAST_S))
    bench = Bench(tmp_path / "three", sqlite_template, logs, warm_start=str(path))
    bench.fill()
    read(bench)
    scorer = bench.drain(bench.engine()).parts.scorer
    for number, name in enumerate(NAMES):
        (slot,) = scorer.series.slots(Partition("plant", number)).tolist()
        # 3 s are buffered
        assert (scorer.name_of(slot), scorer.series.state["windows"]["seq"][slot]) == (name, PAST_S + 47)
    bench.close()


def test_a_series_that_people_ruled_on_is_learnt_again_with_its_past(make, tmp_path):
    bench = make(live(), write(tmp_path / "past.csv", records(0, PAST_S)), lateness="0s")
    bench.fill()
    read(bench)
    engine = bench.drain(bench.engine(history=True))
    engine.close()
    bench.open.clear()
    stream = bench.config.streams["plant"]
    champion = champion_of(bench.database, "plant", stream)
    label = ReviewLabel(
        "a", START_MS * 10**6 + 10**18, START_MS * 10**6 + 10**18, ExclusionReason.ANOMALY, "someone"
    )
    knows = partial(initial_states, bench.database, champion, stream)
    found = refit_reviewed_series(
        champion.detector, str(bench.folder / "history"), "plant", stream, [label], 0, knows
    )
    assert found is not None
    assert found.names == ["a"]
    assert found.state["ladder.gauss"][0, 0, COL_ROWS] > PAST_S, "with the points of the past"
    blind = fit_state(
        champion.detector, from_history(str(bench.folder / "history"), "plant", stream.channels, series=["a"])
    )
    assert blind["ladder.gauss"][0, 0, COL_ROWS] <= LIVE_S
    bench.database.close()


@pytest.mark.parametrize("patience", [60.0, -1.0])
def test_a_source_that_is_away_is_waited_for_with_a_limit(make, tmp_path, all_along, monkeypatch, patience):
    monkeypatch.setattr("pipeline.engine.warm_start.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("pipeline.engine.warm_start.PATIENCE_SECONDS", patience)
    bench, tally = make(live(), write(tmp_path / "past.csv", records(0, PAST_S + 100))), Tally()
    bench.fill()

    class Away(MemorySource):
        def poll(self, max_records: int, timeout: float) -> Poll:
            raise SourceUnavailable("away")

    looks = iter((Away, Away, MemorySource))
    list(
        read_warm_start(
            bench.database,
            "test",
            "plant",
            bench.engine().parts.scorer,
            lambda: next(looks)(bench.log, group="peek"),
        )
    )
    bench.drain(bench.engine(sinks=[tally]))
    said = verdicts(bench, tally)
    if patience > 0:
        assert_same(said, all_along)
    else:
        assert next(looks) is Away, "it went on after the first"
        assert said.keys() == all_along.keys()
        assert said["a", PAST_S][2] != all_along["a", PAST_S][2], (
            "what goes on after the first record is not used"
        )
