"""The feeder: produces the worlds' records, first their past at once, then live at an accelerated clock, and
injects faults.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pipeline.demo.simulate import World

#: Simulated seconds per second.
SPEED = 600
#: Seconds of the demo at which a fault is injected without being asked for: the first soon, then now and
#: then.
FIRST_FAULT, NEXT_FAULT = 2.0, 15.0

Send = Callable[[str, bytes, bytes], object]


class Feeder:
    """Drives the worlds by one simulated clock that started ``SPEED`` times as long ago as it has run, plus
    the past.
    """

    def __init__(self, worlds: Sequence[World], send: Send, say: Callable[[str], None]) -> None:
        self._worlds = worlds
        self._send = send
        self._say = say
        self._lock = threading.Lock()
        self._turn = 0
        # The simulated now begins a month ago: at its speed it would otherwise run into the future, which the
        # pipeline would not believe.
        self._now = int(time.time()) - 30 * 86_400
        self._next = {world.topic: self._now - world.tick_s * world.history_ticks for world in worlds}

    def fill(self) -> None:
        """Produce the past."""
        self._advance(self._now)

    def run(self, stop: threading.Event) -> None:
        """Go on live until ``stop`` is set."""
        began = time.monotonic()
        fault_at = FIRST_FAULT
        while not stop.wait(0.05):
            elapsed = time.monotonic() - began
            if elapsed >= fault_at:
                fault_at = elapsed + NEXT_FAULT
                self.inject()
            with self._lock:
                self._advance(self._now + int(elapsed * SPEED))

    def inject(self) -> None:
        """Begin a fault in the next world, in turn."""
        with self._lock:
            world = self._worlds[self._turn % len(self._worlds)]
            self._turn += 1
            self._say(f"» injected: {world.inject()}")

    def _advance(self, until_s: int) -> None:
        for world in self._worlds:
            while (now := self._next[world.topic]) <= until_s:
                for key, value in world.tick(now):
                    self._send(world.topic, key, value)
                self._next[world.topic] = now + world.tick_s
