"""The feeder of the demo: simulated records at an accelerated clock, and faults."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.demo.simulate import World

#: Simulated seconds per second.
SPEED_FACTOR = 1200
FIRST_FAULT_SECONDS = 10.0
FAULT_INTERVAL_SECONDS = 15.0

Send = Callable[[str, bytes, bytes], object]


def history_file(topic: str) -> str:
    """Return the name of the file with the historical records of a topic."""
    return f"{topic}.jsonl"


class Feeder:
    """Produces the records of all simulated sources with one accelerated clock.

    Args:
        worlds: The simulated sources.
        send: Function that sends topic, key and value of a record.
        say: Function that prints a line.
    """

    def __init__(self, worlds: Sequence[World], send: Send, say: Callable[[str], None]) -> None:
        self._worlds = worlds
        self._send = send
        self._say = say
        #: Returns whether a stream has a model that was trained.
        self.has_model: Callable[[str], bool] = lambda stream: True
        self._lock = threading.Lock()
        self._waiting = deque(worlds)
        # The simulated clock starts a month ago. If it started now, its speed would give records times in the
        # future, which the pipeline rejects.
        self._now = int(time.time()) - 30 * 86_400
        self._next = {world.topic: self._now - world.tick_s * world.history_ticks for world in worlds}

    def write_history(self, folder: Path) -> None:
        """Write the records before the live ones to ``folder``, one file for each topic."""
        folder.mkdir()
        for world in self._worlds:
            with (folder / history_file(world.topic)).open("wb") as file:
                self._advance_world(world, self._now, lambda topic, key, value: file.write(value + b"\n"))

    def send_history(self) -> None:
        """Send the records before the live ones."""
        for world in self._worlds:
            self._advance_world(world, self._now, self._send)

    def run(self, stop: threading.Event) -> None:
        """Produce live records until ``stop`` is set."""
        began = time.monotonic()
        fault_at = FIRST_FAULT_SECONDS
        while not stop.wait(0.05):
            elapsed = time.monotonic() - began
            if elapsed >= fault_at:
                fault_at = elapsed + FAULT_INTERVAL_SECONDS
                self.inject()
            with self._lock:
                self._advance(self._now + int(elapsed * SPEED_FACTOR))

    def inject(self) -> None:
        """Start a fault in the next simulated source, in turn.

        A source whose faults nothing can find yet waits until its stream has a model.
        """
        with self._lock:
            able = (one for one in self._waiting if not one.needs_model or self.has_model(one.stream))
            world = next(able, None)
            if world is None:
                return
            self._waiting.remove(world)
            self._waiting.append(world)
            self._say(f"[demo] injected fault: {world.inject()}")

    def _advance(self, until_s: int) -> None:
        for world in self._worlds:
            self._advance_world(world, until_s, self._send)

    def _advance_world(self, world: World, until_s: int, send: Send) -> None:
        while (now := self._next[world.topic]) <= until_s:
            for key, value in world.tick(now):
                send(world.topic, key, value)
            self._next[world.topic] = now + world.tick_s
