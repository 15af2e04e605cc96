"""Run at the start of each interpreter of a daemon under test: a worker takes the next phase and dies there.

The file of ``FOREWATCH_TEST_PHASES`` has one phase a line; each worker removes the first one. Beside it each
worker keeps a diary (``diary-PID``).
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path


def _next_phase(path: Path) -> str:
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        phase, *rest = file.read().splitlines() or [""]
        file.seek(0)
        file.truncate()
        file.write("\n".join(rest))
    return phase


_path = os.environ.get("FOREWATCH_TEST_PHASES")
if _path and "pipeline.daemon.worker_main" in sys.orig_argv:
    from tests.faults.traps import Diary, Trap, arm

    Diary(Path(_path).with_name(f"diary-{os.getpid()}")).keep()
    if _phase := _next_phase(Path(_path)):
        arm(Trap(_phase))
