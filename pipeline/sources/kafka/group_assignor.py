"""Assignment of partitions to the members of a consumer group.

The leader computes it. The result is that of the cooperative sticky assignor of kafka-python, and so are the
messages: members keep what they have as far as all have equally many, and a partition moves only after its
owner has given it up. That assignor compares each partition with all others: 4 s of CPU for 10,000 partitions
and 100 members, on the thread that sends the heartbeats of the leader.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import heapify, heapreplace
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import MemberState, TopicPartition


class GroupAssignor(CooperativeStickyAssignor):
    """Cooperative sticky assignor for thousands of partitions."""

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, ConsumerProtocolAssignment]:
        """Return the assignment of each member.

        Where members subscribe to different topics, kafka-python computes it.

        Args:
            cluster: Its ``partitions_for_topic`` returns the numbers of the partitions.
            members: Each has ``member_id`` and decoded ``metadata``.
        """
        read = {one.member_id: self.parse_member_metadata(one.metadata) for one in members}
        topics = [sorted(set(one.subscription)) for one in read.values()]
        if any(one != topics[0] for one in topics):
            found: dict[str, ConsumerProtocolAssignment] = super().assign(cluster, members)
            return found
        partitions = [
            TopicPartition(topic, number)
            for topic in topics[0]
            for number in sorted(cluster.partitions_for_topic(topic) or ())
        ]
        claimed = {member: one.partitions for member, one in read.items()}
        owned = _undisputed(claimed, {member: one.generation for member, one in read.items()})
        existing = set(partitions)
        wanted = balanced(
            partitions, {member: [p for p in ours if p in existing] for member, ours in owned.items()}
        )
        owners = {partition: member for member, ours in owned.items() for partition in ours}
        return {
            member: self._answer([p for p in ours if owners.get(p, member) == member])
            for member, ours in wanted.items()
        }

    def _answer(self, partitions: Sequence[TopicPartition]) -> ConsumerProtocolAssignment:
        by_topic: dict[str, list[int]] = defaultdict(list)
        for topic, number in partitions:
            by_topic[topic].append(number)
        assigned = sorted((topic, sorted(numbers)) for topic, numbers in by_topic.items())
        return ConsumerProtocolAssignment(self.version, assigned, b"")


def balanced(
    partitions: Sequence[TopicPartition], owned: Mapping[str, Sequence[TopicPartition]]
) -> dict[str, list[TopicPartition]]:
    """Return the partitions of each member: equally many, with few moves.

    Args:
        partitions: All partitions.
        owned: Partitions of each member until now; nobody else has one of them.
    """
    least, more = divmod(len(partitions), len(owned))
    kept: dict[str, list[TopicPartition]] = {}
    for member in sorted(owned, key=lambda one: (-len(owned[one]), one)):
        kept[member] = sorted(owned[member])[: least + (more > 0)]
        more -= len(kept[member]) > least
    taken = {partition for ours in kept.values() for partition in ours}
    waiting = [(len(ours), member) for member, ours in kept.items()]
    heapify(waiting)
    for partition in partitions:
        if partition not in taken:
            count, member = waiting[0]
            kept[member].append(partition)
            heapreplace(waiting, (count + 1, member))
    return kept


def _undisputed(
    claimed: Mapping[str, Sequence[TopicPartition]], generations: Mapping[str, int]
) -> dict[str, list[TopicPartition]]:
    """Return the claims, of several to one partition the newest."""
    claims = Counter(partition for ours in claimed.values() for partition in ours)
    newest: dict[TopicPartition, str] = {}
    for member in sorted(claimed, key=lambda one: generations[one]):
        newest |= {partition: member for partition in claimed[member] if claims[partition] > 1}
    return {
        member: [partition for partition in ours if newest.get(partition, member) == member]
        for member, ours in claimed.items()
    }


def patch_reset_generation(coordinator: Any) -> None:
    """Make the coordinator prepare the join again after the group has removed this member.

    kafka-python 3.0.12 prepares only once per attempt. It takes partitions that another member owned in the
    meantime as never lost.
    """
    reset = coordinator.reset_generation

    def forgotten(*args: Any, **kwargs: Any) -> None:
        reset(*args, **kwargs)
        coordinator.rejoining = False

    coordinator.reset_generation = forgotten


def patch_finished_join(coordinator: Any) -> None:
    """Make the coordinator use a join that was finished between two polls.

    kafka-python 3.0.12 forgets it and joins again, so that all other members have to join again, too. Members
    whose turns are long, or several in one thread, did so without end.
    """
    join, complete = coordinator._do_join_and_sync_async, coordinator._on_join_complete_async
    finished: list[tuple[Any, bytes]] = []  # generation and assignment; at most one

    async def joined() -> bytes:
        if finished and coordinator.state is MemberState.REBALANCING:
            generation, former = finished.pop()
            if generation == coordinator._generation:
                return former
        finished.clear()
        assignment: bytes = await join()
        finished.append((coordinator._generation, assignment))
        return assignment

    async def completed(*args: Any, **kwargs: Any) -> None:
        finished.clear()
        await complete(*args, **kwargs)

    coordinator._do_join_and_sync_async, coordinator._on_join_complete_async = joined, completed
