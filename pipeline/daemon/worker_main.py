"""Entry point of a worker process: the daemon as one of several on a machine.

The supervisor starts it. It has no HTTP server, no dashboard and no service manager of its own, and it ends
with its supervisor, however that ends.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

#: Option of prctl(2): the signal that this process gets when its parent ends.
_PR_SET_PDEATHSIG = 1
#: Worker that also does what one process of a machine does for all.
FIRST_WORKER = 0


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when ``parent`` ends, also by SIGKILL (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the worker until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--supervisor", type=int, required=True)
    parser.add_argument("--descriptors", type=int, nargs=2, required=True)
    options = parser.parse_args()
    # Before the imports, which take a second or two.
    end_with_parent(options.supervisor)
    from pipeline.core.interpreter import collect_garbage_rarely
    from pipeline.core.stop_signals import catch_early_signals

    catch_early_signals()
    collect_garbage_rarely()
    from pipeline.observability.log_setup import configure_logs
    from pipeline.observability.process_exit import log_exit

    configure_logs(os.environ.get("FOREWATCH_LOG_LEVEL", "info"), worker=options.worker)
    with log_exit("run"):
        from pipeline.daemon.daemon import run_daemon
        from pipeline.daemon.process_role import ProcessRole
        from pipeline.daemon.worker_channel import WorkerEnd

        role = ProcessRole(WorkerEnd(*options.descriptors).exposed, first=options.worker == FIRST_WORKER)
        run_daemon(options.config, role=role)


if __name__ == "__main__":
    main()
