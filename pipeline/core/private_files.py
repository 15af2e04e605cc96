"""Files and folders that only the user of this process can read, whatever the umask is.

Files that exist keep their mode: ``forewatch check`` warns about those that others can read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
#: Number of entries of a folder that are looked at for their modes.
MAX_ENTRIES_CHECKED = 10_000


def make_private_folder(path: Path | str) -> None:
    """Create a folder and its missing parents with mode 0700. Raises OSError."""
    path, missing = Path(path), []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        try:
            folder.mkdir(mode=FOLDER_MODE)
        except FileExistsError:  # another process was faster
            continue
        folder.chmod(FOLDER_MODE)
    if not path.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(path))


def private_opener(path: str, flags: int) -> int:
    """Open a file for ``open(..., opener=private_opener)``; a new one gets mode 0600."""
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)


def readable_by_others(path: Path) -> Iterator[Path]:
    """Yield ``path`` and what is below it, if other users can read, write or enter it."""
    checked = [path]
    if path.is_dir():
        for number, entry in enumerate(path.rglob("*")):
            if number >= MAX_ENTRIES_CHECKED:
                break
            checked.append(entry)
    for entry in checked:
        try:
            mode = entry.lstat().st_mode
        except OSError:
            continue
        if not stat.S_ISLNK(mode) and mode & 0o077:
            yield entry
