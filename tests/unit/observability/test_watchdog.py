"""The watchdog ends a process whose loop stands still, and no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from pipeline.observability.watchdog import Watchdog

STUCK = """
import threading, time
from pipeline.observability.log_setup import configure_logs
from pipeline.observability.watchdog import Watchdog
configure_logs()
with Watchdog(4.0) as watchdog:
    for _ in range(10):
        watchdog.beat("plant")
        time.sleep(0.5)
    print("turned", flush=True)
    threading.Event().wait()  # the client library that never returns
"""

TURNING = """
import time
from pipeline.observability.watchdog import Watchdog
print("up", flush=True)
with Watchdog(2.0) as watchdog:
    end = time.monotonic() + 5.0
    while time.monotonic() < end:
        watchdog.beat()
        time.sleep(0.05)
"""


def test_a_stuck_loop_ends_the_process_with_70_and_all_stacks():
    run = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (70, "turned\n")
    line = json.loads(run.stderr.splitlines()[0])
    assert (line["level"], line["loop"], line["exit_code"]) == ("error", "plant", 70)
    assert line["event"].startswith("the watchdog ends the process")
    assert "in wait" in run.stderr


def test_a_frozen_process_is_not_taken_for_a_stuck_one():
    with subprocess.Popen([sys.executable, "-c", TURNING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(4.0)
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(timeout=60) == 0


def test_the_loop_that_stands_still_for_longest_counts(monkeypatch):
    watchdog = Watchdog(60)
    assert watchdog.idle() == 0.0
    clock = iter((10.0, 15.0, 17.0, 17.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    watchdog.beat("a")
    watchdog.beat("b")
    assert watchdog.idle() == 7.0
    watchdog.forget("a")
    assert watchdog.idle() == 2.0
