"""Run at the start of each interpreter: a worker takes the next phase and dies there.

The file of ``FOREWATCH_TEST_PHASES`` has one phase a line; each worker removes the first one. Workers of a
daemon also keep a diary beside it (``diary-PID``). Those of a cluster are processes that Dask spawns.
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
_of_daemon = "pipeline.daemon.worker_main" in sys.orig_argv
if _path and (_of_daemon or "spawn_main" in " ".join(sys.orig_argv)):
    from tests.faults.traps import Diary, Trap, arm

    if _of_daemon:
        Diary(Path(_path).with_name(f"diary-{os.getpid()}")).keep()
    if _phase := _next_phase(Path(_path)):
        arm(Trap(_phase, reached=Path(f"{_path}.reached")))
