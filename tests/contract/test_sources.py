"""Contract of every source: a new one is done when it passes. Kinds are in ``source_kinds``."""

from __future__ import annotations

import time

import pytest

from pipeline.core.errors import OffsetOutOfRange, SourceError
from pipeline.core.types import Partition
from tests.support.source_kinds import (
    ConfluentKind,
    CsvKind,
    KafkaKind,
    MemoryKind,
    ParquetKind,
    Reader,
    ZippedCsvKind,
    numbered,
)

SECOND = 1_000_000_000
KINDS = {
    "memory": MemoryKind,
    "kafka": KafkaKind,
    "confluent": ConfluentKind,
    "csv": CsvKind,
    "csv.gz": ZippedCsvKind,
    "parquet": ParquetKind,
}


def needs(*abilities):
    """The test is about something that not every kind has; it runs over those that do."""

    def with_abilities(test):
        test.abilities = set(abilities)
        return test

    return with_abilities


def pytest_generate_tests(metafunc):
    if "kind_name" in metafunc.fixturenames:
        needed = getattr(metafunc.function, "abilities", set())
        names = [name for name, kind in KINDS.items() if needed <= kind.abilities]
        kafka = [pytest.mark.kafka]
        metafunc.parametrize(
            "kind_name",
            [pytest.param(n, marks=kafka if issubclass(KINDS[n], KafkaKind) else []) for n in names],
        )


@pytest.fixture
def make(request, kind_name, tmp_path):
    """``make(partitions=…)`` gives a fresh log of the kind under test."""
    kind = KINDS[kind_name]
    if kind is ConfluentKind:
        pytest.importorskip("confluent_kafka", reason="the extra forewatch[confluent] is not installed")

    def build(partitions: int = 1):
        return kind(
            request.getfixturevalue("topics") if issubclass(kind, KafkaKind) else tmp_path, partitions
        )

    return build


@pytest.fixture
def open_source():
    """Opens sources and closes them in the end."""
    opened = []

    def opening(kind, **options):
        opened.append(kind.open(**options))
        return opened[-1]

    yield opening
    for source in opened:
        source.close()


def test_everything_comes_once_and_in_order(make, open_source):
    kind = make(3)
    for number in range(3):
        kind.write(numbered(2000, f"p{number}-"), number)
    reader = Reader(open_source(kind)).until_read(6000, max_records=700)
    for number, partition in enumerate(kind.partitions):
        assert reader.values(partition) == numbered(2000, f"p{number}-")
    reader.once()
    assert reader.count() == 6000


@needs("append")
def test_what_is_written_later_comes_too(make, open_source):
    kind = make()
    kind.write(numbered(10))
    reader = Reader(open_source(kind)).until_read(10)
    kind.write(numbered(10, first=10))
    assert reader.until_read(20).values(kind.partitions[0]) == numbered(20)


def test_assigned_partitions_are_paused_until_they_are_resumed(make, open_source):
    kind = make(2)
    for number in range(2):
        kind.write(numbered(5), number)
    source, assigned = open_source(kind), []
    deadline = time.monotonic() + 120
    while len(assigned) < 2 and time.monotonic() < deadline:
        poll = source.poll(100, 0.2)
        assigned += poll.assigned
        assert not poll.records
    assert sorted(assigned) == kind.partitions
    for _ in range(5):
        assert not source.poll(100, 0.1).records
    source.seek(kind.partitions[1], 3)
    source.resume([kind.partitions[1]])
    reader = Reader(source, positions={kind.partitions[1]: 3}, owned=set(assigned)).until_read(2)
    assert reader.values(kind.partitions[1]) == numbered(2, first=3)
    assert not reader.values(kind.partitions[0])


def test_seek_goes_back_and_forth(make, open_source):
    kind = make()
    kind.write(numbered(500))
    partition = kind.partitions[0]
    reader = Reader(open_source(kind)).until_read(500)
    for offset in (0, 137, 499, 250, 250):
        reader.source.seek(partition, offset)
        reader.positions[partition], reader.read = offset, {}
        reader.until_read(500 - offset)
        assert reader.read[partition][0] == (offset, f"v{offset:05d}".encode())
        assert reader.values(partition) == numbered(500 - offset, first=offset)


def test_a_paused_partition_waits_and_loses_nothing(make, open_source):
    kind = make(2)
    for number in range(2):
        kind.write(numbered(3000), number)
    still, going = kind.partitions
    reader = Reader(open_source(kind)).until_owned(2)
    reader.until(lambda: still in reader.read, max_records=10)
    reader.source.pause([still])
    before = reader.positions[still]
    reader.until(lambda: len(reader.values(going)) == 3000)
    for _ in range(3):
        reader.once()
    assert reader.positions[still] == before
    reader.source.resume([still])
    reader.until_read(6000)
    assert reader.values(still) == numbered(3000)


def test_pause_seek_resume_reads_from_the_new_place_only(make, open_source):
    """Records that the client fetched before the pause are not returned after it."""
    kind = make()
    kind.write(numbered(5000))
    partition = kind.partitions[0]
    reader = Reader(open_source(kind)).until_read(10, max_records=10)
    reader.source.pause([partition])
    reader.once()
    reader.source.seek(partition, 4000)
    reader.positions[partition], reader.read = 4000, {}
    reader.source.resume([partition])
    assert reader.until_read(1000).values(partition) == numbered(1000, first=4000)


def test_an_empty_poll_ends_in_time(make, open_source):
    kind = make()
    kind.write(numbered(1))
    reader = Reader(open_source(kind)).until_read(1)
    for timeout in (0.0, 0.1, 0.5):
        begun = time.monotonic()
        poll = reader.source.poll(100, timeout)
        assert not poll.records
        assert not poll.finished
        assert time.monotonic() - begun < timeout + 15, "the time-outs of the client are 30 s and more"


@needs("append")
def test_a_record_ends_the_wait(make, open_source):
    kind = make()
    kind.write(numbered(1))
    reader = Reader(open_source(kind)).until_read(1)
    kind.write(numbered(1))
    begun = time.monotonic()
    while not reader.once(timeout=120).records:
        pass
    assert time.monotonic() - begun < 60


@needs("append")
def test_partitions_that_take_turns_in_the_log_come_as_one_batch_each(make, open_source):
    kind = make(2)
    for turn in range(10):
        for number in (0, 1):
            kind.write(numbered(300, first=300 * turn), number)
    reader = Reader(open_source(kind)).until_owned(2)
    while sum(len(reader.values(p)) for p in kind.partitions) < 6000:
        time.sleep(0.05)  # more than one answer of the broker waits for the next poll, which asserts it
        reader.once(max_records=5000)
    assert [reader.values(p) for p in kind.partitions] == [numbered(3000)] * 2


def test_bounds_and_identity(make, open_source):
    kind = make(2)
    kind.write(numbered(7), 0)
    kind.write(numbered(2), 1)
    reader = Reader(open_source(kind)).until_owned(2)
    bounds = reader.source.bounds(kind.partitions)
    assert [tuple(bounds[p]) for p in kind.partitions] == [(0, 7), (0, 2)]
    identity = reader.source.identity(kind.partitions[0])
    assert identity
    second = open_source(kind)
    second.poll(10, 0.1)
    assert second.identity(kind.partitions[0]) == identity, "another process calls the same log the same"


@needs("start")
@pytest.mark.parametrize(
    ("start", "first"),
    [("earliest", 0), ("latest", 10), ("2026-03-01T00:00:05", 5), ("2026-03-01T00:00:04.500", 5)],
)
def test_start(make, open_source, start, first):
    kind = make()
    midnight = 1_772_323_200 * SECOND  # 2026-03-01T00:00:00Z
    kind.write(numbered(10), timestamps_ns=[midnight + i * SECOND for i in range(10)])
    reader = Reader(open_source(kind, start=start)).until_owned()
    assert reader.source.start_offset(kind.partitions[0]) == first
    kind.write(numbered(1, first=10), timestamps_ns=[midnight + 60 * SECOND])
    assert reader.until_read(11 - first).values(kind.partitions[0]) == numbered(11 - first, first=first)


@needs("start")
def test_a_start_after_the_last_record_is_the_end(make, open_source):
    kind = make()
    kind.write(numbered(3))
    reader = Reader(open_source(kind, start="2100-01-01")).until_owned()
    assert reader.source.start_offset(kind.partitions[0]) == 3


@needs("retention")
@pytest.mark.parametrize("offset", [2, 1000])
def test_out_of_range_is_reported_once_and_does_not_affect_the_rest(make, open_source, offset):
    kind = make(2)
    kind.write(numbered(20), 0)
    kind.write(numbered(5), 1)
    kind.trim(10, 0)
    broken, fine = kind.partitions
    reader = Reader(open_source(kind), positions={broken: offset})
    errors = []
    deadline = time.monotonic() + 120
    while not (errors and len(reader.values(fine)) == 5) and time.monotonic() < deadline:
        try:
            reader.once()
        except OffsetOutOfRange as error:
            errors.append(error)
    assert [(error.partition, error.offset) for error in errors] == [(broken, offset)]
    for _ in range(3):
        reader.once()  # the partition is paused now
    assert reader.source.bounds([broken])[broken] == (10, 20)
    reader.positions[broken] = 10
    reader.source.seek(broken, 10)
    reader.source.resume([broken])
    assert reader.until_read(15).values(broken) == numbered(10, first=10)


@needs("keys")
def test_nulls_keys_headers_and_timestamps(make, open_source):
    kind = make()
    stamps = [1_700_000_000 * SECOND, 1_700_000_001 * SECOND, 1_700_000_002 * SECOND]
    headers = [[], [("trace", b"\x00\xff"), ("trace", b"")], [("one", b"1")]]
    kind.write([b"a", None, b""], keys=[None, b"key", b""], timestamps_ns=stamps, headers=headers)
    reader = Reader(open_source(kind)).until_read(3)
    (records,) = reader.batches
    assert list(records.values) == [b"a", None, b""]
    assert list(records.keys) == [None, b"key", b""]
    assert records.timestamps.tolist() == stamps
    assert [list(header) for header in records.headers] == headers
    kind.write([b"plain"])
    reader.until_read(4)
    assert reader.batches[-1].headers is None


@needs("gaps")
def test_gaps_in_the_offsets_are_counted_as_read(make, open_source):
    kind = make()
    partition = kind.partitions[0]
    kind.write(numbered(3))
    kind.skip()
    kind.write(numbered(3, first=3))
    kind.skip()
    reader = Reader(open_source(kind))
    reader.until(lambda: reader.positions.get(partition) == 10)
    assert reader.values(partition) == numbered(6)
    assert sum(records.next_offset - records.first_offset for records in reader.batches) == 10
    assert reader.source.bounds([partition])[partition].end == 10


@needs("groups")
def test_members_of_a_group_share_and_hand_over(make, open_source):
    """Two members, then one again: each record once, and the first that a new owner reads is the one after
    the last of the old.
    """
    kind = make(4)
    positions: dict[Partition, int] = {}
    written = 0
    first = Reader(open_source(kind), positions).until_owned(4)
    second = Reader(open_source(kind), positions)
    deadline = time.monotonic() + 120
    while not (len(first.owned) == len(second.owned) == 2) and time.monotonic() < deadline:
        for number in range(4):
            kind.write(numbered(5, f"p{number}-", written), number)
        written += 5
        first.once()
        second.once()
        assert not first.owned & second.owned
    assert len(first.owned) == len(second.owned) == 2
    first.source.close()
    second.until_owned(4)
    kind.write(numbered(5, "p0-", written), 0)
    second.until(lambda: first.count() + second.count() == 4 * written + 5)
    for number, partition in enumerate(kind.partitions):
        together = sorted(first.read.get(partition, []) + second.read.get(partition, []))
        assert [value for _, value in together] == numbered(
            written + (5 if number == 0 else 0), f"p{number}-"
        )


@needs("grow")
def test_new_partitions_are_found_and_read_from_their_beginning(make, open_source):
    kind = make(1)
    kind.write(numbered(1))
    reader = Reader(open_source(kind, start="latest")).until_owned()
    kind.grow(1)
    new = kind.partition(1) if isinstance(kind, CsvKind) else Partition(kind.partitions[0].topic, 1)
    kind.write(numbered(5), 1)
    reader.until(lambda: len(reader.values(new)) == 5)
    assert reader.values(new) == numbered(5)


@needs("recreate")
def test_a_recreated_log_is_read_from_its_beginning(make, open_source):
    kind = make(1)
    partition = kind.partitions[0]
    kind.write(numbered(5))
    reader = Reader(open_source(kind)).until_read(5)
    before = reader.source.identity(partition)
    kind.recreate()
    revoked, assigned = [], []
    deadline = time.monotonic() + 120
    while not assigned and time.monotonic() < deadline:
        try:
            poll = reader.source.poll(100, 0.2)
        except OffsetOutOfRange:  # allowed before the metadata says why
            continue
        revoked += poll.revoked
        assigned += poll.assigned
    assert revoked == [partition]
    assert assigned == [partition]
    assert reader.source.identity(partition) != before


def test_publishing_offsets_never_raises(make, open_source):
    kind = make(1)
    kind.write(numbered(1))
    source = open_source(kind)
    source.publish_offsets({})
    source.publish_offsets({Partition("no-such-topic", 7): 3})
    Reader(source).until_owned()
    source.publish_offsets({Partition("no-such-topic", 7): 4, kind.partitions[0]: 0})
    source.close()
    source.publish_offsets({kind.partitions[0]: 1})


def test_closing_twice_and_before_the_first_poll(make, open_source):
    kind = make(1)
    kind.write(numbered(1))
    for polls in (0, 1):
        source = open_source(kind)
        for _ in range(polls):
            source.poll(1, 0.1)
        source.close()
        source.close()


def test_a_closed_source_says_so(make, open_source):
    kind = make(1)
    kind.write(numbered(1))
    source = open_source(kind)
    source.close()
    with pytest.raises(SourceError, match="closed"):
        source.poll(1, 0.1)


@needs("finish")
def test_a_bounded_source_finishes_once_it_gave_everything(make, open_source):
    kind = make(2)
    for number in range(2):
        kind.write(numbered(1000), number)
    reader = Reader(open_source(kind, follow=False))
    reader.until(lambda: reader.finished, max_records=333)
    assert [reader.values(partition) for partition in kind.partitions] == [numbered(1000)] * 2
