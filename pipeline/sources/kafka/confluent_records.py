"""Messages of confluent-kafka to columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from pipeline.core.types import Partition
from pipeline.sources.base import Records

NS_PER_MS = 1_000_000
#: The time of a ``Message.timestamp``, which is a pair (kind, milliseconds).
_MILLISECONDS = itemgetter(1)


class _LazyKeys(Sequence[bytes | None]):
    """Keys of messages, read on access.

    Only dead letters need them, and reading a key from a message is expensive.
    """

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    def __getitem__(self, at: Any) -> Any:
        return _LazyKeys(self._messages[at]) if isinstance(at, slice) else self._messages[at].key()


def messages_by_partition(messages: list[Any], topic: str | None) -> dict[Partition, list[Any]]:
    """Group messages by partition, in their order.

    ``topic`` is the topic of all messages, or None if they have several. Each field is read with one ``map``:
    a Python frame for each message would cost more than the field.
    """
    found: dict[Partition, list[Any]] = {}
    if messages:
        numbers = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
        new = np.diff(numbers) != 0
        topics = [topic] * len(messages) if topic else list(map(Message.topic, messages))
        if len(set(topics)) > 1:
            new |= np.array([a != b for a, b in pairwise(topics)])
        for start, end in pairwise([0, *(np.flatnonzero(new) + 1).tolist(), len(messages)]):
            found.setdefault(Partition(topics[start] or "", int(numbers[start])), []).extend(
                messages[start:end]
            )
    return found


def to_records(partition: Partition, first_offset: int, next_offset: int, messages: list[Any]) -> Records:
    """Return the messages of one partition as columns.

    Args:
        partition: The partition that all messages are of.
        first_offset: Offset at which the batch starts.
        next_offset: Offset at which reading goes on.
        messages: Messages without an error, in offset order.
    """
    headers: list[Any] = list(map(Message.headers, messages))
    stamps = np.fromiter(map(_MILLISECONDS, map(Message.timestamp, messages)), np.int64, len(messages))
    return Records(
        partition=partition,
        first_offset=first_offset,
        next_offset=next_offset,
        offsets=_offsets(messages),
        timestamps=np.where(stamps < 0, -1, stamps * NS_PER_MS),
        values=list(map(Message.value, messages)),
        keys=_LazyKeys(messages),
        headers=[h or [] for h in headers] if any(headers) else None,
    )


def _offsets(messages: list[Any]) -> NDArray[np.int64]:
    """Return the offsets, (N,) int64, ascending.

    The messages are read one by one only where offsets are missing (compaction, transactions).
    """
    first, last = (messages[0].offset(), messages[-1].offset()) if messages else (0, -1)
    if last - first + 1 == len(messages):
        return np.arange(first, last + 1, dtype=np.int64)
    return np.fromiter(map(Message.offset, messages), np.int64, len(messages))
