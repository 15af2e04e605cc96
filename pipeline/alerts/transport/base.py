"""What a format makes of a message, and what came of sending it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pipeline.alerts.messages.payload import Payload

#: Of an answer this much is read, and this much is kept.
ANSWER_READ = 65_536
ANSWER_KEPT = 300

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
    """What came of one attempt.

    ``answer`` holds the first characters of the answer, or what went wrong, without secrets. ``gone``: the
    receiver wants no more (410). ``unanswered``: the message may have arrived, the answer did not; the next
    attempt may be a repetition for the receiver.
    """

    delivered: bool
    answer: str
    status: int | None = None
    gone: bool = False
    unanswered: bool = False
    retry_after_s: float | None = None


class Sender(Protocol):
    """One endpoint's way out. Several messages may be on their way at once."""

    async def send(self, message: Message) -> DeliveryResult:
        """Try once.

        Everything that a receiver or a network can do wrong is an Outcome, never an exception.
        """
        ...

    async def close(self) -> None: ...


def redacted(text: str, secrets: Iterable[str]) -> str:
    """``text`` without control characters and without any of the ``secrets``, cut to what is kept."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    return "".join(c if c.isprintable() else " " for c in text)[:ANSWER_KEPT].strip()
