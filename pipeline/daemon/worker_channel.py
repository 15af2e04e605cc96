"""The connection between a supervisor and one worker process.

Two socket pairs, without a file or a port: the worker writes its status into one of them twice a second, and
answers requests for its metrics on the other one. Both ends when either process does.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe

from pipeline.config.schema import Config
from pipeline.observability.health import Health
from pipeline.observability.metrics import Metrics

STATUS_SECONDS = 0.5
#: Exit code of a worker whose supervisor is gone.
ORPHANED = 71


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Health of a worker.

    ``idle_seconds`` is the time since the last turn of its slowest loop.
    """

    idle_seconds: float = 0.0
    waiting: dict[str, str] = field(default_factory=lambda: {"daemon": "is starting"})

    @property
    def started(self) -> bool:
        """True once the worker has built its streams."""
        return "daemon" not in self.waiting


class SupervisorEnd:
    """End of the supervisor: the newest status, and requests for metrics.

    The loop calls ``read_status``, the HTTP server ``request`` and ``answer``.
    """

    def __init__(self) -> None:
        """Make the connection; the worker inherits its ends."""
        self._status, self._their_status = Pipe(duplex=False)
        self._requests, self._their_requests = Pipe()
        self.status = WorkerStatus()
        self.heard_at = time.monotonic()
        self.heard = False  # a status has arrived
        self._number = 0

    @property
    def inherited(self) -> tuple[int, int]:
        """File descriptors that the worker inherits."""
        return self._their_status.fileno(), self._their_requests.fileno()

    def close_inherited(self) -> None:
        """Close the ends of the worker, once it has them."""
        self._their_status.close()
        self._their_requests.close()

    def read_status(self) -> None:
        """Take the newest status that has arrived."""
        try:
            while self._status.poll():
                self.status = WorkerStatus(**json.loads(self._status.recv_bytes()))
                self.heard_at, self.heard = time.monotonic(), True
        except (EOFError, OSError):
            return  # it has ended

    def request(self) -> bool:
        """Ask for the metrics; False if the worker has ended."""
        self._number += 1
        try:
            self._requests.send_bytes(b"%d" % self._number)
        except (OSError, ValueError):
            return False
        return True

    def answer(self, deadline: float) -> bytes | None:
        """Return the answer to the last request; None if none arrives before ``deadline``."""
        try:
            while self._requests.poll(max(0.0, deadline - time.monotonic())):
                number, _, text = self._requests.recv_bytes().partition(b" ")
                if int(number) == self._number:  # otherwise it came too late for an earlier request
                    return text
        except (EOFError, OSError):
            pass
        return None

    def close(self) -> None:
        """Free the connection."""
        self._status.close()
        self._requests.close()


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """End of the worker, from the file descriptors that it inherited."""

    status_descriptor: int
    request_descriptor: int

    @contextmanager
    def exposed(self, config: Config, health: Health, metrics: Metrics) -> Iterator[None]:
        """Send the status and answer requests in a thread, until the process ends."""
        arguments = (health, metrics)
        threading.Thread(target=self._serve, args=arguments, name="supervisor", daemon=True).start()
        yield

    def _serve(self, health: Health, metrics: Metrics) -> None:
        status, requests = Connection(self.status_descriptor), Connection(self.request_descriptor)
        try:
            while True:
                values = {"idle_seconds": round(health.idle(), 3), "waiting": health.waiting()}
                status.send_bytes(json.dumps(values).encode())
                if requests.poll(STATUS_SECONDS):
                    requests.send_bytes(requests.recv_bytes() + b" " + metrics.exposition())
        except (EOFError, OSError):
            # Linux has killed this process by now. Elsewhere this is how a worker learns that it is alone.
            os._exit(ORPHANED)
