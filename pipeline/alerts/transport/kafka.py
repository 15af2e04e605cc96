"""Kafka sender: the key is the queue, so that its messages stay in order, the value the payload."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.alerts.transport.base import DeliveryResult, Message, redacted
from pipeline.alerts.transport.signing import message_id
from pipeline.config.endpoints import KafkaEndpoint
from pipeline.config.kafka_security import client_security, secrets_of


class KafkaSender:
    """Sender with one idempotent producer that waits for all in-sync replicas.

    The producer is made at the first message, in a thread because that may block.
    """

    def __init__(self, endpoint: KafkaEndpoint) -> None:
        self._endpoint = endpoint
        self._producer: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-alerts")

    async def send(self, message: Message) -> DeliveryResult:
        timeout = self._endpoint.timeout.total_seconds()
        try:
            async with asyncio.timeout(timeout):
                return await self._produce(message)
        except TimeoutError:
            return DeliveryResult(False, f"no answer from the brokers within {timeout:g} s", unanswered=True)

    async def close(self) -> None:
        if self._producer is not None:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: self._producer.close(timeout=2)
            )
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _produce(self, message: Message) -> DeliveryResult:
        from kafka.errors import KafkaError

        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = loop.create_future()
        try:
            sent = await loop.run_in_executor(self._thread, self._produce_blocking, message)
            sent.add_both(lambda *_: loop.call_soon_threadsafe(_finish, answered))
            await answered
            record = sent.get(timeout=0)
        except (KafkaError, ValueError, OSError) as error:
            return DeliveryResult(False, redacted(f"{type(error).__name__}: {error}", self._secrets()))
        return DeliveryResult(True, f"partition {record.partition}, offset {record.offset}")

    def _produce_blocking(self, message: Message) -> Any:
        if self._producer is None:
            from kafka import KafkaProducer

            endpoint = self._endpoint
            timeout = int(endpoint.timeout.total_seconds() * 1000)
            self._producer = KafkaProducer(
                bootstrap_servers=endpoint.brokers,
                acks="all",
                enable_idempotence=True,
                delivery_timeout_ms=timeout,
                request_timeout_ms=max(timeout // 2, 1000),
                max_block_ms=timeout,
                linger_ms=0,
                **client_security(endpoint.security, endpoint.password),
            )
        headers = [
            ("webhook-id", message_id(message.delivery).encode()),
            ("type", message.payload.type.encode()),
            ("content-type", b"application/json"),
        ]
        return self._producer.send(
            self._endpoint.topic, value=message.body, key=message.queue.encode(), headers=headers
        )

    def _secrets(self) -> list[str]:
        try:
            return list(secrets_of(self._endpoint.security, self._endpoint.password))
        except ValueError:
            return []


def _finish(answered: asyncio.Future[Any]) -> None:
    if not answered.done():
        answered.set_result(None)
