"""Parts of a backfill on their Dask cluster; one that is lost is submitted again."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from pipeline.core.errors import ForewatchError, InputError, SourceError, StorageUnavailable
from pipeline.core.secret_text import hide_in_urls
from pipeline.jobs.dask_workers import ClusterUnavailable, DaskWorkers
from pipeline.observability.progress_bar import Progress
from pipeline.services.backfill_plan import BackfillPlan
from pipeline.services.backfill_shard import (
    ShardReport,
    ShardTaken,
    ShardTask,
    done_report,
    file_problem,
    reader_of,
    run_shard,
    version_problem,
    versions_here,
)
from storage.sql.database import Database
from storage.stream_state import backfill_shards
from storage.stream_state import reader as stored_readers

if TYPE_CHECKING:
    from distributed import Client, Future

log = structlog.get_logger(__name__)

#: Interval at which the progress is read from the database.
LOOK_SECONDS = 1.0
#: Time in which the first worker must be there.
WORKER_SECONDS = 60.0
#: Time without a scheduler after which the command ends; it continues where it was when it is run again.
RECONNECT_SECONDS = 120.0
#: The same without a worker, whose start takes minutes on a busy machine.
WORKERLESS_SECONDS = 300.0
#: Attempts at one part whose worker process ends: it may need more memory than there is.
MAX_ATTEMPTS = 6


@dataclass(slots=True)
class ClusterSession:
    """The parts of one run of the command on their cluster."""

    database: Database
    cluster: DaskWorkers
    tasks: Sequence[ShardTask]
    plan: BackfillPlan
    progress: Progress
    workers: int = 0
    resumed: int = 0
    restarts: int = 0
    _done: dict[int, ShardReport] = field(default_factory=dict)
    _futures: dict[int, Future] = field(default_factory=dict)
    _attempts: Counter[int] = field(default_factory=Counter)
    _shown: float = 0.0
    _manned: float = 0.0
    _reported: float = 0.0

    def run(self) -> list[ShardReport]:
        """Return the reports of all parts.

        Raises the error of a part, and ClusterUnavailable.
        """
        self._take_done()
        self.resumed = len(self._done)
        lost_at: float | None = None
        while len(self._done) < len(self.tasks):
            try:
                self._connect()
                lost_at = None
                self._watch()
            except (ClusterUnavailable, OSError, TimeoutError) as error:
                if not self.workers:
                    raise
                lost_at = lost_at or time.monotonic()
                self._lose_scheduler(error, lost_at)
        self._show()
        return [self._done[task.shard.number] for task in self.tasks]

    def _connect(self) -> None:
        """Connect, check the workers once, and submit parts."""
        client = self.cluster.client()
        if not self.workers:
            self.workers = _check_workers(client, self.tasks)
        self._manned = time.monotonic()
        self._fill(client)

    def _fill(self, client: Client) -> None:
        """Submit a part for each idle thread of the workers, the longest first.

        A part that waits at a worker would count as lost when another one ends its process.
        """
        open_tasks = [
            task
            for task in self.tasks
            if task.shard.number not in self._done and task.shard.number not in self._futures
        ]
        room = self._threads(client) - len(self._futures)
        order = sorted(open_tasks, key=lambda task: -self.plan.cost.seconds(task.shard))
        for task in order[: max(room, 0)]:
            self._submit(client, task)

    def _threads(self, client: Client) -> int:
        """Return the number of threads of all workers, at least 1.

        Raises SourceError when there has been no worker for ``WORKERLESS_SECONDS``.
        """
        threads = sum(client.nthreads().values())
        if threads:
            self._manned = time.monotonic()
        elif time.monotonic() - self._manned > WORKERLESS_SECONDS:
            raise SourceError(
                f"the cluster has had no worker for {WORKERLESS_SECONDS:.0f} s; {len(self._done)} of "
                f"{len(self.tasks)} parts are done: look at the logs of the workers, and run the same "
                "command again to go on"
            )
        return max(threads, 1)

    def _submit(self, client: Client, task: ShardTask) -> None:
        number = task.shard.number
        self._attempts[number] += 1
        self._futures[number] = client.submit(
            run_task,
            task,
            key=f"forewatch-{task.run}-{number}-{os.getpid()}-{self._attempts[number]}",
            pure=False,
        )

    def _watch(self) -> None:
        """Wait until all parts are done.

        Raises ClusterUnavailable when the scheduler is lost.
        """
        while self._futures:
            time.sleep(0.1)
            ended = [(number, future) for number, future in self._futures.items() if future.done()]
            for number, future in ended:
                self._take(number, future)
            if not self.cluster.alive():
                raise ClusterUnavailable("the connection to the Dask scheduler is lost")
            shown = time.monotonic() - self._shown >= LOOK_SECONDS
            if shown:
                self._show()
            if ended or shown:
                self._fill(self.cluster.client())

    def _take(self, number: int, future: Future) -> None:
        """Take the result of a part; one whose process ended is submitted again."""
        del self._futures[number]
        if future.status == "finished":
            self._done[number] = future.result()
            return
        error = future.exception() if future.status == "error" else None
        if isinstance(error, ForewatchError):
            raise error
        if isinstance(error, ShardTaken) or future.status != "error" or _is_loss(error):
            self._again(number, error)
            return
        raise SourceError(f"part {number} of the backfill failed: {type(error).__name__}: {error}") from error

    def _again(self, number: int, error: BaseException | None) -> None:
        if self._attempts[number] >= MAX_ATTEMPTS:
            first = self.tasks[number].shard.parts[0].topic
            raise SourceError(
                f"part {number} of the backfill ({first}) ended its worker {MAX_ATTEMPTS} times; "
                "look for a lack of memory in the logs of the workers, then run the same command again"
            )
        log.warning(
            "a part of the backfill is started again", part=number, reason=str(error or "lost worker")
        )
        self.restarts += 1

    def _lose_scheduler(self, error: Exception, lost_at: float) -> None:
        """Wait for the scheduler.

        Raises ClusterUnavailable after ``RECONNECT_SECONDS``.
        """
        self._futures.clear()
        self.cluster.close()
        self._take_done()
        if time.monotonic() - lost_at > RECONNECT_SECONDS:
            raise ClusterUnavailable(
                f"{hide_in_urls(str(error))}; {len(self._done)} of {len(self.tasks)} parts are done: "
                "start the scheduler, and run the same command again to go on"
            )
        self.restarts += 1
        log.warning("the Dask scheduler is lost; waiting for it", error=hide_in_urls(str(error)))
        time.sleep(LOOK_SECONDS)

    def _take_done(self) -> None:
        with self.database.read() as connection:
            stored = backfill_shards.of_run(connection, self.plan.run)
        for one in stored:
            if one.done:
                self._done.setdefault(one.shard, done_report(one))

    def _show(self) -> None:
        """Report the progress of all parts, from the database."""
        self._shown = time.monotonic()
        try:
            with self.database.read() as connection:
                read = stored_readers.progress(connection, reader_of(self.plan.stream, self.plan.run))
        except StorageUnavailable:
            return
        rows = self._rows(read)
        if rows > self._reported:
            self.progress.advance(rows - self._reported)
            self._reported = rows

    def _rows(self, read: Mapping[str, int]) -> float:
        """Return the rows that are scored; of a divided file each part has its share."""
        rows = 0.0
        for task in self.tasks:
            shard = task.shard
            share = 1.0 if shard.number in self._done else read.get(task.reader, 0) / max(shard.rows_read, 1)
            rows += shard.rows * min(share, 1.0)
        return rows * self.plan.rows / max(sum(task.shard.rows for task in self.tasks), 1)


def run_task(task: ShardTask) -> ShardReport:
    """Run a part in a Dask worker."""
    from pipeline.observability.log_setup import configure_logs

    configure_logs(os.environ.get("FOREWATCH_LOG_LEVEL", "warning"))
    return run_shard(task)


def worker_problem(tasks: Sequence[ShardTask]) -> str:
    """Return the reason why this worker cannot run the parts, "" if it can."""
    first = tasks[0]
    if problem := version_problem(first.versions, versions_here()):
        return f"a worker has another version: {problem}"
    return (
        "" if first.files is None else file_problem([one.shard for one in tasks], first.config, first.stream)
    )


def _check_workers(client: Client, tasks: Sequence[ShardTask]) -> int:
    """Return the number of workers.

    Raises InputError if there is none, or one cannot run the parts.
    """
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError:
        raise InputError(
            f"the Dask scheduler has had no worker for {WORKER_SECONDS:.0f} s; "
            "start one: forewatch worker --scheduler ADDRESS"
        ) from None
    answers = client.run(worker_problem, list(tasks), on_error="return")
    for address, answer in answers.items():
        if isinstance(answer, ImportError | AttributeError):
            raise InputError(
                f"the worker {hide_in_urls(address)} has no forewatch of this version "
                f"({answer}); install {_ours()} there"
            )
        if isinstance(answer, BaseException):
            raise InputError(f"the worker {hide_in_urls(address)} cannot start: {answer}")
        if answer:
            raise InputError(f"{answer} (worker {hide_in_urls(address)})")
    return len(answers)


def _ours() -> str:
    return f"forewatch {versions_here()['forewatch']}"


def _is_loss(error: BaseException | None) -> bool:
    """Return True for an error of the cluster, not of the part."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    return isinstance(error, KilledWorker | FutureCancelledError | OSError)
