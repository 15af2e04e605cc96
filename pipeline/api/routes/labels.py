"""Labels that people gave anomalies."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel

from pipeline.api.context import Context, ListFilter, Page
from pipeline.api.direct_answers import api_router
from pipeline.core.iso_times import show_time
from storage.results import labels
from storage.results.labels import Label, LabelledAnomaly

router = api_router(tags=["anomalies"])


class LabelItem(BaseModel):
    """Last label of one anomaly."""

    anomaly_id: UUID
    stream: str
    series: str
    label: Label
    author: str
    comment: str
    at: str | None


@router.get("/labels")
def list_labels(context: Context, query: Annotated[ListFilter, Query()]) -> Page[LabelItem]:
    """Return labels of anomalies, the newest first."""
    with context.database.read() as connection:
        found = labels.page(connection, query.bounds(context, int, UUID))
    return query.page(found, _label, lambda one: (one.review.created_ns, one.anomaly_id))


def _label(one: LabelledAnomaly) -> LabelItem:
    return LabelItem(
        anomaly_id=one.anomaly_id,
        stream=one.stream,
        series=one.series,
        label=one.review.label,
        author=one.review.author,
        comment=one.review.comment,
        at=show_time(one.review.created_ns),
    )
