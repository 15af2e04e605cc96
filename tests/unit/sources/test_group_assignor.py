"""Assignment of partitions to the members of a group."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import pytest
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription
from kafka.structs import TopicPartition

from pipeline.sources.kafka.group_assignor import GroupAssignor

Owned = dict[str, set[TopicPartition]]


class Group:
    """Members of a group, and what they own."""

    def __init__(self, topics: dict[str, int], members: int, assignor: type = GroupAssignor) -> None:
        self.topics = topics
        self.owned: Owned = {f"member-{n:03}": set() for n in range(members)}
        self.generations: dict[str, int] = {}
        self.assignor = assignor

    def round(self) -> Owned:
        """Return what a rebalance gives to each member, without applying it."""
        cluster = SimpleNamespace(
            topics=lambda: set(self.topics),
            partitions_for_topic=lambda topic: (
                set(range(self.topics[topic])) if topic in self.topics else None
            ),
        )
        members = [SimpleNamespace(member_id=name, metadata=self._metadata(name)) for name in self.owned]
        found = self.assignor().assign(cluster, members)
        return {
            name: {TopicPartition(topic, n) for topic, numbers in one.assigned_partitions for n in numbers}
            for name, one in found.items()
        }

    def settle(self) -> int:
        """Rebalance until nothing moves, and return how many partitions moved."""
        before = {p: name for name, ours in self.owned.items() for p in ours}
        for _ in range(3):
            given = self.round()
            for name, ours in given.items():
                others = set().union(*(self.owned[other] for other in self.owned if other != name))
                assert not ours & others, "a partition moves only after its owner has given it up"
            if given == self.owned:
                break
            self.owned = given
        else:
            raise AssertionError("the third rebalance still moves partitions")
        return sum(before.get(p, name) != name for name, ours in self.owned.items() for p in ours)

    def check(self) -> None:
        """Each partition has one member, and all members have equally many, but for one."""
        counts = Counter(p for ours in self.owned.values() for p in ours)
        assert counts == dict.fromkeys(
            (TopicPartition(topic, n) for topic, count in self.topics.items() for n in range(count)), 1
        )
        sizes = [len(ours) for ours in self.owned.values()]
        assert max(sizes) - min(sizes) <= 1

    def _metadata(self, name: str) -> ConsumerProtocolSubscription:
        numbers = {
            topic: sorted(p.partition for p in self.owned[name] if p.topic == topic) for topic in self.topics
        }
        made = ConsumerProtocolSubscription.TopicPartition
        return ConsumerProtocolSubscription(
            version=2,
            topics=list(self.topics),
            user_data=b"",
            owned_partitions=[made(topic=topic, partitions=ours) for topic, ours in numbers.items() if ours],
            generation_id=self.generations.get(name, -1),
        )


@pytest.mark.parametrize("seed", range(20))
def test_members_come_and_go_and_no_more_moves_than_by_kafka_python(seed):
    rng = random.Random(seed)
    topics = {f"t{n}": rng.randrange(1, 30) for n in range(rng.randrange(1, 4))}
    members = rng.randrange(1, 9)
    ours, theirs = Group(topics, members), Group(topics, members, CooperativeStickyAssignor)
    for change in range(8):
        joining, leaving = rng.randrange(3), rng.randrange(3)
        moved = []
        for group in (ours, theirs):
            for name in sorted(group.owned)[: min(leaving, len(group.owned) - 1)]:
                del group.owned[name]
            group.owned |= {f"new-{change}-{n}": set() for n in range(joining)}
            moved.append(group.settle())
            group.check()
        assert moved[0] <= moved[1]


def test_thousands_of_partitions():
    """Nobody loses a partition when another leaves, and few move back."""
    group = Group({"t": 10_000}, 100)
    group.settle()
    group.check()
    for name in list(group.owned)[:10]:
        del group.owned[name]
    kept = {name: set(ours) for name, ours in group.owned.items()}
    assert group.settle() == 0
    group.check()
    assert all(kept[name] <= ours for name, ours in group.owned.items())
    group.owned |= {f"new-{n}": set() for n in range(10)}
    assert group.settle() == 1000
    group.check()


def test_a_member_that_missed_a_rebalance_keeps_nothing_that_another_has():
    group = Group({"t": 4}, 2)
    group.settle()
    first, second = group.owned
    group.owned[first] |= group.owned[second]
    group.generations = {first: 3, second: 4}
    given = group.round()
    assert given[second] == group.owned[second]
    group.owned = given
    group.check()


def test_partitions_that_are_gone_and_new_ones():
    group = Group({"t": 9, "u": 3}, 3)
    group.settle()
    group.topics = {"t": 5, "u": 9}
    given = group.round()
    assert TopicPartition("t", 8) not in set().union(*given.values())
    group.owned = given
    group.settle()
    group.check()


def test_members_of_different_topics_are_left_to_kafka_python(monkeypatch):
    asked = []
    monkeypatch.setattr(
        CooperativeStickyAssignor, "assign", lambda self, cluster, members: asked.append(members) or {}
    )
    group = Group({"t": 2}, 2)
    one, two = (SimpleNamespace(member_id=name, metadata=group._metadata(name)) for name in group.owned)
    two.metadata.topics = ["u"]
    assert GroupAssignor().assign(SimpleNamespace(), [one, two]) == {}
    assert asked == [[one, two]]
