"""The exceptions of forewatch. Each message says what was wrong, where, and what to do.

    ForewatchError
    ├── ConfigError             a config that cannot be used: names the file, line and key
    ├── InputError              a command-line argument or an input file that cannot be used
    ├── NotInstalled            an extra of forewatch that this needs and that is not installed
    ├── SourceError             a source that cannot be read
    │   ├── OffsetOutOfRange    the position is older (or newer) than what the source holds
    │   └── SourceUnavailable   the broker or file does not answer; a retry can succeed
    ├── OutputUnavailable       a receiver of verdicts does not answer; a retry can succeed
    └── StorageError            a database that cannot be used: locked by another process, or wrong version
        ├── DamagedState        a stored state that is damaged; it is refused and computed again
        └── StorageUnavailable  the database does not answer; a retry can succeed
            └── StorageRefused  the database answers, but refuses the connection

``storage.stream_state.positions`` also raises ``Fenced``, which is the end of an ownership and not an error
of the user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.core.types import Partition


class ForewatchError(Exception):
    """Base of every error that is shown to the user as one message, without a traceback."""

    exit_code = 1


class ConfigError(ForewatchError):
    """A configuration that cannot be used."""

    exit_code = 2


class InputError(ForewatchError):
    """An argument or an input file that cannot be used."""

    exit_code = 2


class NotInstalled(ForewatchError):
    """An extra that is needed is not installed; the message has the command."""

    exit_code = 2


class SourceError(ForewatchError):
    """A source that cannot be read.

    ``partition`` and ``offset`` are set if the failure concerns one partition.
    """

    exit_code = 3

    def __init__(self, message: str, partition: Partition | None = None, offset: int | None = None) -> None:
        super().__init__(message)
        self.partition = partition
        self.offset = offset


class SourceUnavailable(SourceError):
    """The source does not answer; the engine waits and tries again."""


class OffsetOutOfRange(SourceError):
    """A position outside the offsets of the source.

    The partition is paused until its position is set again.
    """

    partition: Partition


class OutputUnavailable(ForewatchError):
    """A receiver of verdicts that does not answer; the engine pauses and tries again."""

    exit_code = 3


class StorageError(ForewatchError):
    """A database that cannot be used; a retry does not help."""

    exit_code = 4


class StorageUnavailable(StorageError):
    """The database does not answer; the engine pauses and tries again."""


class DamagedState(StorageError):
    """A stored state that cannot be read; the partition or series continues without it."""


class StorageRefused(StorageUnavailable):
    """The database refuses the connection: wrong password, unknown database, no permission.

    A process that starts ends with this error. A process that runs waits, because a changed password is
    often changed back or allowed again.
    """
