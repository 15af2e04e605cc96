"""``forewatch run`` with several workers, in processes of their own, and what can be seen of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
#: Generous: two workers start on cores that others use, too.
LIMIT_SECONDS = 300.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SupervisedDaemon:
    """One supervisor and its workers. ``close`` kills what is left."""

    def __init__(self, config: Path, log: Path, port: int, **environment: str) -> None:
        self.log, self.port = log, port
        paths = os.pathsep.join(filter(None, (environment.pop("PYTHONPATH", ""), str(ROOT))))
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(config)],
                env={**os.environ, **environment, "PYTHONPATH": paths},
                stderr=output,
                cwd=log.parent,
            )
        self._seen: dict[int, psutil.Process] = {}

    def workers(self) -> list[psutil.Process]:
        """Return the processes of the workers that run now."""
        try:
            found = [
                one
                for one in psutil.Process(self.process.pid).children()
                if "pipeline.daemon.worker_main" in one.cmdline()
            ]
        except psutil.NoSuchProcess:
            return []
        self._seen |= {one.pid: one for one in found}
        return found

    def alive(self) -> list[psutil.Process]:
        """Return the workers that were seen and still run."""
        return [one for one in self._seen.values() if one.is_running() and one.status() != "zombie"]

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a page; status 0 without an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def samples(self, name: str) -> dict[str, float]:
        """Return the sum of a metric by worker."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name:
                    worker = sample.labels["worker"]
                    found[worker] = found.get(worker, 0.0) + sample.value
        return found

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Return the log lines, or those of one event."""
        texts = [text for text in self.log.read_text().splitlines() if text.startswith("{")]
        return [line for text in texts if not event or (line := json.loads(text))["event"] == event]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, (
                f"{what}: {self.get('/readyz')} {self.log.read_text()[-4000:]}"
            )
            time.sleep(0.05)

    def leave(self) -> None:
        """SIGTERM; the exit code is 0 and no worker is left."""
        self.workers()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(LIMIT_SECONDS)
        assert (code, self.alive()) == (0, []), self.log.read_text()[-4000:]

    def close(self) -> None:
        self.workers()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for one in self.alive():
            one.kill()
