"""Places at which a member kills or freezes itself, put there from outside: the product knows nothing of
them.

A phase is a moment of the real code, reached by wrapping the function that begins or ends there.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Trap:
    """At the ``nth`` time that ``phase`` is reached the process sends itself ``signum`` (SIGKILL or SIGSTOP).

    The phase is then a line of the file ``reached``, if there is one.
    """

    phase: str
    nth: int = 1
    signum: int = signal.SIGKILL
    reached: Path | None = None
    _hits: int = field(default=0, repr=False)

    def hit(self) -> None:
        self._hits += 1
        if self._hits == self.nth:
            if self.reached is not None:
                with self.reached.open("a") as file:
                    file.write(f"{self.phase}\n")
            os.kill(os.getpid(), self.signum)
            time.sleep(0.01)  # a signal to a process arrives in any of its threads


def _around(
    owner: Any,
    name: str,
    *,
    before: Callable[..., object] | None = None,
    after: Callable[..., object] | None = None,
) -> None:
    """Wrap ``owner.name``; ``before`` gets the arguments, ``after`` the result and the arguments."""
    inner = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            before(*arguments, **named)
        result = inner(*arguments, **named)
        if after is not None:
            after(result, *arguments, **named)
        return result

    setattr(owner, name, wrapped)


def _by_thread(hit: Callable[..., None]) -> Callable[..., object]:
    """Return ``hit`` for calls by another thread than that of the loop."""
    return lambda *_, **__: threading.current_thread() is not threading.main_thread() and hit()


def arm(trap: Trap) -> None:
    """Put the trap into this process."""
    from sqlalchemy import event
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
    from sqlalchemy.engine import Engine

    from pipeline.engine.commit import Committer
    from pipeline.engine.engine import Engine as EngineOfStream
    from pipeline.engine.history_sink import HistorySink
    from pipeline.scoring.stream_scorer import StreamScorer
    from pipeline.services.series_revision import StreamRevision
    from pipeline.sources.kafka import consumer
    from storage.stream_state import positions, snapshots

    def hit(*arguments: Any, **named: Any) -> None:
        trap.hit()

    def if_records(poll: Any, *arguments: Any) -> None:
        if poll.records:
            trap.hit()

    def if_replay(scorer: Any, batch: Any, *, replay: bool = False, **named: Any) -> None:
        if replay:
            trap.hit()

    def commit_sent(dialect: Any, connection: Any) -> None:
        """COMMIT is sent; its answer is not read."""
        raw = connection.driver_connection.pgconn
        raw.send_query(b"COMMIT")
        while raw.flush():
            pass
        trap.hit()
        while raw.get_result() is not None:
            pass

    def if_any(held: Callable[[StreamRevision], Any]) -> Callable[..., object]:
        return lambda result, revision, *_, **named: held(revision) and trap.hit()

    listener = consumer._Listener
    phases: dict[str, Callable[[], object]] = {
        "polled": lambda: _around(consumer.KafkaSource, "poll", after=if_records),
        "scored": lambda: _around(Committer, "commit", before=hit),
        "advanced": lambda: _around(positions, "advance", after=hit),
        "before COMMIT": lambda: event.listen(Engine, "commit", hit),
        "in COMMIT": lambda: setattr(PGDialect_psycopg, "do_commit", commit_sent),
        "committed": lambda: _around(Committer, "commit", after=hit),
        "before claim": lambda: [_around(positions, name, before=hit) for name in ("acquire", "acquire_all")],
        "claimed": lambda: [_around(positions, name, after=hit) for name in ("acquire", "acquire_all")],
        "restoring": lambda: _around(StreamScorer, "restore", before=hit),
        "sought": lambda: _around(consumer.KafkaSource, "seek", after=hit),
        "replaying": lambda: _around(StreamScorer, "process", before=if_replay),
        "snapshot begun": lambda: _around(snapshots, "save", before=hit),
        "snapshot written": lambda: _around(snapshots, "save", after=hit),
        "thread begins snapshot": lambda: _around(snapshots, "save", before=_by_thread(hit)),
        "thread wrote snapshot": lambda: _around(snapshots, "save", after=_by_thread(hit)),
        "snapshot committed": lambda: _around(HistorySink, "settle", before=hit),
        "segment half written": lambda: _around(os, "replace", before=hit),
        "late points scored": lambda: _around(
            StreamRevision, "prepare", after=if_any(lambda revision: revision._ready)
        ),
        "before revision": lambda: _around(StreamRevision, "_hand_over", before=hit),
        "state handed over": lambda: _around(StreamRevision, "_hand_over", after=hit),
        "revision in COMMIT": lambda: _around(
            StreamRevision,
            "_hand_over",
            after=lambda *_: setattr(PGDialect_psycopg, "do_commit", commit_sent),
        ),
        "revision committed": lambda: _around(EngineOfStream, "commit_between", after=hit),
        "late points marked": lambda: _around(
            StreamRevision, "on_snapshot", after=if_any(lambda revision: any(revision._applied.values()))
        ),
        "revoked": lambda: _around(listener, "on_partitions_revoked", before=hit),
        "assigned": lambda: _around(listener, "on_partitions_assigned", after=hit),
    }
    phases[trap.phase]()


PHASES = (
    *(
        "polled",
        "scored",
        "advanced",
        "before COMMIT",
        "in COMMIT",
        "committed",
        "before claim",
        "claimed",
        "restoring",
        "sought",
    ),
    *(
        "replaying",
        "snapshot begun",
        "snapshot written",
        "thread begins snapshot",
        "thread wrote snapshot",
        "snapshot committed",
        "segment half written",
        "revoked",
        "assigned",
    ),
)

#: Moments of the revision of verdicts by late points.
REVISION_PHASES = (
    "late points scored",
    "before revision",
    "state handed over",
    "revision in COMMIT",
    "revision committed",
    "late points marked",
)

#: Where a frozen process keeps its transaction open on the server, or a batch in its hands.
FREEZES = ("advanced", "polled", "before COMMIT", "in COMMIT", "scored", "claimed", "snapshot written")


#: Time after the last late point until its series are scored again: storms last a minute.
REVISED_AFTER_NS = 4 * 10**9


class Diary:
    """Events of a member, as JSON lines: {"event": …, "at": seconds of the machine's clock, …}."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._assigned: dict[Any, float] = {}

    def write(self, event: str, **fields: Any) -> None:
        self._file.write(json.dumps({"event": event, "at": time.monotonic()} | fields) + "\n")

    def keep(self) -> None:
        """Note takeovers (how long after the group's word the partition is ours), fences, corrected states, and
        each file of the recorded history that is written or deleted.
        """
        from pipeline.engine.member_partitions import MemberPartitions
        from pipeline.engine.ownership import Ownership
        from pipeline.services import series_revision
        from pipeline.services.series_revision import StreamRevision
        from pipeline.sources.kafka.consumer import KafkaSource
        from storage.history.segments import SegmentStore

        series_revision.QUIET_NS = REVISED_AFTER_NS

        def note(event: str) -> Callable[..., object]:
            return lambda result, store, segment, *_: self.write(event, path=segment.path)

        _around(SegmentStore, "write", after=note("segment written"))
        _around(SegmentStore, "delete", after=note("segment deleted"))
        _around(
            KafkaSource,
            "poll",
            after=lambda poll, *_: self._assigned.update(dict.fromkeys(poll.assigned, time.monotonic())),
        )
        _around(Ownership, "acquire", after=self._taken)
        _around(
            StreamRevision,
            "_hand_over",
            before=lambda revision, replay, live, due: self.write(
                "state corrected", series={name: replay.newest[name] for name in live}
            ),
        )
        _around(
            MemberPartitions,
            "handle_fence",
            before=lambda partitions, partition: self.write("fenced", partition=str(partition)),
        )

    def _taken(self, owned: bool, ownership: Any, partition: Any, *_: Any) -> None:
        if owned and partition in self._assigned:
            seconds = time.monotonic() - self._assigned.pop(partition)
            self.write(
                "takeover",
                partition=str(partition),
                epoch=ownership.positions[partition].epoch,
                seconds=seconds,
            )
