"""One daemon's clock in a process of its own: ``python -m tests.faults.clock_process URL``.

It ticks every second until it is killed.
"""

from __future__ import annotations

import sys
import threading
import time

from pipeline.jobs.scheduler import TrainingScheduler
from storage.model_store import jobs
from storage.sql.database import Database
from tests.support.schedules import EverySeconds


def main(url: str) -> None:
    database = Database(url)

    def queue(stream: str, due_ns: int) -> None:
        with database.begin() as connection:
            jobs.add(
                connection, "train", stream, due_ns, trigger="schedule", author="clock", now_ns=time.time_ns()
            )

    clock = TrainingScheduler(queue)
    clock.set_schedules({"plant": EverySeconds(1), "edge": EverySeconds(2)})
    clock.start()
    print("ticking", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
