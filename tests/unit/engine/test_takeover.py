"""Whatever breaks the engine off, and wherever: whoever goes on gives the verdicts of an undisturbed run."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.types import AnomalyState, FaultKind, Partition
from pipeline.engine import snapshots
from pipeline.engine.commit import Committer
from pipeline.engine.ownership import Ownership
from storage.stream_state import offloaded_series, positions
from tests.faults.feed import Log, record
from tests.support.engines import UNTIL_A_LEFT, Bench, Tally, essence, log_that_a_leaves

# ------------------------------------------------------------------------------------------------ several runs


@pytest.mark.parametrize("every", ["0s", "100ms", "1h"])
@pytest.mark.parametrize("seed", range(4))
def test_broken_off_anywhere_the_result_is_the_same(make, logs, undisturbed, every, seed):
    """Engines are left standing at random places (their memory is gone, their group session ends), the next
    one goes on.
    """
    rng = random.Random(seed)
    bench = make(logs, storage={"snapshot_every": every}, engine={"max_batch": rng.choice((23, 90, 400))})
    replayed = 0
    for part in range(1, 9):
        bench.fill(lambda log, part=part: len(log.values) * part // 8)
        tally = Tally()
        engine = bench.engine(sinks=[tally])
        for _ in range(rng.randrange(1, 12)):
            engine.turn(0.0)
        fresh = {q: p for q, (_, p) in bench.positions().items()}
        replayed += sum(
            o.next_offset <= fresh[q].next_offset for r in tally.results for q, o in r.outcomes.items()
        )
    tally = Tally()
    bench.drain(bench.engine(sinks=[tally]))
    bench.check()
    assert replayed
    assert essence(bench.anomalies()) == undisturbed


def test_a_takeover_right_after_the_first_commit_loses_nothing_held(make, logs, undisturbed):
    """There is no snapshot yet: what was read so far is read again from the start."""
    bench = make(logs, engine={"max_batch": 60})
    bench.fill()
    engine = bench.engine()
    engine.parts.snapshots.take_due = lambda ownership: None  # killed before its first snapshot
    for _ in range(3):
        engine.turn(0.0)
    assert any(p.counts.buffered for _, p in bench.positions().values())
    bench.drain(bench.engine())
    bench.check()
    assert essence(bench.anomalies()) == undisturbed


def test_after_a_replay_the_state_is_that_of_one_run(make, logs):
    whole, broken = make(logs), make(logs, storage={"snapshot_every": "1h"})
    for bench in (whole, broken):
        bench.fill()
        bench.drain(bench.engine())
    tally = Tally()
    again = broken.engine(sinks=[tally])
    broken.drain(again)
    for _ in range(30):
        again.turn(0.0)
    scored = sum(len(r.scored.points) for r in tally.results if r.scored is not None)
    assert scored > 100, "it read again what lies behind the snapshot"
    assert not any(r.anomalies for r in tally.results), "and said nothing about it"
    for partition in broken.log.partitions:
        one, two = whole.open[-1].parts.scorer, again.parts.scorer
        names = {one.name_of(slot): slot for slot in one.series.slots(partition).tolist()}
        others = {two.name_of(slot): slot for slot in two.series.slots(partition).tolist()}
        assert names.keys() == others.keys()
        for layer in one.series.state:
            for key, array in one.series.state[layer].items():
                for name in names:
                    np.testing.assert_allclose(
                        two.series.state[layer][key][others[name]],
                        array[names[name]],
                        rtol=1e-5,
                        atol=1e-6,
                        err_msg=f"{layer}.{key} of {name}",
                    )


def test_an_open_anomaly_of_a_series_first_seen_after_the_snapshot_goes_on(make):
    log = Log()
    for second in range(60):
        log.add(record("old", second, 20.0 + second % 3), "scored")
        if second >= 20:
            log.add(record("new", second, 500.0 if 25 <= second < 34 else 20.0 + second % 3), "scored")
    log.add(record("tide", 100, 1.0), "scored")
    whole, broken = make([log]), make([log], storage={"snapshot_every": "1h"}, engine={"max_batch": 15})
    whole.fill()
    whole.drain(whole.engine())
    for cut in range(45, len(log.values), 3):
        broken.fill(lambda log, cut=cut: cut)
        broken.drain(broken.engine())
    broken.fill()
    broken.drain(broken.engine())
    (anomaly,) = [a for a in broken.anomalies() if a.series == "new"]
    assert (anomaly.points, anomaly.state) == (9, AnomalyState.CLOSED)
    assert essence(broken.anomalies()) == essence(whole.anomalies())


def test_history_holds_each_scored_offset_once(make, logs):
    bench = make(logs, engine={"max_batch": 100}, storage={"snapshot_every": "100ms"})
    rng = random.Random(7)
    for part in range(1, 5):
        bench.fill(lambda log, part=part: len(log.values) * part // 4)
        engine = bench.engine(history=True)
        for _ in range(rng.randrange(2, 9)):
            engine.turn(0.0)
    engine = bench.drain(bench.engine(history=True))
    engine.close()
    table = bench.history()
    got = sorted(zip(table["series"].to_pylist(), table["offset"].to_pylist(), strict=True))
    assert len(got) == len(set(got)) == sum(bench.position(n).counts.scored for n in range(len(logs)))
    for number, log in enumerate(logs):
        mine = [offset for series, offset in got if series.startswith(f"p{number}-")]
        assert {log.kinds[offset] for offset in mine} == {"scored"} | {"duplicate"} & {
            log.kinds[offset] for offset in mine
        }
        assert len(mine) == log.counts()["scored"] - 1, "all but the tide"


# ------------------------------------------------------------------------------------------------ fences


def steal(bench: Bench, number: int) -> None:
    positions.acquire(bench.database, "plant", Partition("plant", number), "thief", "")


def test_a_fenced_commit_drops_that_partition_only(make, logs, undisturbed):
    bench = make(logs, engine={"max_batch": 300})
    bench.fill(lambda log: len(log.values) // 2)
    engine = bench.drain(bench.engine())
    steal(bench, 1)
    stolen = bench.position(1)
    bench.fill()
    for _ in range(30):
        engine.turn(0.0)
    assert Partition("plant", 1) not in engine.parts.ownership.positions
    assert bench.position(1) == stolen, "the zombie committed nothing"
    for number in (0, 2):
        assert bench.position(number).next_offset == len(logs[number].values)
        assert bench.position(number).counts.read() == len(logs[number].values)
    bench.drain(bench.engine())
    bench.check()
    assert essence(bench.anomalies()) == undisturbed
    assert not [f for f in bench.faults() if f.ended_ns is None]


def test_a_fenced_owner_without_records_finds_out_at_its_snapshot(make, logs):
    bench = make(logs[:1], storage={"snapshot_every": "1h"})
    bench.fill()
    engine = bench.drain(bench.engine())
    steal(bench, 0)
    engine.parts.snapshots._every = 0.0
    for _ in range(2_000):  # snapshots are spread over time
        engine.turn(0.0)
        if not engine.parts.ownership.positions:
            break
        time.sleep(0.01)
    assert not engine.parts.ownership.positions
    assert [f.kind for f in bench.faults()] == [FaultKind.FENCED]


def test_fenced_while_taking_over(make, logs, monkeypatch):
    """Frozen between the claim and the pinning of the start: somebody else was there meanwhile."""
    bench = make(logs[:1])
    bench.fill()
    claim = positions.acquire

    def slow(*arguments):
        position = claim(*arguments)
        monkeypatch.setattr(positions, "acquire", claim)
        steal(bench, 0)
        return position

    monkeypatch.setattr(positions, "acquire", slow)
    monkeypatch.setattr("pipeline.engine.member_partitions.REACQUIRE_SECONDS", 0.0)
    bench.drain(bench.engine())
    bench.check()


@pytest.mark.parametrize("moment", ["epochs raised", "states loaded"])
def test_fenced_while_taking_over_several(make, logs, monkeypatch, undisturbed, moment):
    """Somebody else was there in between."""
    bench = make(logs)
    bench.fill(lambda log: len(log.values) // 2)
    bench.drain(bench.engine())
    bench.fill()
    place, name = (positions, "acquire_all") if moment == "epochs raised" else (Ownership, "claim")
    inner = getattr(place, name)

    def slow(*arguments):
        found = inner(*arguments)
        monkeypatch.setattr(place, name, inner)
        steal(bench, 1)
        return found

    monkeypatch.setattr(place, name, slow)
    monkeypatch.setattr("pipeline.engine.member_partitions.REACQUIRE_SECONDS", 0.0)
    bench.drain(bench.engine())
    bench.check()
    assert essence(bench.anomalies()) == undisturbed
    assert bench.position(1).epoch == 4, "two owners, the thief, and again"


def test_new_partitions_begin_in_one_transaction(make, logs, monkeypatch):
    commits: list[int] = []
    commit = Committer.commit
    monkeypatch.setattr(
        Committer, "commit", lambda self, parts: [commits.append(len(parts)), commit(self, parts)][1]
    )
    bench = make(logs)
    engine = bench.engine()
    engine.turn(0.0)
    assert commits == [len(logs)]
    assert {at.epoch for at in engine.parts.ownership.positions.values()} == {1}


# ------------------------------------------------------------------------------------------------ idle series


def test_an_idle_series_leaves_and_comes_back_with_its_state(make):
    def day(first: int, names: str) -> list[bytes]:
        return [record(name, first + s, 20.0 + (s + ord(name)) % 5) for s in range(60) for name in names]

    values = day(0, "ab") + day(1000, "b") + day(2000, "b") + day(3000, "ab")
    log = Log(values, ["scored"] * len(values))
    settings = {"idle_after": "500s", "engine": {"max_batch": 40}}
    kept, moved = (
        make([log], **settings | {"idle_after": "7d"}),
        make([log], **settings, storage={"snapshot_every": "0s"}),
    )
    kept.fill()
    kept.drain(kept.engine())
    for cut in (130, 240, 330, len(values)):
        moved.fill(lambda log, cut=cut: cut)
        engine = moved.drain(moved.engine())
        if cut == 240:
            assert len(engine.parts.scorer.series) == 1, "a has left"
    assert len(engine.parts.scorer.series) == 2
    one, two = kept.open[-1].parts.scorer, engine.parts.scorer
    for name in ("a", "b"):
        (slot,) = (s for s in one.series.slots(Partition("plant", 0)).tolist() if one.name_of(s) == name)
        (other,) = (s for s in two.series.slots(Partition("plant", 0)).tolist() if two.name_of(s) == name)
        assert one.series.state["windows"]["seq"][slot] == two.series.state["windows"]["seq"][other] > 100
        for key, array in one.series.state["detector"].items():
            np.testing.assert_allclose(
                two.series.state["detector"][key][other], array[slot], rtol=1e-5, atol=1e-6, err_msg=key
            )
    assert essence(moved.anomalies()) == essence(kept.anomalies())


def test_many_idle_series_leave_in_several_snapshots(make, monkeypatch):
    """The longest silent ones leave first, the last ones without a further record."""
    monkeypatch.setattr(snapshots, "MAX_OFFLOADED_SERIES", 2)
    values = [record(name, second, 20.0) for second, name in enumerate("abcdez")]
    values += [record("z", second, 20.0) for second in range(1000, 1100)]
    bench = make(
        [Log(values, ["scored"] * len(values))],
        idle_after="500s",
        lateness="0s",
        storage={"snapshot_every": "0s"},
        engine={"max_batch": 1000},
    )
    left: list[int] = []
    offload = offloaded_series.offload
    monkeypatch.setattr(
        offloaded_series,
        "offload",
        lambda *arguments: [left.append(offload(*arguments)), left[-1]][1],
    )
    bench.fill()
    engine = bench.drain(bench.engine())
    for _ in range(6):
        engine.turn(0.0)
    assert len(engine.parts.scorer.series) == 1
    assert [count for count in left if count] == [2, 2, 1]


def test_a_leap_of_one_series_makes_others_idle_after_a_minute(make):
    bench = make([log_that_a_leaves()], idle_after="500s", lateness="0s", storage={"snapshot_every": "0s"})
    engine = bench.engine()
    for records, series in ((120, 2), (180, 2), (181, 1)):
        bench.fill(lambda log, records=records: records)
        bench.drain(engine)
        engine.parts.snapshots.wait()  # of the one before, which a thread writes
        for _ in range(3):
            engine.turn(0.0)
        assert len(engine.parts.scorer.series) == series, records


def test_a_series_that_another_owner_put_away_is_found(make):
    """What a member knew of the stored series before it lost a partition is out of date when it gets it
    again."""
    bench = make([log_that_a_leaves()], idle_after="500s", storage={"snapshot_every": "0s"})
    bench.fill(lambda log: 120)
    first = bench.drain(bench.engine())
    bench.fill(lambda log: UNTIL_A_LEFT)
    second = bench.drain(bench.engine())
    assert len(second.parts.scorer.series) == 1, "a has left"
    bench.log.expel(second.parts.source)
    bench.fill()
    bench.drain(first)
    (slot,) = (
        s
        for s in first.parts.scorer.series.slots(Partition("plant", 0)).tolist()
        if first.parts.scorer.name_of(s) == "a"
    )
    assert first.parts.scorer.series.state["windows"]["seq"][slot] > 100


@pytest.mark.parametrize("partitions", [1, 3])
def test_records_that_the_former_owner_commits_meanwhile_are_no_gap(make, monkeypatch, partitions):
    """The end of a partition is asked for before it is acquired; until then its owner may read on."""
    logs = [Log([record(f"s{n}", t, 20.0) for t in range(80)], ["scored"] * 80) for n in range(partitions)]
    bench = make(logs, lateness="0s")
    bench.fill(lambda log: 40)
    first = bench.drain(bench.engine())
    second = bench.engine()
    bounds, asked = second.parts.source.bounds, []

    def bounds_then_more(partitions):
        found = bounds(partitions)
        if not asked:
            asked.append(partitions)
            bench.fill()
            for position in first.parts.ownership.positions.values():
                with bench.database.begin() as connection:
                    counts = replace(position.counts, scored=80)
                    positions.advance(connection, position, 80, counts, position.watermark_ns)
        return found

    monkeypatch.setattr(second.parts.source, "bounds", bounds_then_more)
    bench.drain(second)
    assert len(asked[0]) == partitions, "one request for all partitions"
    assert bench.faults() == []
