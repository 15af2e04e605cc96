"""Result of parsing a batch in any format, before the common checks, and the reasons of dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.columns import SeriesKeys

#: Reason of a dead letter → its meaning.
REASONS = {
    "bad_bytes": "the bytes are not UTF-8",
    "malformed": "the text is not JSON, or not a line of CSV with the columns that it should have",
    "not_an_object": "the JSON is not an object",
    "missing_field": "a field that must be there is not, or has no value",
    "wrong_type": "a field holds something else than it should",
    "bad_label": "the text that names the series or the event holds a NUL character",
    "bad_time": "the event time cannot be read",
    "implausible_time": "the event time is a number that no unit makes a time after 1990",
    "absurd_time": "the event time lies before 1970 or after 2199",
    "future": "the event time is too far ahead of the log's own time, or of the present",
    "not_finite": "a value is infinite",
}

#: Most characters of a label: labels are in indexes of the database.
MAX_LABEL = 256

#: Most characters of a code or a log line; the rest is ignored.
MAX_EVENT_CHARS = 2000

_MAX_SHOWN_CHARACTERS = 80


class Reject(NamedTuple):
    """Rejection of a record: a key of REASONS, and the field with its content."""

    reason: str
    detail: str


@dataclass(slots=True)
class Parsed:
    """Points of one batch of records.

    rows      (N,) record that a point comes from (None: point i is record i)
    time      (N,) ns, negative where ``pipeline.core.timestamps`` cannot use it; ``time_shown(i)``: original
    rejects   record → reason; points of such a record are dropped
    unfit     point → reason; only that point is dropped if its record has others
    parts     record → samples that could not be read, while others of it are points
    texts     (record, positions of its points) → these as a record of their own; None: records have one point
    filtered  records without a point that are not rejected
    events    (N,) code or log line of each event; None for a format of numbers
    """

    rows: NDArray[np.int64] | None
    keys: SeriesKeys
    time: NDArray[np.int64]
    time_shown: Callable[[int], object]
    values: NDArray[np.float64]
    extra: dict[str, NDArray]
    rejects: dict[int, Reject]
    filtered: int = 0
    unfit: dict[int, Reject] = field(default_factory=dict)
    parts: dict[int, tuple[bytes, Reject]] = field(default_factory=dict)
    texts: Callable[[int, Sequence[int]], bytes] | None = None
    events: list[str] | None = None


def shown(thing: object) -> str:
    """Return a value as printable, short ASCII text for a message."""
    text = ascii(thing)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…"


def canonical(label: object) -> str:
    """Return the text of a label or of a counted value, equal in JSON, CSV and Parquet."""
    if isinstance(label, str):
        return label
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label)


def unfit_labels(labels: Sequence[str]) -> list[int]:
    """Return the indices of texts that cannot name a series: with a NUL character."""
    return [i for i, label in enumerate(labels) if "\0" in label]


def short_label(label: str) -> str:
    """Return a label of at most MAX_LABEL characters; a longer one ends in a hash."""
    if len(label) <= MAX_LABEL:
        return label
    digest = blake2b(label.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{label[: MAX_LABEL - 1 - len(digest)]}#{digest}"


def short_event(text: str) -> str:
    """Return the beginning of a code or a log line, without lone surrogates."""
    text = text[:MAX_EVENT_CHARS]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class Fingerprints(dict[object, int]):
    """Value → 64-bit fingerprint of its text, equal in every process; null is 0.

    Two texts collide once in 10¹⁹ pairs.
    """

    _LIMIT = 1 << 18

    def __missing__(self, thing: object) -> int:
        if len(self) >= self._LIMIT:
            self.clear()
        digest = blake2b(canonical(thing).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[thing] = fingerprint = 0 if thing is None else int.from_bytes(digest, "little") | 1
        return fingerprint

    def of(self, things: Sequence[object]) -> NDArray[np.uint64]:
        """Return the fingerprints of a column."""
        # 1, 1.0 and True are one key of a dict, but not one text.
        keys = (
            things
            if set(map(type, things)) <= {str, type(None)}
            else [t if t is None else canonical(t) for t in things]
        )
        return np.fromiter(map(self.__getitem__, keys), np.uint64, len(keys))
