"""Config and database of a request, and what all lists have in common."""

from __future__ import annotations

import base64
import binascii
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from pipeline.access.principal import Principal, local_principal
from pipeline.api.permissions import author
from pipeline.config.schema import Config
from pipeline.config.stream_hash import config_hash
from pipeline.core.durations import SECOND_NS
from pipeline.core.errors import InputError
from pipeline.core.timestamps import END_NS
from storage.access import audit
from storage.access.audit import ActorKind, Change
from storage.history.reader import HistoryReader
from storage.history.reduced import ReducedHistory
from storage.sql.database import Database
from storage.sql.statements import Bounds, StreamChoice

Item = TypeVar("Item")
Row = TypeVar("Row")

_BAD_CURSOR = "cursor: take the value of `next_cursor` of the page before, unchanged"


@dataclass(slots=True)
class _Answer:
    """One answer; ``began`` is when its making began, None before it is made."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    began: float | None = None
    value: Any = None


class AnswerCache:
    """Answers that all pages share.

    One that takes long holds up only those who wait for it.
    """

    def __init__(self, most: int) -> None:
        """Keep at most ``most`` answers."""
        self._lock = threading.Lock()
        self._most = most
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._expired = -math.inf

    def get(self, key: str, make: Callable[[], Any], seconds: float = math.inf) -> Any:
        """Return an answer; it is made once for all who wait for it.

        Args:
            key: name of the answer.
            make: makes it.
            seconds: greatest age of the answer.
        """
        with self._lock:
            answer = self._answers.setdefault(key, _Answer())
            self._answers.move_to_end(key)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)
        with answer.lock:
            now = time.monotonic()
            if answer.began is None or now - answer.began > seconds or answer.began <= self._expired:
                answer.value = make()
                answer.began = now
            return answer.value

    def kept(self, key: str, seconds: float) -> Any | None:
        """Return an answer that can still be given, None if it must be made.

        Args:
            key: name of the answer.
            seconds: greatest age of the answer.
        """
        answer = self._answers.get(key)
        if answer is None or answer.began is None or answer.began <= self._expired:
            return None
        return answer.value if time.monotonic() - answer.began <= seconds else None

    def holds(self, key: str) -> bool:
        """Return True if an answer was asked for and is kept."""
        return key in self._answers

    def expire(self) -> None:
        """Let no answer be given any more whose making has begun before."""
        self._expired = time.monotonic()


@dataclass(slots=True)
class Meter:
    """Rate of a counter between two readings that are at least a second apart."""

    count: int | None = None
    at: float = 0.0
    rate: float | None = None

    def update(self, count: int, now: float) -> float | None:
        """Return the count per second since the last reading; None after the first one."""
        if self.count is None or count < self.count:
            self.count, self.at, self.rate = count, now, None
        elif now - self.at >= 1.0:
            self.rate = (count - self.count) / (now - self.at)
            self.count, self.at = count, now
        return self.rate


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Config and database that the routes read and change."""

    config: Config
    database: Database
    answers: AnswerCache = field(default_factory=lambda: AnswerCache(64))
    lists: AnswerCache = field(default_factory=lambda: AnswerCache(32))
    segment_names: AnswerCache = field(default_factory=lambda: AnswerCache(500))
    segment_coverage: AnswerCache = field(default_factory=lambda: AnswerCache(2000))
    segment_forecasters: AnswerCache = field(default_factory=lambda: AnswerCache(500))
    reduced: ReducedHistory = field(default_factory=ReducedHistory)
    topic_samples: AnswerCache = field(default_factory=lambda: AnswerCache(4))
    config_hashes: AnswerCache = field(default_factory=lambda: AnswerCache(1000))
    records_meter: Meter = field(default_factory=Meter)
    principal: Principal = field(default_factory=local_principal)
    #: ``Accept-Encoding`` of the request.
    accepted_encoding: str = ""
    #: Streams that the principal sees; None for all, also those of earlier configs.
    visible: frozenset[str] | None = None
    limited: AnswerCache = field(default_factory=lambda: AnswerCache(64))

    def of(self, principal: Principal, accepted_encoding: str = "") -> ApiContext:
        """Return the context of a request of a principal, with its streams only."""
        visible, of_request = principal.visible(self.config), self
        if visible is not None:
            of_request = self.limited.get("\0".join(sorted(visible)), lambda: self._limited_to(visible))
        return replace(of_request, principal=principal, accepted_encoding=accepted_encoding)

    def _limited_to(self, visible: frozenset[str]) -> ApiContext:
        streams = {name: one for name, one in self.config.streams.items() if name in visible}
        config = self.config.model_copy(update={"streams": streams})
        return replace(self, config=config, records_meter=Meter(), visible=visible)

    def shared_answer(self, name: str, make: Callable[[], Any], seconds: float) -> Any:
        """Return an answer that all who see the same streams share.

        Args:
            name: name of the answer.
            make: makes it.
            seconds: greatest age of the answer.
        """
        return self.answers.get(self.shared_key(name), make, seconds)

    def kept_answer(self, name: str, seconds: float) -> Any | None:
        """Return what ``shared_answer`` would without making it, None if it must be made.

        Args:
            name: name of the answer.
            seconds: greatest age of the answer.
        """
        return self.answers.kept(self.shared_key(name), seconds)

    def shared_key(self, name: str) -> str:
        """Return the key of an answer that all who see the same streams share."""
        return name if self.visible is None else "\0".join([name, *sorted(self.visible)])

    def hash_of(self, stream: str) -> str:
        """Return the hash of the config of a stream, which is made once."""
        return str(self.config_hashes.get(stream, lambda: config_hash(self.config.streams[stream])))

    def streams(self, named: str | None) -> StreamChoice:
        """Return the streams of a list: the named one, or all that are visible.

        Raises:
            InputError: The principal does not see the named stream.
        """
        if named is None:
            return self.visible
        self.require_visible(named, f"there is no stream {named!r}")
        return named

    def require_visible(self, stream: str, missing: str) -> None:
        """Raise InputError with ``missing`` if the principal does not see a stream."""
        if self.visible is not None and stream not in self.visible:
            raise InputError(missing)

    def author(self, given: str) -> str:
        """Return the author of a change: as given without a login, else the principal."""
        return given if self.principal.kind is ActorKind.LOCAL else self.principal.name

    def record(self, connection: Connection, change: Change) -> None:
        """Write a change into the audit log, in its transaction."""
        audit.add(connection, self.principal.actor, change, time.time_ns())

    @property
    def history(self) -> HistoryReader:
        """Reader of the recorded history."""
        return HistoryReader(self.config.history_path)


async def _context(request: Request) -> ApiContext:
    found: ApiContext = request.app.state.context
    return found.of(author(request), request.headers.get("accept-encoding", ""))


Context = Annotated[ApiContext, Depends(_context)]
Name = Annotated[str, Field(max_length=500)]
SeriesName = Annotated[str, Field(max_length=10_000)]


class Page(BaseModel, Generic[Item]):
    """Part of a list; ``next_cursor`` is null on the last one."""

    items: list[Item]
    next_cursor: str | None = None


class ListFilter(BaseModel):
    """Query of every list; an unknown parameter is an error."""

    model_config = ConfigDict(extra="forbid")

    stream: Name | None = Field(None, description="only this stream")
    since: datetime | None = Field(None, alias="from", description="earliest time")
    until: datetime | None = Field(None, alias="to", description="latest time, exclusive")
    limit: int = Field(50, ge=1, le=500, description="largest number of rows")
    cursor: str | None = Field(None, max_length=2000, description="next_cursor of the page before")

    def bounds(self, context: ApiContext, *types: type) -> Bounds:
        """Return the part of a list to read, with one row more than the page.

        Args:
            context: context of the request.
            types: types of the parts of the cursor: int, str or UUID.

        Raises:
            InputError: a time or the cursor cannot be used.
        """
        after = None if self.cursor is None else decode_cursor(self.cursor, types)
        return Bounds(
            context.streams(self.stream), to_ns(self.since), to_ns(self.until), after, self.limit + 1
        )

    def page(
        self, found: Sequence[Row], show: Callable[[Row], Item], key: Callable[[Row], tuple[Any, ...]]
    ) -> Page[Item]:
        """Return the page of the rows that were found with ``bounds``.

        Args:
            found: the rows.
            show: returns the item of a row.
            key: returns the parts of the cursor of a row.
        """
        shown = found[: self.limit]
        more = encode_cursor(*key(shown[-1])) if len(found) > self.limit else None
        return Page(items=[show(one) for one in shown], next_cursor=more)


def to_ns(when: datetime | None) -> int | None:
    """Return nanoseconds since the epoch; a time without a zone is UTC.

    Raises:
        InputError: The time is before 1970 or after 2199.
    """
    if when is None:
        return None
    zoned = when if when.tzinfo else when.replace(tzinfo=UTC)
    try:
        ns = round(zoned.timestamp() * 1_000_000) * 1000
    except (OverflowError, ValueError):
        ns = -1
    if not 0 <= ns < END_NS:
        raise InputError(f"{when.isoformat()}: write a time from 1970 to 2199")
    return ns


def time_range(since: datetime | None, until: datetime | None, default_seconds: int) -> tuple[int, int]:
    """Return (since, until) in ns; the default ends now and has ``default_seconds``.

    Raises:
        InputError: The range is empty.
    """
    given = to_ns(until)
    until_ns = time.time_ns() if given is None else given
    first = to_ns(since)
    since_ns = max(0, until_ns - default_seconds * SECOND_NS) if first is None else first
    if since_ns >= until_ns:
        raise InputError("the time range is empty: `from` must be before `to`")
    return since_ns, until_ns


def encode_cursor(*parts: Any) -> str:
    """Return an opaque text that names the last row of a page."""
    return base64.urlsafe_b64encode(json.dumps([str(part) for part in parts]).encode()).decode()


def decode_cursor(text: str, types: Sequence[type]) -> tuple[Any, ...]:
    """Return the parts of a cursor.

    Args:
        text: the cursor.
        types: types of its parts: int, str or UUID.

    Raises:
        InputError: The text is not a cursor.
    """
    try:
        parts = json.loads(base64.urlsafe_b64decode(text.encode("ascii")))
        if len(parts) != len(types) or not all(isinstance(part, str) for part in parts):
            raise InputError(_BAD_CURSOR)
        found = tuple(kind(part) for kind, part in zip(types, parts, strict=True))
    except (ValueError, TypeError, binascii.Error):
        raise InputError(_BAD_CURSOR) from None
    if any(isinstance(part, int) and abs(part) >= 1 << 63 for part in found):
        raise InputError(_BAD_CURSOR)
    if any(isinstance(part, str) and "\0" in part for part in found):
        raise InputError(_BAD_CURSOR)
    return found


def as_uuid(text: str, what: str) -> UUID:
    """Return an id.

    Raises:
        InputError: The text is no id.
    """
    try:
        return UUID(text)
    except ValueError:
        raise InputError(f"there is no {what} {text}") from None


def require_stream(config: Config, name: str) -> None:
    """Raise InputError if the config has no stream ``name``."""
    if name not in config.streams:
        raise InputError(f"there is no stream {name!r}; there are {', '.join(config.streams)}")
