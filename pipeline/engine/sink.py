"""Receivers of an engine's results."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sqlalchemy import Connection

from pipeline.core.types import Partition, Position
from pipeline.decode import Key
from pipeline.scoring.batch_result import BatchResult

if TYPE_CHECKING:
    from pipeline.engine.history_sink import HistorySink


class Sink(Protocol):
    """Receiver of every result: of new records after their commit, and of replayed ones."""

    def append(self, result: BatchResult) -> None: ...

    def close(self) -> None: ...


class ScoreOutput(Sink, Protocol):
    """Receiver with a position of its own in each partition.

    After a crash the engine replays from its snapshot, and the output writes what it lacks. So a snapshot is
    taken only of what the outputs have written.
    """

    @property
    def full(self) -> bool:
        """True while reading must stop until the receiver has written more."""
        ...

    @property
    def problem(self) -> str:
        """Reason why nothing can be written now, empty if it can."""
        ...

    def open(self, position: Position, offset: int) -> None:
        """Start a newly owned partition, which is replayed from ``offset``.

        Raises OutputUnavailable.
        """
        ...

    def written(self, partition: Partition) -> int:
        """Return the offset below which everything is written."""
        ...

    def durable(self, partition: Partition) -> bool:
        """Wait a moment for what was appended; return True if all is written."""
        ...

    def drop(self, partition: Partition) -> None:
        """Forget a lost partition; its new owner writes what is missing."""
        ...


class ResultWriters:
    """The recorded history and the outputs of a stream."""

    def __init__(self, history: HistorySink | None = None, outputs: Sequence[ScoreOutput] = ()) -> None:
        """Take what the engine writes into."""
        self._history = history
        self.outputs = outputs

    def open(self, position: Position, offset: int) -> None:
        """Start a newly owned partition, which is replayed from ``offset``.

        Raises OutputUnavailable.
        """
        for output in self.outputs:
            output.open(position, offset)
        if self._history is not None:
            self._history.open(position, offset)

    def cuts(self, partition: Partition, first: int, end: int) -> list[int]:
        """Return the offsets in (first, end) at which a replayed batch must be cut.

        An output skips or writes a batch as a whole.
        """
        return sorted({at for o in self.outputs if first < (at := o.written(partition)) < end})

    def begin_writing(self, partition: Partition) -> Callable[[], bool]:
        """Begin to write the recorded history, so that ``durable`` waits for little.

        Return a function that returns whether what is appended so far is written.
        """
        return (lambda: True) if self._history is None else self._history.begin_writing(partition)

    def durable(self, partition: Partition, offset: int) -> bool:
        """Wait until all below ``offset`` is written; return False if it is not.

        A failing disk costs recorded history and is not waited for.
        """
        if self._history is not None:
            self._history.durable(partition, offset)
        return all(output.durable(partition) for output in self.outputs)

    def settle(self, partition: Partition, offset: int) -> None:
        """Note that a snapshot at ``offset`` is committed."""
        if self._history is not None:
            self._history.settle(partition, offset)

    def drop(self, partition: Partition) -> None:
        """Forget a lost partition."""
        for output in self.outputs:
            output.drop(partition)
        if self._history is not None:
            self._history.drop(partition)


@runtime_checkable
class SnapshotListener(Protocol):
    """Sink that also writes into the transaction of a snapshot.

    The transaction may come later, in another thread, and after changes of the state.
    """

    def on_copy(self, position: Position) -> Sequence[int]:
        """Return the ids of late points whose correction the copied state holds."""
        ...

    def on_snapshot(self, connection: Connection, position: Position, corrected: Sequence[int]) -> Set[Key]:
        """Return the keys of series whose state lacks points of before the snapshot."""
        ...
