"""A running daemon takes a changed config: on SIGHUP, or whenever the file changes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import structlog

from pipeline.config.loader import load_config
from pipeline.config.schema import Config
from pipeline.core.errors import ConfigError

log = structlog.get_logger(__name__)

_LOOK_EVERY = 1.0

Stamp = tuple[int, int, int]


class Reloader:
    """Calls ``take`` with each valid new config; one with mistakes is logged and refused, and everything goes
    on as before.

    Nothing runs beside the loop: ``poll`` is called between two batches and costs nothing until there is
    something to do. ``outcome`` is told ``taken`` or ``refused`` (a metric). ``take`` may refuse too, by
    raising ConfigError.
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
        self._seen = self._pending = _stamp(path)
        self._looked = time.monotonic()

    def install(self) -> None:
        """Listen to SIGHUP. Main thread only."""
        signal.signal(signal.SIGHUP, self._on_hup)

    def _on_hup(self, signum: int, frame: FrameType | None) -> None:
        self._hup = True

    def poll(self) -> None:
        """Reload if it was asked for or if the file changed."""
        if self._hup:
            self._hup = False
            self._seen = self._pending = _stamp(self._path)
            self._reload()
        elif self._watch and time.monotonic() - self._looked >= _LOOK_EVERY:
            self._looked = time.monotonic()
            self._look()

    def _look(self) -> None:
        """An editor may still be writing: a change counts once the file looks the same twice."""
        now = _stamp(self._path)
        if now is not None and now == self._pending and now != self._seen:
            self._seen = now
            self._reload()
        self._pending = now

    def _reload(self) -> None:
        try:
            config = load_config(self._path)
            if config == self._current:
                log.info("config unchanged", file=str(self._path))
                return
            self._take(config)
        except ConfigError as error:
            log.error(
                "config refused, the old one stays", file=str(self._path), problems=str(error).splitlines()
            )
            self._outcome("refused")
        else:
            self._current = config
            log.info("config taken", file=str(self._path))
            self._outcome("taken")


def _stamp(path: Path) -> Stamp | None:
    """Changes with the file, also where a symbolic link is turned to another one (mounted config maps)."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
