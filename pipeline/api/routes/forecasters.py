"""Forecasters of the series of a stream, by its newest recorded points."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
from fastapi import Path
from pydantic import BaseModel, Field

from detectors.base import FORECASTERS
from pipeline.api.context import ApiContext, Context, Page, require_stream
from pipeline.api.direct_answers import api_router
from pipeline.api.routes.fleet import MAX_SEGMENTS_READ
from storage.history.segments import DamagedSegment, Segment, SegmentStore, folder_of

router = api_router(tags=["models"])

MAX_EXAMPLES = 5
#: Longest age of an answer.
SHARED_SECONDS = 5.0

#: Series → (time in ns, index into ``FORECASTERS``) of its newest point.
Newest = dict[str, tuple[int, int]]


class ForecasterUse(BaseModel):
    """One forecaster, and the series whose newest point it forecast."""

    forecaster: str = Field(examples=["lstm"])
    series: int = Field(description="number of series")
    examples: list[str] = Field(description="some of them, by name")


@router.get("/streams/{stream}/forecasters")
def list_forecasters(context: Context, stream: Annotated[str, Path(max_length=500)]) -> Page[ForecasterUse]:
    """Return the active forecasters of a stream, the most frequent first.

    Of each series that one is active whose recent error is the smallest.
    """
    require_stream(context.config, stream)
    found: list[ForecasterUse] = context.shared_answer(
        f"forecasters {stream}", lambda: _uses(context, stream), SHARED_SECONDS
    )
    return Page(items=found)


def _uses(context: ApiContext, stream: str) -> list[ForecasterUse]:
    by_forecaster: dict[int, list[str]] = {}
    for series, (_, forecaster) in _newest(context, stream).items():
        by_forecaster.setdefault(forecaster, []).append(series)
    ordered = sorted(by_forecaster.items(), key=lambda one: (-len(one[1]), one[0]))
    return [
        ForecasterUse(forecaster=FORECASTERS[one], series=len(names), examples=sorted(names)[:MAX_EXAMPLES])
        for one, names in ordered
    ]


def _newest(context: ApiContext, stream: str) -> Newest:
    """Return the newest point of each series of the newest segments."""
    store, found = SegmentStore(context.config.history_path), Newest()
    try:
        listed = sorted(store.list(folder_of(stream)), key=lambda one: one.newest_ns, reverse=True)
        for segment in listed[:MAX_SEGMENTS_READ]:
            read = partial(_newest_of, store, segment)
            for series, point in context.segment_forecasters.get(segment.path, read).items():
                if series not in found or point[0] > found[series][0]:
                    found[series] = point
    except (OSError, DamagedSegment):
        return found  # the history is away, as the other pages say
    return found


def _newest_of(store: SegmentStore, segment: Segment) -> Newest:
    table = store.read(segment, columns=["series", "time", "guard"])
    if not table.num_rows or "guard" not in table.column_names:
        return {}
    series = table.column("series").unify_dictionaries().combine_chunks()
    time = table.column("time").to_numpy().astype(np.int64)
    forecaster = table.column("guard").to_numpy()
    order = np.argsort(time, kind="stable")
    newest = np.full(len(series.dictionary), -1, np.int64)
    newest[series.indices.to_numpy()[order]] = order  # of several rows of one series the last one stays
    names = series.dictionary.to_pylist()
    return {names[n]: (int(time[at]), int(forecaster[at])) for n, at in enumerate(newest) if at >= 0}
