"""Reload of the config of a running daemon, on SIGHUP or when the file changes."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import structlog

from pipeline.config.loader import load_config
from pipeline.config.schema import Config
from pipeline.core.errors import ConfigError, StorageUnavailable
from pipeline.core.stop_signals import release_reloads

log = structlog.get_logger(__name__)

_CHECK_INTERVAL_SECONDS = 1.0
#: Pause before a reload is repeated because the database did not answer.
_RETRY_SECONDS = 5.0

FileStamp = tuple[int, int, int]


class Reloader:
    """Applies each valid new config; one with errors is logged, and the running one stays in force.

    The loop calls ``poll`` between two batches.

    Args:
        path: The config file.
        current: The running config.
        take: Applies a config, or raises ConfigError to refuse it.
        watch: Also reload when the file changes.
        outcome: Called with ``taken`` or ``refused`` after each reload.
    """

    def __init__(
        self,
        path: Path,
        current: Config,
        take: Callable[[Config], None],
        *,
        watch: bool,
        outcome: Callable[[str], None],
    ) -> None:
        self._path = path
        self._current = current
        self._take = take
        self._outcome = outcome
        self._watch = watch
        self._hup = False
        self._again_at = math.inf  # when a reload is repeated that failed for want of a database
        self._seen = self._pending = _file_stamp(path)
        self._checked_at = time.monotonic()

    def install(self) -> None:
        """Install the handler of SIGHUP. Main thread only."""
        signal.signal(signal.SIGHUP, self._on_hup)
        release_reloads()

    def _on_hup(self, signum: int, frame: FrameType | None) -> None:
        self._hup = True

    def poll(self) -> None:
        """Reload if SIGHUP was received or the file has changed."""
        if self._hup or time.monotonic() >= self._again_at:
            self._hup = False
            self._seen = self._pending = _file_stamp(self._path)
            self._reload()
        elif self._watch and time.monotonic() - self._checked_at >= _CHECK_INTERVAL_SECONDS:
            self._checked_at = time.monotonic()
            self._check_file()

    def _check_file(self) -> None:
        """Reload a changed file once two checks agree, because an editor may still be writing it."""
        now = _file_stamp(self._path)
        if now is not None and now == self._pending and now != self._seen:
            self._seen = now
            self._reload()
        self._pending = now

    def _reload(self) -> None:
        self._again_at = math.inf
        try:
            config = load_config(self._path)
            if config == self._current:
                log.info("config unchanged", file=str(self._path))
                return
            self._take(config)
        except ConfigError as error:
            log.error(
                "config is invalid; the running config stays in force",
                file=str(self._path),
                problems=str(error).splitlines(),
            )
            self._outcome("refused")
        except StorageUnavailable as error:
            log.warning(
                "the database does not answer; the reload is repeated", file=str(self._path), error=str(error)
            )
            self._again_at = time.monotonic() + _RETRY_SECONDS
        else:
            self._current = config
            log.info("config reloaded", file=str(self._path))
            self._outcome("taken")


def _file_stamp(path: Path) -> FileStamp | None:
    """Return a value that changes with the file, also when a symbolic link gets another target."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
