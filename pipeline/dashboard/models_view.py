"""Data of the page *Models*: champion, versions, jobs, detection power."""

from __future__ import annotations

from typing import Any

from pipeline.core.errors import InputError
from pipeline.dashboard.source import ViewSource
from pipeline.dashboard.words import MS
from pipeline.monitoring.detection_power import summaries
from storage.model_store import jobs, models, monitor_state
from storage.model_store.jobs import Job
from storage.model_store.models import ModelVersion

MAX_VERSIONS = 30
MAX_JOBS = 30


def models_view(source: ViewSource, stream: str | None) -> dict[str, Any]:
    """Return the models of one stream, by default of the first.

    Raises:
        InputError: the config has no such stream.
    """
    name = stream or next(iter(source.config.streams))
    if name not in source.config.streams:
        raise InputError(f"there is no stream {name} in the config")
    with source.database.read() as connection:
        champion = models.current_champion(connection, name)
        versions = models.query(connection, stream=name, limit=MAX_VERSIONS)
        changes = models.promotions(connection, name, MAX_VERSIONS)
        recent = jobs.query(connection, stream=name, limit=MAX_JOBS)
        power = monitor_state.power(connection, name)
    configured = source.config.streams[name]
    return {
        "streams": list(source.config.streams),
        "stream": name,
        "detector": configured.detector,
        "preset": configured.preset,
        "decision": configured.decision,
        "champion": champion.to_version,
        "pinned": champion.pinned,
        "versions": _versions(versions),
        "changes": [
            {
                "action": str(one.action),
                "to": one.to_version,
                "author": one.author,
                "reason": one.reason,
                "created_ms": one.created_ns // MS,
            }
            for one in changes
        ],
        "jobs": _jobs(recent),
        "power": [one.as_dict() for one in summaries(power)],
    }


def _versions(versions: list[ModelVersion]) -> list[dict[str, Any]]:
    return [
        {
            "version": one.version,
            "state": str(one.state),
            "parent": one.parent,
            "author": one.author,
            "reason": one.reason,
            "created_ms": one.created_ns // MS,
            "evidence": {
                key: card["text"]
                for key, card in one.evidence.items()
                if isinstance(card, dict) and "text" in card
            },
        }
        for one in versions
    ]


def _jobs(recent: list[Job]) -> list[dict[str, Any]]:
    return [
        {
            "id": one.id,
            "kind": str(one.kind),
            "state": str(one.state),
            "trigger": str(one.trigger),
            "reason": one.reason or one.error or "",
            "progress": {k: v for k, v in one.progress.items() if isinstance(v, int | float | str)},
            "created_ms": one.created_ns // MS,
            "finished_ms": None if one.finished_ns is None else one.finished_ns // MS,
        }
        for one in recent
    ]
