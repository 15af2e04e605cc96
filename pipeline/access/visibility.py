"""Streams that a key or session sees: those named, and those of its teams."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.config.diagnostics import closest
from pipeline.config.schema import Config
from pipeline.core.errors import InputError


def visible_streams(
    config: Config, streams: Collection[str], teams: Collection[str]
) -> frozenset[str] | None:
    """Return the streams of a key; None for all, also those of earlier configs."""
    if not streams and not teams:
        return None
    of_teams = (name for name, one in config.streams.items() if one.team is not None and one.team in teams)
    return frozenset(streams).union(of_teams)


def require_known(config: Config, streams: Collection[str], teams: Collection[str]) -> None:
    """Raise InputError for a stream or team that the config does not name."""
    known = sorted({one.team for one in config.streams.values() if one.team is not None})
    for name in streams:
        if name not in config.streams:
            raise InputError(f"the config has no stream {name!r}: {closest(name, config.streams)}")
    for name in teams:
        if name not in known:
            remedy = closest(name, known) if known else "write `team: NAME` into the config of a stream"
            raise InputError(f"no stream of the config has the team {name!r}: {remedy}")
