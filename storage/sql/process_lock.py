"""Lock that allows one owning process per SQLite file.

SQLite cannot release the lock of a frozen process, so there must never be a second owner.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pipeline.core.errors import StorageError
from pipeline.core.private_files import make_private_folder, private_opener


class ProcessLock:
    """Advisory ``flock`` on ``<database file>.lock``, released by the kernel however the process ends.

    The file stays behind on purpose: deleting it would let two processes lock two different files of one
    name.
    """

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".lock")
        self._database = database
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises StorageError with the process that holds it, or with the reason why the file cannot be created.
        """
        try:
            make_private_folder(self.path.parent)
            fd = private_opener(str(self.path), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StorageError(f"cannot lock the database with {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode().strip() or "unknown"
            os.close(fd)
            raise StorageError(
                f"{self._database} is in use by another forewatch (process {holder}). An SQLite database serves one process: "
                f"stop that one, or use PostgreSQL to run several."
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
