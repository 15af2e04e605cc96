"""Messages and pages of each stream, beside its budget."""

from __future__ import annotations

from time import time_ns

from pydantic import BaseModel, Field

from pipeline.api.context import Context, Page
from pipeline.api.direct_answers import api_router, shared
from pipeline.core.durations import DAY_NS
from storage.alerting.overview import StreamTotals, totals_of_streams

router = api_router(tags=["alerts"])


class BudgetItem(BaseModel):
    """Messages of one stream in the last 24 hours, and its budget of pages."""

    stream: str
    per_day: float | None = Field(description="pages a day that the budget allows; null without a budget")
    team: str | None = Field(description="streams of the same team share one budget")
    alerts: int = Field(description="alerts of the last 24 hours, also those without a message")
    pages: int = Field(description="alerts of the last 24 hours that paged")
    messages: int = Field(description="messages of the last 24 hours, updates and ends among them")


@router.get("/budgets")
@shared
def list_budgets(context: Context) -> Page[BudgetItem]:
    """Return what each stream used of its budget in the last 24 hours."""
    with context.database.read() as connection:
        totals = totals_of_streams(connection, time_ns() - DAY_NS, context.visible)
    items = []
    for name, stream in context.config.streams.items():
        budget = stream.alerts.budget
        counted = totals.get(name, StreamTotals())
        per_day, team = (None, None) if budget is None else (budget.per_day, budget.team)
        items.append(BudgetItem(stream=name, per_day=per_day, team=team, **counted._asdict()))
    return Page(items=items)
