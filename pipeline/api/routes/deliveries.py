"""Deliveries of messages to endpoints, with their attempts."""

from __future__ import annotations

from dataclasses import asdict
from time import time_ns
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import Connection

from pipeline.access import audited_changes
from pipeline.api.context import ApiContext, Context, ListFilter, Name, Page
from pipeline.api.direct_answers import api_router, shared
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_time
from storage.alerting import deliveries, delivery_queue
from storage.alerting.deliveries import Delivery
from storage.alerting.states import DeliveryState

router = api_router(tags=["deliveries"])


class DeliveryItem(BaseModel):
    """One message on its way to one endpoint."""

    id: UUID
    alert_id: UUID
    notification_id: UUID
    endpoint: str
    kind: str
    state: DeliveryState
    reason: str | None
    attempts: int
    created: str | None
    finished: str | None


class Attempt(BaseModel):
    """One attempt of a delivery."""

    attempt: int
    started: str | None
    outcome: str
    status: int | None
    seconds: float
    answer: str


class DeliveryDetail(DeliveryItem):
    """One delivery with every attempt; the payload is null if no longer stored."""

    log: list[Attempt]
    payload: str | None


class RedeliverRequest(BaseModel):
    """With ``force``, also if the alert has delivered a newer message."""

    force: bool = False


class DeliveryFilter(ListFilter):
    """Deliveries to one endpoint or to all."""

    endpoint: Name | None = None
    state: DeliveryState | None = None


@router.get("/deliveries")
@shared
def list_deliveries(context: Context, query: Annotated[DeliveryFilter, Query()]) -> Page[DeliveryItem]:
    """Return deliveries, the newest first."""
    with context.database.read() as connection:
        bounds = query.bounds(context, int, int, str, UUID)
        found = deliveries.page(connection, bounds, endpoint=query.endpoint, state=query.state)
    return query.page(found, delivery_item, lambda one: (one.created_ns, one.sequence, one.endpoint, one.id))


@router.get("/deliveries/{delivery_id}")
def read_delivery(context: Context, delivery_id: UUID) -> DeliveryDetail:
    """Return one delivery with its attempts and payload."""
    with context.database.read() as connection:
        found = [_delivery(context, connection, delivery_id)]
        log = deliveries.attempts_of(connection, delivery_id)
        payload = deliveries.body_of(connection, found[0].notification_id)
    attempts = [
        Attempt(
            **{name: one[name] for name in ("attempt", "outcome", "status", "answer")},
            started=show_time(one["started_ns"]),
            seconds=one["latency_ns"] / 1e9,
        )
        for one in log
    ]
    return DeliveryDetail(**delivery_item(found[0]).model_dump(), log=attempts, payload=payload)


@router.post("/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(context: Context, delivery_id: UUID, request: RedeliverRequest) -> DeliveryDetail:
    """Queue a finished delivery again.

    It keeps its id, so that its receiver can drop a repeat.
    """
    with context.database.begin() as connection:
        before = _delivery(context, connection, delivery_id)
        if not delivery_queue.redeliver(connection, [delivery_id], time_ns(), force=request.force):
            raise InputError(
                f"delivery {delivery_id} is pending, or its alert has delivered a newer message; "
                "`force` sends it in the second case"
            )
        stream = deliveries.stream_of(connection, before)
        context.record(connection, audited_changes.redelivered(before, stream, request.force))
    return read_delivery(context, delivery_id)


def _delivery(context: ApiContext, connection: Connection, delivery_id: UUID) -> Delivery:
    missing = f"there is no delivery {delivery_id}"
    found = deliveries.with_prefix(connection, delivery_id.hex)
    if not found:
        raise InputError(missing)
    if context.visible is not None:
        context.require_visible(deliveries.stream_of(connection, found[0]) or "", missing)
    return found[0]


def delivery_item(one: Delivery) -> DeliveryItem:
    """Return a delivery as the API shows it."""
    times = {"created": show_time(one.created_ns), "finished": show_time(one.finished_ns)}
    return DeliveryItem(**asdict(one) | times)
