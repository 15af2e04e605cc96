"""What every format makes of a batch, before the checks that are the same for all of them; and the words for
what can be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.columns import SeriesKeys

#: Why a record is a dead letter.
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

#: Labels are at most this long (characters): they stand in indexes of the database.
MAX_LABEL = 256

_SHOWN = 80


class Reject(NamedTuple):
    """Why a record was not taken: a word of REASONS, and which field, and what was there."""

    reason: str
    detail: str


@dataclass(slots=True)
class Parsed:
    """Points of one batch of records.

    rows      (N,) record that a point comes from (None: point i is record i)
    time      (N,) ns, negative where ``pipeline.core.timestamps`` could not use it; ``time_shown(i)`` is what was there
    rejects   record → why; points of such a record count for nothing
    filtered  records without a point and without a fault
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
    """A value for a message: printable, in ASCII, short."""
    text = ascii(thing)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def canonical(label: object) -> str:
    """The text of a label or of anything that is counted as distinct: the same in JSON, CSV and Parquet."""
    if isinstance(label, str):
        return label
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label)


def unfit_labels(labels: Sequence[str]) -> list[int]:
    """Indices of texts that cannot name a series (PostgreSQL stores no NUL, and an index entry has a limit)."""
    return [i for i, label in enumerate(labels) if len(label) > MAX_LABEL or "\0" in label]


class Fingerprints(dict[object, int]):
    """Value → 64-bit fingerprint of its text, the same in every process; null is 0.

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
        """Fingerprints of a column."""
        # 1, 1.0 and True are one key of a dict, but not one text.
        keys = (
            things
            if set(map(type, things)) <= {str, type(None)}
            else [t if t is None else canonical(t) for t in things]
        )
        return np.fromiter(map(self.__getitem__, keys), np.uint64, len(keys))
