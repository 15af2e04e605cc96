"""Messages, HTTP calls and delivery results: types of all senders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pipeline.alerts.messages.payload import Payload

MAX_ANSWER_BYTES_READ = 65_536
MAX_ANSWER_CHARACTERS_KEPT = 300

DrawChart = Callable[[Payload], bytes | None]


@dataclass(frozen=True, slots=True)
class Message:
    """One payload on its way to one endpoint: ``body`` is the payload as it was stored, and signed, byte for
    byte.

    ``attempted`` is when this attempt is made; ``queue`` names the series (or group) within which order holds.
    """

    delivery: UUID
    queue: str
    body: bytes
    payload: Payload
    attempted: datetime


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request."""

    url: str
    body: bytes
    headers: list[tuple[str, str]] = field(default_factory=list)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """Result of one attempt.

    ``answer`` holds the first characters of the answer, or the error, without secrets. ``gone``: the receiver
    answered 410. ``unanswered``: the message may have arrived, the answer did not, so the next attempt may be
    a repetition for the receiver.
    """

    delivered: bool
    answer: str
    status: int | None = None
    gone: bool = False
    unanswered: bool = False
    retry_after_s: float | None = None


class Sender(Protocol):
    """Sender of one endpoint; several messages may be in flight."""

    async def send(self, message: Message) -> DeliveryResult:
        """Make one attempt; errors of the receiver and the network are results, not exceptions."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return the first characters of ``text`` without control characters and ``secrets``."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_ANSWER_CHARACTERS_KEPT].strip()
