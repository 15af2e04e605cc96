"""The delivery loop: routes the outbox, claims what is due, sends it, and records every attempt.

    route ─► claim ─► send (outside of any transaction) ─► record ─► …

The database work is done in one thread, the calls on an event loop beside it: an endpoint that hangs costs a
slot of its own and nothing else. At most ``in_flight`` calls an endpoint are on their way; what is not
claimed stays in the database, so a backlog of any length needs no memory. If this process dies, what it had
in hand is sent again by another one, with the same id.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import structlog

from pipeline.alerts.delivery.delivery_log import Operations
from pipeline.alerts.delivery.endpoint_health import EndpointHealth
from pipeline.alerts.delivery.retry import delay
from pipeline.alerts.delivery.senders import sender_of
from pipeline.alerts.delivery.worker_heartbeats import Workers
from pipeline.alerts.messages.payload import decode
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.routing.router import Router
from pipeline.alerts.transport.base import Message, Outcome, Picture, Sender
from pipeline.config.endpoints import EndpointBase
from pipeline.core.durations import SECOND_NS
from pipeline.core.errors import StorageUnavailable
from storage.alerting import alerts, deliveries
from storage.alerting.deliveries import Attempt, Claimed
from storage.sql.database import Database

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.05
_DATABASE_AWAY_SECONDS = 1.0
_CLAIM_MOST = 256  # deliveries in hand that were not sent yet would only be in the way of other workers


class DeliveryLoop:
    """Delivers for one configuration; ``run`` blocks until ``stop`` is set.

    ``clock`` gives ns since the epoch.
    """

    def __init__(
        self,
        database: Database,
        router: Router,
        endpoints: Mapping[str, EndpointBase],
        metrics: AlertMetrics,
        *,
        picture: Picture = lambda _: None,
        clock: Callable[[], int] = time.time_ns,
        sender: Callable[[EndpointBase, Picture], Sender] = sender_of,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._picture = picture
        self._clock = clock
        self._make_sender = sender
        self._workers = Workers(database, alone=database.dialect == "sqlite")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="alerts")
        self._results: list[tuple[Claimed, Attempt, Outcome]] = []
        self._senders: dict[str, Sender] = {}
        self._router, self._endpoints = router, dict(endpoints)
        self._next: tuple[Router, Mapping[str, EndpointBase]] | None = (router, endpoints)
        self._operations: Operations | None = None
        self._health: dict[str, EndpointHealth] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, router: Router, endpoints: Mapping[str, EndpointBase], picture: Picture) -> None:
        """Take another configuration from the next turn on.

        What is pending for an endpoint that is gone is suppressed.
        """
        self._next, self._picture = (router, endpoints), picture

    def run(self, stop: threading.Event) -> None:
        asyncio.run(self._main(stop))

    async def turn(self) -> bool:
        """One turn: record what came back, route, claim, begin to send.

        Returns whether there was anything to do.
        """
        loop = asyncio.get_running_loop()
        results, self._results = self._results, []
        try:
            if self._next is not None:
                await self._take_configuration(*self._next)
            claimed, busy = await loop.run_in_executor(self._thread, self._database_work, results)
        except StorageUnavailable as error:
            self._results = [*results, *self._results]
            log.warning("the database is away; deliveries wait", error=str(error))
            await asyncio.sleep(_DATABASE_AWAY_SECONDS)
            return False
        for one in claimed:
            task = loop.create_task(self._send(one))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return busy

    async def settle(self) -> None:
        """Wait for the calls on their way and record what came of them."""
        while self._tasks or self._results:
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self.turn()

    async def close(self) -> None:
        """Cancel what is on its way; it is sent again later, by whoever delivers then."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sender in self._senders.values():
            await sender.close()
        self._thread.shutdown()

    async def _main(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                busy = await self.turn()
                if not busy and not self._results:
                    await self._rest()
            await self._drain()
        finally:
            await self.close()

    async def _rest(self) -> None:
        """Until something came back, or it is time to look into the database again."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(POLL_SECONDS)

    async def _drain(self) -> None:
        """Give the calls on their way a moment, record them, and leave."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)
        results, self._results = self._results, []
        with_results = asyncio.get_running_loop().run_in_executor(self._thread, self._leave, results)
        try:
            await with_results
        except StorageUnavailable as error:
            log.warning("the database is away; another process will free what was in hand", error=str(error))

    async def _take_configuration(self, router: Router, endpoints: Mapping[str, EndpointBase]) -> None:
        for name in [
            name
            for name, config in self._endpoints.items()
            if endpoints.get(name) != config and name in self._senders
        ]:
            await self._senders.pop(name).close()
        for name in self._health.keys() - endpoints.keys():
            del self._health[name]
        self._router, self._endpoints = router, dict(endpoints)
        operations = Operations(
            self._database, router, self._endpoints, self._health, self._workers.me, self._metrics
        )
        await asyncio.get_running_loop().run_in_executor(self._thread, operations.begin, self._clock())
        self._operations, self._next = operations, None
        for name, config in self._endpoints.items():
            if name not in self._senders:
                self._senders[name] = self._make_sender(config, self._picture)

    def _database_work(self, results: list[tuple[Claimed, Attempt, Outcome]]) -> tuple[list[Claimed], bool]:
        """Everything of a turn that touches the database; in its own thread."""
        assert self._operations is not None
        now_ns = self._clock()
        if self._workers.beat(now_ns):
            self._operations.refresh(now_ns)
        if results:
            self._operations.record(results, now_ns)
        routed = self._route(now_ns)
        claimed = self._claim(now_ns)
        return claimed, bool(results) or routed or bool(claimed)

    def _route(self, now_ns: int) -> bool:
        with self._database.read() as connection:
            streams = alerts.streams_with_work(connection, self._router.streams, now_ns)
        disabled = [name for name, health in self._health.items() if health.disabled]
        for stream in streams:
            with self._database.begin() as connection:
                turn = self._router.turn(connection, stream, now_ns, disabled)
            self._metrics.routed(stream, turn)
        return bool(streams)

    def _claim(self, now_ns: int) -> list[Claimed]:
        room = {name: min(health.free(now_ns), _CLAIM_MOST) for name, health in self._health.items()}
        if not any(room.values()):
            return []
        with self._database.read() as connection:
            due = deliveries.due(connection, room, now_ns)
        if not due:
            return []
        with self._database.begin() as connection:
            claimed = deliveries.claim(connection, self._workers.me, due, now_ns)
        for one in claimed:
            self._health[one.endpoint].sending(now_ns)
        return claimed

    def _leave(self, results: list[tuple[Claimed, Attempt, Outcome]]) -> None:
        assert self._operations is not None
        self._operations.record(results, self._clock())
        self._workers.leave(self._clock())

    async def _send(self, claimed: Claimed) -> None:
        started_ns, began = self._clock(), time.perf_counter_ns()
        attempted = datetime.fromtimestamp(started_ns / SECOND_NS, UTC)
        message = Message(claimed.id, claimed.lane, claimed.body.encode(), decode(claimed.body), attempted)
        sender = self._senders.get(claimed.endpoint)
        if sender is None:
            outcome = Outcome(False, "the endpoint is not configured any more")
        else:
            outcome = await sender.send(message)
        attempt = _attempt(claimed, outcome, started_ns, time.perf_counter_ns() - began, self._clock())
        self._results.append((claimed, attempt, outcome))


def _attempt(claimed: Claimed, outcome: Outcome, started_ns: int, latency_ns: int, now_ns: int) -> Attempt:
    """What is recorded of one call, and when the next one is due."""
    count = claimed.attempts + 1
    pause = (
        None
        if outcome.delivered
        else delay(count, (now_ns - claimed.created_ns) / SECOND_NS, outcome.retry_after_s)
    )
    state = "delivered" if outcome.delivered else "pending" if pause is not None else "dead"
    return Attempt(
        delivery=claimed.id,
        endpoint=claimed.endpoint,
        lane=claimed.lane,
        attempt=count,
        started_ns=started_ns,
        latency_ns=latency_ns,
        outcome="delivered" if outcome.delivered else "lost" if outcome.unanswered else "failed",
        status=outcome.status,
        answer=outcome.answer,
        state=state,
        next_ns=None if pause is None else now_ns + round(pause * SECOND_NS),
        repeat=claimed.lost,
        reason="attempts" if state == "dead" else None,
    )
