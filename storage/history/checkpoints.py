"""Checkpoints: states of series at earlier times, beside recorded history.

    <root>/<stream>/<topic>/<partition>/<log>/<offset>.c<created>.state

A checkpoint is a copy of a snapshot: the state after every record below ``offset``, in the order of time,
created at ``created`` (ns). It is a ZIP archive without compression, whose check sums protect each part: the
pages of the snapshot, and ``index.json`` with the keys of the series of each page and of those that must not
start from here.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from storage.history.segments import SegmentStore

_NAME = re.compile(r"(\d+)\.c(\d+)\.state")
_INDEX = "index.json"
#: Form of the index. A file of another form is not used: in form 1, series of pending late points were fit.
_FORM = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a partition at an offset. ``path`` is below the root."""

    path: str
    offset: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class CheckpointPage:
    """Page of a snapshot with the keys of its series."""

    data: bytes
    keys: list[str]


class CheckpointStore:
    """Store of checkpoints below the root of the recorded history.

    Raises OSError, or what the fsspec file system raises, and ConfigError for a root that cannot be used.
    """

    def __init__(self, path: str) -> None:
        """Write nothing yet."""
        self._segments = SegmentStore(path)

    def checkpoints(self, folder: str) -> list[Checkpoint]:
        """Return the checkpoints of a log (see ``segments.folder_of``), newest first."""
        fs, below = self._segments.fs, f"{self._segments.root}/{folder}"
        fs.invalidate_cache()
        names = [path.rpartition("/")[2] for path in fs.ls(below, detail=False)] if fs.exists(below) else []
        found = [(name, match) for name in names if (match := _NAME.fullmatch(name)) is not None]
        checkpoints = [Checkpoint(f"{folder}/{name}", int(m[1]), int(m[2])) for name, m in found]
        return sorted(checkpoints, key=lambda one: (one.offset, one.created_ns), reverse=True)

    def write(
        self,
        folder: str,
        offset: int,
        created_ns: int,
        pages: Iterable[CheckpointPage],
        unfit: Collection[str],
    ) -> None:
        """Write a checkpoint; nothing is visible before it is whole.

        Args:
            folder: Folder of the log.
            offset: The state covers every record below it.
            created_ns: Time of the snapshot.
            pages: Pages of series.
            unfit: Keys of series whose state is not all that counts at that offset: they have an open
                anomaly, or late points that are not part of it.
        """
        buffer, keys = BytesIO(), []
        with zipfile.ZipFile(buffer, "w") as archive:
            for number, page in enumerate(pages):
                archive.writestr(str(number), page.data)
                keys.append(page.keys)
            archive.writestr(_INDEX, json.dumps({"form": _FORM, "keys": keys, "unfit": sorted(unfit)}))
        self._segments.put(f"{folder}/{offset}.c{created_ns}.state", buffer.getbuffer())

    def read(self, checkpoint: Checkpoint, wanted: Collection[str]) -> tuple[set[str], list[bytes]]:
        """Return those of ``wanted`` that can start from here, and their pages.

        Raises OSError and ValueError for a file that is gone or damaged.
        """
        fs, path = self._segments.fs, f"{self._segments.root}/{checkpoint.path}"
        try:
            with fs.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                index: dict[str, Any] = json.loads(archive.read(_INDEX))
                usable = set(wanted) - set(index["unfit"]) if index.get("form") == _FORM else set()
                used = [str(n) for n, keys in enumerate(index["keys"]) if not usable.isdisjoint(keys)]
                return usable, [archive.read(name) for name in used]
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"{path}: {error}") from error

    def delete(self, checkpoint: Checkpoint) -> None:
        """Delete a checkpoint, which may be deleted already."""
        with suppress(FileNotFoundError):
            self._segments.fs.rm_file(f"{self._segments.root}/{checkpoint.path}")


def kept_checkpoints(
    found: Iterable[Checkpoint], now_ns: int, every_ns: int, oldest_ns: int
) -> set[Checkpoint]:
    """Return the checkpoints to keep: the denser, the younger.

    Of the ages between 2ⁿ and 2ⁿ⁺¹ intervals two are kept. So the next older checkpoint of a time is at most
    twice as old, and a day of intervals of ten minutes is some fifteen files.

    Args:
        found: Checkpoints of a log.
        now_ns: The present.
        every_ns: Interval at which they are written.
        oldest_ns: Age from which none is needed.
    """
    kept = set()
    for one in found:
        age = max(0, (now_ns - one.created_ns) // every_ns)
        spacing = 1 << max(0, age.bit_length() - 2)
        if now_ns - one.created_ns <= oldest_ns and (one.created_ns // every_ns) % spacing == 0:
            kept.add(one)
    return kept
