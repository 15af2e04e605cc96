"""Verdicts as messages: the schema of the JSON that an output writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES, FORECASTERS, Points, Verdicts
from pipeline.core.iso_times import show_time
from pipeline.core.types import Partition

#: Version of the schema. Fields are only added; another version means that one changed.
SCHEMA = 1
_ID_BYTES = 16

Numbers = dict[str, float | None]
_SIDES: dict[int, Literal["up", "down"]] = {1: "up", -1: "down"}


def _about(text: str) -> Any:
    return msgspec.Meta(description=text)


class Quantity(msgspec.Struct):
    """The quantity that decided a flagged point, with its usual range."""

    channel: Annotated[str, _about("channel that leads")]
    direction: Annotated[Literal["up", "down"] | None, _about("side of the usual range")]
    observed: Annotated[float | None, _about("the quantity that `cause` names, in its own unit")]
    low: Annotated[float | None, _about("lower limit of its usual range")]
    high: Annotated[float | None, _about("upper limit of its usual range")]
    ratio: Annotated[
        float, _about("distance from the middle of the range, in half ranges; above 1 it is outside")
    ]


class Event(msgspec.Struct):
    """The event that a point of a stream of events is."""

    code: Annotated[str, _about("code of the event, or template of the log line")]
    probability: Annotated[float | None, _about("probability given the events before it")]


class Origin(msgspec.Struct):
    """Place of the record that the point comes from."""

    topic: Annotated[str, _about("topic or file")]
    partition: int
    offset: int


class Verdict(msgspec.Struct):
    """Verdict on one point.

    A number that does not exist (NaN, no forecast yet) is null.
    """

    schema: Annotated[int, _about("version of this schema")]
    id: Annotated[str, _about("32 hex digits; the same whenever the same point is written again")]
    stream: str
    series: Annotated[str, _about("name of the series; also the key of the record")]
    labels: dict[str, str]
    time: Annotated[str, _about("event time, ISO 8601 in UTC, to the nanosecond")]
    flag: Annotated[bool, _about("the point is an alarm")]
    score: Annotated[float | None, _about("1 − p-value")]
    surprisal: Annotated[float | None, _about("−log10 of the p-value")]
    rarity: Annotated[float | None, _about("−log10 of the probability on the past of the series; 0: unknown")]
    cause: Annotated[str, _about("what contributed most")]
    forecaster: Annotated[str, _about("forecaster of `expected`")]
    values: Annotated[Numbers, _about("channel → observed value; empty for events")]
    expected: Numbers
    lower: Annotated[Numbers, _about("channel → lower end of the prediction interval")]
    upper: Annotated[Numbers, _about("channel → upper end of the prediction interval")]
    quantity: Annotated[Quantity | None, _about("of flagged points under the decision usual_range")]
    event: Annotated[Event | None, _about("of streams of events")]
    model: Annotated[str, _about("version of the model")]
    source: Origin
    revision: Annotated[
        int,
        _about(
            "1, or more if late points changed the verdict; of one series and time the greatest one counts"
        ),
    ] = 1


class Message(NamedTuple):
    """Record of an output: its key, its value, its id and its event time."""

    key: bytes
    value: bytes
    id: bytes
    time_ms: int


@dataclass(slots=True)
class VerdictRows:
    """Selected points of one partition of a batch, K rows.

    slot into ``names``; offset (K,) of the record. ``events`` has the code of each row, None for numbers;
    ``revision`` (K,) that of the verdict, None for first ones.
    """

    stream: str
    partition: Partition
    channels: tuple[str, ...]
    model: str
    points: Points
    verdicts: Verdicts
    offset: NDArray[np.int64]
    names: Sequence[str | None]
    events: list[str] | None
    revision: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.offset)

    def messages(self, labels_of: Callable[[str], dict[str, str]]) -> Iterator[Message]:
        """Yield the message of each point.

        Args:
            labels_of: Returns the labels of a series, given its name.
        """
        points, verdicts, names = self.points, self.verdicts, self.names
        score, surprisal, rarity = (a.tolist() for a in (verdicts.score, verdicts.surprise, verdicts.rarity))
        values = self._by_channel(points.values)
        expected, lower, upper = (
            self._by_channel(a) for a in (verdicts.expected, verdicts.lower, verdicts.upper)
        )
        flags, offsets = verdicts.flag.tolist(), self.offset.tolist()
        revisions = [1] * len(self) if self.revision is None else self.revision.tolist()
        causes, forecasters = verdicts.cause.tolist(), verdicts.forecaster.tolist()
        for row, (slot, time_ns) in enumerate(zip(points.slot.tolist(), points.time.tolist(), strict=True)):
            name = names[slot] or ""
            verdict = Verdict(
                schema=SCHEMA,
                id=self._id(name, offsets[row], time_ns),
                stream=self.stream,
                series=name,
                labels=labels_of(name),
                time=show_time(time_ns) or "",
                flag=flags[row],
                score=score[row],
                surprisal=surprisal[row],
                rarity=rarity[row],
                cause=CAUSES[causes[row]],
                forecaster=FORECASTERS[forecasters[row]],
                values=values[row],
                expected=expected[row],
                lower=lower[row],
                upper=upper[row],
                quantity=self._quantity(row) if flags[row] else None,
                event=self._event(row),
                model=self.model,
                source=Origin(*self.partition, offsets[row]),
                revision=revisions[row],
            )
            yield Message(_bytes(name), _encoded(verdict), verdict.id.encode(), time_ns // 1_000_000)

    def _by_channel(self, array: NDArray[Any]) -> list[Numbers]:
        """Return channel → number for each row, (K, C); nothing for events."""
        if self.events is not None:
            return [{}] * len(self)
        return [dict(zip(self.channels, row, strict=True)) for row in array.tolist()]

    def _event(self, row: int) -> Event | None:
        if self.events is None:
            return None
        return Event(self.events[row], float(np.float64(self.verdicts.probability[row])))

    def _id(self, series: str, offset: int, time_ns: int) -> str:
        topic, number = self.partition
        text = f"{self.stream}\0{topic}\0{number}\0{offset}\0{series}\0{time_ns}"
        return blake2b(_bytes(text), digest_size=_ID_BYTES).hexdigest()

    def _quantity(self, row: int) -> Quantity | None:
        verdicts = self.verdicts
        if not verdicts.ratio[row]:
            return None
        columns = (verdicts.observed, verdicts.usual_low, verdicts.usual_high, verdicts.ratio)
        return Quantity(
            self.channels[int(verdicts.channel[row])],
            _SIDES.get(int(verdicts.side[row])),
            *(float(column[row]) for column in columns),
        )


def verdict_schema() -> dict[str, Any]:
    """Return the JSON Schema of a message."""
    return msgspec.json.schema(Verdict)


@lru_cache(65_536)
def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _encoded(verdict: Verdict) -> bytes:
    try:
        return msgspec.json.encode(verdict)
    except UnicodeEncodeError:  # a lone surrogate in a name
        verdict.series = _bytes(verdict.series).decode()
        verdict.labels = {_bytes(k).decode(): _bytes(v).decode() for k, v in verdict.labels.items()}
        return msgspec.json.encode(verdict)
