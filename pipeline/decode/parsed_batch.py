"""Result of parsing a batch in any format, before the common checks, and the reasons of dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    "bad_label": "the text that names the series is too long or holds a NUL character",
    "bad_time": "the event time cannot be read",
    "absurd_time": "the event time lies before 1970 or after 2199",
    "future": "the event time is too far ahead of the log's own time",
    "not_finite": "a value is NaN or infinite",
}

#: Most characters of a label: labels are in indexes of the database.
MAX_LABEL = 256

_MAX_SHOWN_CHARACTERS = 80


class Reject(NamedTuple):
    """Rejection of a record: a key of REASONS, and the field with its content."""

    reason: str
    detail: str


@dataclass(slots=True)
class Parsed:
    """Points of one batch of records.

    rows      (N,) record that a point comes from (None: point i is record i)
    time      (N,) ns, negative where ``pipeline.core.timestamps`` could not use it; ``time_shown(i)`` is its original
    rejects   record → reason; points of such a record are dropped
    filtered  records without a point that are not rejected
    """

    rows: NDArray[np.int64] | None
    keys: SeriesKeys
    time: NDArray[np.int64]
    time_shown: Callable[[int], object]
    values: NDArray[np.float64]
    extra: dict[str, NDArray]
    rejects: dict[int, Reject]
    filtered: int = 0


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
    """Return the indices of texts that cannot name a series: too long, or with a NUL character."""
    return [i for i, label in enumerate(labels) if len(label) > MAX_LABEL or "\0" in label]


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
