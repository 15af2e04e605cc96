"""Records that are put into a spool again: dead letters that are replayed.

Any process of the machine writes such a record to a file in the folder ``again`` of a spool. The process that
owns the spool appends it, notes its name in ``again.taken`` and deletes the file. A name is appended once,
however often the file is written, and wherever a process stops: the record in the spool has the name, too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import structlog

from pipeline.core.errors import InputError
from pipeline.core.private_files import make_private_folder
from pipeline.sources.push.segments import (
    MAX_TYPE_BYTES,
    Entry,
    first_offsets,
    pack,
    read_entry,
    segment_path,
    sync_folder,
)
from pipeline.sources.push.spool import Spool, SpoolFullError, SpoolWriteError

_FOLDER, _TAKEN, _ENDING, _DAMAGED = "again", "again.taken", ".record", ".damaged"
_PARAMETER = "; forewatch-replay="
#: Names that are kept when the process starts, the newest ones.
MAX_NAMES = 100_000
LOOK_SECONDS = 1.0

log = structlog.get_logger(__name__)


def put_again(spool: Path, name: str, entry: Entry) -> None:
    """Write a record for the process that owns a spool.

    Args:
        spool: Folder of the spool.
        name: Name of the record, the same for the same record; records are taken in the order of names.
        entry: The record.

    Raises:
        InputError: There is no such spool on this machine, or it cannot be written.
    """
    if not (spool / "id").exists():
        raise InputError(
            f"there is no spool {spool} on this machine; run the command where the daemon of the stream runs"
        )
    folder, owner = spool / _FOLDER, spool.stat()
    kind = entry.content_type.partition(_PARAMETER)[0][: MAX_TYPE_BYTES - len(_PARAMETER) - len(name)]
    part = folder / f"{name}.part"
    try:
        make_private_folder(folder)
        with open(part, "wb") as file:
            file.write(pack(entry._replace(content_type=f"{kind}{_PARAMETER}{name}")))
            file.flush()
            os.fsync(file.fileno())
        if os.geteuid() == 0:  # the daemon may run as another user
            for path in (folder, part):
                os.chown(path, owner.st_uid, owner.st_gid)
        part.rename(folder / f"{name}{_ENDING}")
        sync_folder(folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror}; check its user and its disk"
        ) from None


class Inbox:
    """Records that wait to be put into a spool. Its owner has one."""

    def __init__(self, spool: Spool) -> None:
        """Read which records were taken before."""
        self._spool = spool
        self._folder, self._list = spool.folder / _FOLDER, spool.folder / _TAKEN
        self._looked = -LOOK_SECONDS
        self._taken = self._names_taken()
        waiting = {path.stem for path in self._waiting()} - self._taken
        for name in waiting & _names_in(spool.folder) if waiting else ():
            self._note(name)

    def take(self) -> None:
        """Append the records that wait, if the last look was a while ago."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for path in self._waiting():
            try:
                self._take(path)
            except (SpoolFullError, SpoolWriteError):
                return  # later
            except OSError as error:
                log.warning("cannot read a record that is replayed", path=str(path), error=str(error))

    def _take(self, path: Path) -> None:
        if path.stem not in self._taken:
            file = os.open(path, os.O_RDONLY)
            try:
                found = read_entry(file, 0)
            finally:
                os.close(file)
            if found is None:
                log.warning("record that is replayed is damaged", path=str(path))
                path.rename(path.with_suffix(_DAMAGED))
                return
            self._spool.append(found[0])
            self._note(path.stem)
        path.unlink()

    def _waiting(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_ENDING}"))

    def _note(self, name: str) -> None:
        with open(self._list, "a") as file:
            file.write(f"{name}\n")
            file.flush()
            os.fsync(file.fileno())
        self._taken.add(name)

    def _names_taken(self) -> set[str]:
        try:
            names = self._list.read_text().split()
        except FileNotFoundError:
            return set()
        if len(names) > 2 * MAX_NAMES:
            names = names[-MAX_NAMES:]
            part = self._list.with_suffix(".part")
            part.write_text("\n".join(names) + "\n")
            part.rename(self._list)
        return set(names)


def _names_in(folder: Path) -> set[str]:
    """Return the names of the records in a spool that were put there again."""
    found: set[str] = set()
    for first in first_offsets(folder):
        file = os.open(segment_path(folder, first), os.O_RDONLY)
        try:
            at = 0
            while (one := read_entry(file, at)) is not None:
                found.add(one[0].content_type.partition(_PARAMETER)[2])
                at = one[1]
        finally:
            os.close(file)
    return found - {""}
