"""Progress of a long job: a bar on a terminal, a log line every few seconds otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

_LINE_INTERVAL_SECONDS = 5.0


class Progress(Protocol):
    """Receiver of the progress of a job."""

    def advance(self, count: float) -> None:
        """Report that ``count`` more units are done."""
        ...

    def expect(self, total: float) -> None:
        """Set the total number of units; it may be known late and may change."""
        ...


@contextmanager
def progress(title: str, unit: str = "points", total: float | None = None) -> Iterator[Progress]:
    """Show the progress of the block on stderr."""
    if sys.stderr.isatty():
        with _bar(title, unit, total) as bar:
            yield bar
    else:
        lines = _Lines(title, unit, total)
        yield lines
        lines.last()


def describe(done: float, total: float | None, seconds: float, unit: str) -> str:
    """Return a text such as ``1,200,000 of 5,000,000 points (24 %), 1.1M points/s, 0:00:03 left``.

    Args:
        done: Units that are done.
        total: All units, None if unknown.
        seconds: Time since the start.
        unit: Name of the unit.
    """
    rate = done / seconds if seconds > 0 else 0.0
    text = f"{done:,.0f}"
    if total:
        text += f" of {total:,.0f}"
    text += f" {unit}"
    if total:
        text += f" ({done / total:.0%})".replace("%", " %")
    text += f", {short(rate)} {unit}/s"
    if total and rate > 0 and done < total:
        text += f", {timedelta(seconds=round((total - done) / rate))} left"
    return text


def short(number: float) -> str:
    """Return a short text such as 1.23M for 1234567."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


class _Lines:
    def __init__(self, title: str, unit: str, total: float | None) -> None:
        self._title, self._unit, self._total = title, unit, total
        self._done = 0.0
        self._start = self._shown = time.monotonic()

    def advance(self, count: float) -> None:
        self._done += count
        if count and time.monotonic() - self._shown >= _LINE_INTERVAL_SECONDS:
            self._shown = time.monotonic()
            log.info("task makes progress", task=self._title, progress=self._progress())

    def expect(self, total: float) -> None:
        self._total = total

    def last(self) -> None:
        log.info("task is done", task=self._title, progress=self._progress())

    def _progress(self) -> str:
        return describe(self._done, self._total, time.monotonic() - self._start, self._unit)


@contextmanager
def _bar(title: str, unit: str, total: float | None) -> Iterator[Progress]:
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.text import Text

    class Rate(rich_progress.ProgressColumn):
        def render(self, task: rich_progress.Task) -> Text:
            return Text(f"{short(task.speed or 0.0)} {unit}/s")

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.completed:,.0f}"),
        Rate(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)

        class Bar:
            def advance(self, count: float) -> None:
                bar.advance(task, count)

            def expect(self, total: float) -> None:
                bar.update(task, total=total)

        yield Bar()
