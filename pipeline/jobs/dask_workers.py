"""Where tasks are done: a Dask worker of our own on this machine, or the workers of a scheduler that the
config names.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog

from pipeline.config.retraining import Cluster, Tls
from pipeline.core.errors import ForewatchError
from pipeline.jobs import tasks
from pipeline.jobs.task_types import Task

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 10.0
#: How long a worker waits for its scheduler before it begins anew, and how long between two beginnings.
PATIENCE_SECONDS = 60.0
AGAIN_SECONDS = 2.0


class ClusterAway(ForewatchError):
    """The scheduler does not answer."""


class Workers:
    """The workers of one process; made on first use, closed when nothing is left to do, so that they hold no
    memory meanwhile.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._config = cluster
        self._client: Any = None
        self._stack = ExitStack()

    def submit(self, task: Task, told: Callable[[dict[str, Any]], None]) -> Any:
        """Hand ``task`` over; its future.

        ``told`` hears of its progress, in another thread. Raises ClusterAway.
        """
        client = self.client()
        client.subscribe_topic(task.topic, lambda event: told(event[1]))
        return client.submit(
            tasks.run,
            task,
            key=f"{task.topic}-{uuid4().hex[:8]}",
            pure=False,
            resources={"GPU": 1} if task.gpu else None,
        )

    def cancel(self, task: Task) -> None:
        """Ask it to end; it does so before its next chunk."""
        from distributed import Event

        Event(task.topic, client=self.client()).set()

    def gpus(self) -> int:
        """How many workers offer a GPU. Raises ClusterAway."""
        workers = self.client().scheduler_info(n_workers=-1)["workers"].values()
        return sum(bool(worker.get("resources", {}).get("GPU")) for worker in workers)

    def alive(self) -> bool:
        """The scheduler is still there."""
        return self._client is not None and self._client.status == "running"

    def client(self) -> Any:
        """Connected. Raises ClusterAway."""
        if self._client is None:
            try:
                self._client = self._connect() if self._config.scheduler else self._local()
            except (OSError, TimeoutError) as error:
                self.close()
                where = self._config.scheduler or "this machine"
                raise ClusterAway(
                    f"no Dask scheduler answers at {where}: {error}; start it, or change cluster.scheduler"
                ) from None
        return self._client

    def close(self) -> None:
        """Give everything back; the next use begins anew."""
        self._client = None
        self._stack.close()

    def _connect(self) -> Any:
        from distributed import Client

        security = security_of(self._config.tls)
        return self._stack.enter_context(
            Client(self._config.scheduler, timeout=CONNECT_SECONDS, security=security, set_as_default=False)
        )

    def _local(self) -> Any:
        """One worker process with one thread, which dies with us; what it leaves on the disk goes too."""
        import dask
        from distributed import Client, LocalCluster

        self._stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 0}))
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="forewatch-worker-", ignore_cleanup_errors=True)
        )
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            resources={"GPU": 1} if has_gpu() else None,
            local_directory=folder,
            silence_logs=logging.ERROR,
        )
        self._stack.enter_context(cluster)
        return self._stack.enter_context(Client(cluster, set_as_default=False))


def run_worker(scheduler: str, tls: Tls | None, gpu: bool) -> None:
    """Be a worker of ``scheduler`` until a signal ends it: a process with one thread, begun anew when it
    dies or the scheduler went away.
    """
    import asyncio
    import signal

    from distributed import Nanny

    async def work_for_it() -> None:
        resources = {"GPU": 1} if gpu else None
        async with Nanny(
            scheduler,
            nthreads=1,
            resources=resources,
            security=security_of(tls),
            death_timeout=PATIENCE_SECONDS,
        ) as nanny:
            await nanny.finished()

    async def live() -> None:
        stop = asyncio.create_task(_signalled(signal.SIGTERM, signal.SIGINT))
        while not stop.done():
            working = asyncio.create_task(work_for_it())
            await asyncio.wait([working, stop], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                working.cancel()
            (error,) = await asyncio.gather(working, return_exceptions=True)
            if not stop.done():
                log.warning(
                    "the Dask scheduler is away; trying again",
                    scheduler=scheduler,
                    error=str(error or "it ended"),
                )
                await asyncio.wait([stop], timeout=AGAIN_SECONDS)

    asyncio.run(live())


async def _signalled(*signals: int) -> None:
    """Return once one of ``signals`` came."""
    import asyncio

    came = asyncio.Event()
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, came.set)
    await came.wait()


def has_gpu() -> bool:
    """A GPU is there; asked of the driver's device files, because CUDA is touched in a worker only."""
    return Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def security_of(tls: Tls | None) -> Any:
    """Dask's settings for an encrypted cluster; None for a plain one."""
    from distributed.security import Security

    if tls is None:
        return None
    names = {
        "tls_ca_file": tls.ca,
        "tls_client_cert": tls.cert,
        "tls_client_key": tls.key,
        "tls_worker_cert": tls.cert,
        "tls_worker_key": tls.key,
    }
    return Security(require_encryption=True, **{name: str(path) for name, path in names.items()})
