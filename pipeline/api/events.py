"""Live events: all readers share one bounded log of changes.

database ── a few cheap queries every half second ──► log of the last events ──► every reader, at its own pace

A reader that falls behind the log, or that comes back after the server was restarted, gets the event
``reset``: it reads the lists again. So no reader makes the server keep more for it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pipeline.api.changes import ChangeReader
from pipeline.config.schema import Config
from pipeline.core.errors import StorageError
from storage.sql.database import Database

log = structlog.get_logger(__name__)

CHECK_SECONDS = 0.5
RETRY_SECONDS = 2.0
HEARTBEAT_SECONDS = 10.0
#: The thread goes on for so long without a reader, so that one that comes back misses nothing.
LINGER_SECONDS = 120.0
#: Then the reader connects again, and its permission is checked again.
MAX_STREAM_SECONDS = 900.0
#: A reader that accepts nothing for so long is disconnected.
SEND_TIMEOUT_SECONDS = 20.0
MAX_READERS = 200
MAX_KEPT_EVENTS = 2_000
MAX_EVENTS_PER_WRITE = 100


class EventKind(StrEnum):
    """Kinds of events."""

    ANOMALY = "anomaly"
    ALERT = "alert"
    FAULT = "fault"
    DELIVERIES = "deliveries"
    PROGRESS = "progress"
    RESET = "reset"


@dataclass(frozen=True)
class Event:
    """One change; ``stream`` is None if it concerns all streams."""

    kind: EventKind
    stream: str | None
    data: dict[str, Any]

    @cached_property
    def _body(self) -> bytes:
        """Lines after the id, made once for all readers."""
        text = json.dumps(self.data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return f"event: {self.kind}\ndata: {text}\n\n".encode("utf-8", "replace")

    def encoded(self, id_: str) -> bytes:
        """Return the event as text/event-stream."""
        return f"id: {id_}\n".encode() + self._body


@dataclass(frozen=True, slots=True)
class Selection:
    """Events that a reader wants; None: all."""

    kinds: Collection[EventKind] | None = None
    streams: Collection[str] | None = None

    def has(self, event: Event) -> bool:
        """Return True if the reader wants the event; everyone gets ``reset``."""
        if event.kind is EventKind.RESET:
            return True
        if self.kinds is not None and event.kind not in self.kinds:
            return False
        return self.streams is None or event.stream is None or event.stream in self.streams


class EventLog:
    """The last events, numbered; ``boot`` names the run of the server."""

    def __init__(self) -> None:
        """Begin an empty log."""
        self.boot = secrets.token_hex(6)
        #: The state from which on changes are reported was read.
        self.begun = False
        self._events: deque[Event] = deque(maxlen=MAX_KEPT_EVENTS)
        self._next = 0
        self._lock = threading.Lock()

    @property
    def next(self) -> int:
        """Number of the next event."""
        return self._next

    def append(self, events: Sequence[Event]) -> None:
        """Add events; the oldest go."""
        with self._lock:
            self._events.extend(events)
            self._next += len(events)

    def after(self, number: int) -> tuple[list[tuple[int, Event]], bool]:
        """Return (number, event) from ``number`` on, and False if some of them are gone."""
        with self._lock:
            first = self._next - len(self._events)
            if not first <= number <= self._next:
                return [], False
            have = list(self._events)[number - first :]
        return list(enumerate(have, number)), True

    def place_of(self, id_: str) -> int | None:
        """Return the number of the event after an id; None: another run."""
        boot, _, number = id_.partition("-")
        return int(number) if boot == self.boot and number.isdecimal() and len(number) < 18 else None


class EventMonitor:
    """Thread that looks for changes while someone reads, and the readers."""

    def __init__(
        self, config: Config, database: Database, on_change: Callable[[], None] = lambda: None
    ) -> None:
        """Watch ``database`` once someone reads.

        Args:
            config: The configuration in force.
            database: The database that is watched.
            on_change: Called after changes were found, before any reader gets them.
        """
        self._config, self._database, self._on_change = config, database, on_change
        self._lock = threading.Lock()
        self._readers: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self._running = False
        self._idle_since = 0.0
        self.stopped = False
        self.log = EventLog()

    @property
    def full(self) -> bool:
        """True if no further reader is served."""
        return len(self._readers) >= MAX_READERS

    @property
    def readers(self) -> int:
        """Number of readers."""
        return len(self._readers)

    def join(self, changed: asyncio.Event) -> None:
        """Add a reader; ``changed`` is set when there are events."""
        with self._lock:
            self._readers[id(changed)] = (asyncio.get_running_loop(), changed)
            if self._running or self.stopped:
                return
            self._running, self.log = True, EventLog()
            changes = ChangeReader(self._config, self._database)
            threading.Thread(target=self._run, args=(changes,), name="events", daemon=True).start()

    def leave(self, changed: asyncio.Event) -> None:
        """Remove a reader."""
        with self._lock:
            self._readers.pop(id(changed), None)
            self._idle_since = time.monotonic()

    def _run(self, changes: ChangeReader) -> None:
        failed = False
        while not self._ended():
            try:
                found = [Event(EventKind(kind), stream, data) for kind, stream, data in changes.read()]
            except StorageError as error:
                # The pages see the failure in their own requests; the log gets each outage once.
                if not failed:
                    log.warning("cannot read changes for live events", error=str(error))
                failed = True
                time.sleep(RETRY_SECONDS)
            else:
                failed = False
                if found or not self.log.begun:
                    self._on_change()
                self.log.append(found)
                if found or not self.log.begun:
                    self.log.begun = True
                    self._wake()
            time.sleep(CHECK_SECONDS)

    def _ended(self) -> bool:
        with self._lock:
            if not self._readers and time.monotonic() - self._idle_since > LINGER_SECONDS:
                self._running = False
            return not self._running

    def _wake(self) -> None:
        with self._lock:
            waiting = list(self._readers.values())
        for loop, changed in waiting:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:
                continue  # its server has ended

    def stop(self) -> None:
        """End the thread and all streams."""
        self.stopped = True
        with self._lock:
            self._running = False
        self._wake()


class EventStream(StreamingResponse):
    """Response of one reader: the events since ``last_id``, then those that happen."""

    def __init__(self, monitor: EventMonitor, selection: Selection, last_id: str | None) -> None:
        """Prepare the answer; nothing is sent yet."""
        super().__init__((), media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._monitor, self._selection, self._last_id = monitor, selection, last_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader leaves, or accepts nothing for too long."""
        changed = asyncio.Event()
        self._monitor.join(changed)
        left = asyncio.ensure_future(_until_left(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send_events(changed, left, send)
        except (TimeoutError, OSError):
            pass
        finally:
            left.cancel()
            self._monitor.leave(changed)

    async def _send_events(self, changed: asyncio.Event, left: asyncio.Future[None], send: Send) -> None:
        log = self._monitor.log
        while not (log.begun or left.done() or self._monitor.stopped):
            changed.clear()
            if not await _wait(changed, left):
                await _write(send, b": alive\n\n")
        place = log.next if self._last_id is None else log.place_of(self._last_id)
        begin = log.next if place is None else place
        await _write(send, b"retry: 2000\nevent: ready\n" + _id(log, begin) + b"data: {}\n\n")
        ends = time.monotonic() + MAX_STREAM_SECONDS
        while not left.done() and not self._monitor.stopped and time.monotonic() < ends:
            changed.clear()
            found, whole = ([], False) if place is None else log.after(place)
            if not whole:
                place = log.next
                await _write(send, _reset(log, place))
                continue
            for at in range(0, len(found), MAX_EVENTS_PER_WRITE):
                part = found[at : at + MAX_EVENTS_PER_WRITE]
                place = part[-1][0] + 1
                wanted = [one.encoded(f"{log.boot}-{n + 1}") for n, one in part if self._selection.has(one)]
                if wanted:
                    await _write(send, b"".join(wanted))
            if not await _wait(changed, left):
                await _write(send, b": alive\n\n")
        if place is not None and not left.done() and not self._monitor.stopped:
            await _write(send, b"event: renew\n" + _id(log, place) + b"data: {}\n\n")
        if not left.done():
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _id(log: EventLog, place: int) -> bytes:
    """Return the line of an id after which the events from ``place`` on follow."""
    return f"id: {log.boot}-{place}\n".encode()


def _reset(log: EventLog, place: int) -> bytes:
    reason = "some events are no longer kept: read the lists again"
    return Event(EventKind.RESET, None, {"reason": reason}).encoded(f"{log.boot}-{place}")


async def _write(send: Send, body: bytes) -> None:
    """Send a part; it waits while the reader accepts nothing.

    Raises:
        TimeoutError: The reader has accepted nothing for too long.
    """
    message = {"type": "http.response.body", "body": body, "more_body": True}
    await asyncio.wait_for(send(message), SEND_TIMEOUT_SECONDS)


async def _wait(changed: asyncio.Event, left: asyncio.Future[None]) -> bool:
    """Wait for events or the end; return False if nothing happened for a while."""
    waiting = asyncio.ensure_future(changed.wait())
    either: set[asyncio.Future[Any]] = {waiting, left}
    await asyncio.wait(either, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    happened = waiting.done() or left.done()
    waiting.cancel()
    return happened


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
