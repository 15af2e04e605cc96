"""Delivery loop: routes the outbox, claims deliveries that are due, sends them, and records every attempt.

    route ─► claim ─► send (outside of any transaction) ─► record ─► …

One thread does the work on the database, an event loop does the calls: an endpoint that hangs takes slots of
its own and does not delay others. There are at most ``in_flight`` calls to an endpoint. Deliveries that are
not claimed stay in the database, so the length of a backlog does not matter for memory. If this process dies,
another one sends its claimed deliveries again, with the same id.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import structlog

from pipeline.alerts.delivery.delivery_log import DeliveryLog
from pipeline.alerts.delivery.endpoint_health import EndpointHealth
from pipeline.alerts.delivery.retry import retry_delay
from pipeline.alerts.delivery.senders import sender_of
from pipeline.alerts.delivery.worker_heartbeats import WorkerHeartbeats
from pipeline.alerts.messages.payload import decode
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.routing.router import Router
from pipeline.alerts.transport.base import DeliveryResult, DrawChart, Message, Sender
from pipeline.config.endpoints import EndpointConfig
from pipeline.core.durations import SECOND_NS
from pipeline.core.errors import StorageUnavailable
from storage.alerting import delivery_queue, outbox
from storage.alerting.delivery_queue import ClaimedDelivery, DeliveryAttempt
from storage.alerting.states import AttemptOutcome, DeliveryReason, DeliveryState
from storage.sql.database import Database

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.05
_DATABASE_RETRY_SECONDS = 1.0
_ROUTE_RETRY_SECONDS = 60.0
_MAX_CLAIMED_PER_ENDPOINT = 256  # claimed deliveries are not available to other workers


class DeliveryLoop:
    """Deliveries of one configuration.

    ``clock`` returns ns since the epoch; ``picture`` draws the chart of a payload.
    """

    def __init__(
        self,
        database: Database,
        router: Router,
        endpoints: Mapping[str, EndpointConfig],
        metrics: AlertMetrics,
        *,
        picture: DrawChart = lambda _: None,
        clock: Callable[[], int] = time.time_ns,
        sender: Callable[[EndpointConfig, DrawChart], Sender] = sender_of,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._picture = picture
        self._clock = clock
        self._make_sender = sender
        self._heartbeats = WorkerHeartbeats(database, alone=database.dialect == "sqlite")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="alerts")
        self._results: list[tuple[ClaimedDelivery, DeliveryAttempt, DeliveryResult]] = []
        self._senders: dict[str, Sender] = {}
        self._router, self._endpoints = router, dict(endpoints)
        self._next: tuple[Router, Mapping[str, EndpointConfig]] | None = (router, endpoints)
        self._delivery_log: DeliveryLog | None = None
        self._health: dict[str, EndpointHealth] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unroutable_until: dict[str, float] = {}  # stream → monotonic seconds

    def configure(self, router: Router, endpoints: Mapping[str, EndpointConfig], picture: DrawChart) -> None:
        """Use another configuration from the next cycle on.

        Pending deliveries to an endpoint that was removed are suppressed.
        """
        self._next, self._picture = (router, endpoints), picture

    def run(self, stop: threading.Event) -> None:
        """Deliver until ``stop`` is set."""
        asyncio.run(self._main(stop))

    async def run_cycle(self) -> bool:
        """Record finished attempts, route, claim, and begin to send.

        Returns whether there was anything to do.
        """
        loop = asyncio.get_running_loop()
        results, self._results = self._results, []
        try:
            if self._next is not None:
                await self._apply_configuration(*self._next)
            claimed, busy = await loop.run_in_executor(self._thread, self._database_work, results)
        except StorageUnavailable as error:
            self._results = [*results, *self._results]
            log.warning("database unavailable; deliveries wait", error=str(error))
            await asyncio.sleep(_DATABASE_RETRY_SECONDS)
            return False
        for one in claimed:
            task = loop.create_task(self._send(one))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return busy

    async def finish_calls(self) -> None:
        """Wait for the calls in flight and record their results."""
        while self._tasks or self._results:
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self.run_cycle()

    async def close(self) -> None:
        """Cancel the calls in flight; their deliveries are sent again later."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sender in self._senders.values():
            await sender.close()
        self._thread.shutdown()

    async def _main(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                busy = await self.run_cycle()
                if not busy and not self._results:
                    await self._wait_for_work()
            await self._drain()
        finally:
            await self.close()

    async def _wait_for_work(self) -> None:
        """Wait for a result, or until the database is polled again."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(POLL_SECONDS)

    async def _drain(self) -> None:
        """Wait a moment for the calls in flight, record them, and free the queues of this process."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)
        results, self._results = self._results, []
        leaving = asyncio.get_running_loop().run_in_executor(self._thread, self._leave, results)
        try:
            await leaving
        except StorageUnavailable as error:
            log.warning(
                "database unavailable; another process will free the claimed deliveries", error=str(error)
            )

    async def _apply_configuration(self, router: Router, endpoints: Mapping[str, EndpointConfig]) -> None:
        for name in [
            name
            for name, config in self._endpoints.items()
            if endpoints.get(name) != config and name in self._senders
        ]:
            await self._senders.pop(name).close()
        for name in self._health.keys() - endpoints.keys():
            del self._health[name]
        self._router, self._endpoints = router, dict(endpoints)
        operations = DeliveryLog(
            self._database, router, self._endpoints, self._health, self._heartbeats.me, self._metrics
        )
        await asyncio.get_running_loop().run_in_executor(self._thread, operations.begin, self._clock())
        self._delivery_log, self._next = operations, None
        for name, config in self._endpoints.items():
            if name not in self._senders:
                self._senders[name] = self._make_sender(config, self._picture)

    def _database_work(
        self, results: list[tuple[ClaimedDelivery, DeliveryAttempt, DeliveryResult]]
    ) -> tuple[list[ClaimedDelivery], bool]:
        """Do the part of a cycle that uses the database, in its own thread."""
        assert self._delivery_log is not None
        now_ns = self._clock()
        if self._heartbeats.heartbeat(now_ns):
            self._delivery_log.refresh(now_ns)
        if results:
            self._delivery_log.record(results, now_ns)
        routed = self._route(now_ns)
        claimed = self._claim(now_ns)
        return claimed, bool(results) or routed or bool(claimed)

    def _route(self, now_ns: int) -> bool:
        with self._database.read() as connection:
            streams = outbox.streams_with_work(connection, self._router.streams, now_ns)
        disabled = [name for name, health in self._health.items() if health.disabled]
        now_s = time.monotonic()
        for stream in streams:
            if now_s < self._unroutable_until.get(stream, 0.0):
                continue
            try:
                with self._database.begin() as connection:
                    routed = self._router.route(connection, stream, now_ns, disabled)
            except StorageUnavailable:
                raise
            except Exception:
                # All state is in the database; the alerts of other streams must not wait for this one.
                log.exception("alerts of a stream cannot be routed; tried again", stream=stream)
                self._unroutable_until[stream] = now_s + _ROUTE_RETRY_SECONDS
                continue
            self._metrics.routed(stream, routed)
        return any(now_s >= self._unroutable_until.get(stream, 0.0) for stream in streams)

    def _claim(self, now_ns: int) -> list[ClaimedDelivery]:
        slots = {
            name: min(health.free_slots(now_ns), _MAX_CLAIMED_PER_ENDPOINT)
            for name, health in self._health.items()
        }
        if not any(slots.values()):
            return []
        with self._database.read() as connection:
            due = delivery_queue.due(connection, slots, now_ns)
        if not due:
            return []
        with self._database.begin() as connection:
            claimed = delivery_queue.claim(connection, self._heartbeats.me, due, now_ns)
        for one in claimed:
            self._health[one.endpoint].record_send(now_ns)
        return claimed

    def _leave(self, results: list[tuple[ClaimedDelivery, DeliveryAttempt, DeliveryResult]]) -> None:
        assert self._delivery_log is not None
        self._delivery_log.record(results, self._clock())
        self._heartbeats.leave(self._clock())

    async def _send(self, claimed: ClaimedDelivery) -> None:
        started_ns, began = self._clock(), time.perf_counter_ns()
        try:
            result = await self._call(claimed, datetime.fromtimestamp(started_ns / SECOND_NS, UTC))
        except Exception as error:
            # Without a result the delivery would stay claimed, and its queue would wait for ever.
            log.exception("delivery fails unexpectedly", delivery=str(claimed.id), endpoint=claimed.endpoint)
            result = DeliveryResult(False, f"unexpected error: {type(error).__name__}", unanswered=True)
        attempt = _attempt(claimed, result, started_ns, time.perf_counter_ns() - began, self._clock())
        self._results.append((claimed, attempt, result))

    async def _call(self, claimed: ClaimedDelivery, attempted: datetime) -> DeliveryResult:
        message = Message(claimed.id, claimed.queue, claimed.body.encode(), decode(claimed.body), attempted)
        sender = self._senders.get(claimed.endpoint)
        if sender is None:
            return DeliveryResult(False, "the endpoint is not configured any more")
        return await sender.send(message)


def _attempt(
    claimed: ClaimedDelivery, result: DeliveryResult, started_ns: int, latency_ns: int, now_ns: int
) -> DeliveryAttempt:
    """Return the record of one call, with the time of the next one."""
    count = claimed.attempts + 1
    pause = (
        None
        if result.delivered
        else retry_delay(count, (now_ns - claimed.created_ns) / SECOND_NS, result.retry_after_s)
    )
    if result.delivered:
        state, outcome = DeliveryState.DELIVERED, AttemptOutcome.DELIVERED
    else:
        state = DeliveryState.PENDING if pause is not None else DeliveryState.DEAD
        outcome = AttemptOutcome.LOST if result.unanswered else AttemptOutcome.FAILED
    return DeliveryAttempt(
        delivery=claimed.id,
        endpoint=claimed.endpoint,
        queue=claimed.queue,
        attempt=count,
        started_ns=started_ns,
        latency_ns=latency_ns,
        outcome=outcome,
        status=result.status,
        answer=result.answer,
        state=state,
        next_ns=None if pause is None else now_ns + round(pause * SECOND_NS),
        repeat=claimed.lost,
        reason=DeliveryReason.ATTEMPTS_EXHAUSTED if state is DeliveryState.DEAD else None,
    )
