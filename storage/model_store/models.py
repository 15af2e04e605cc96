"""Model versions, and the promotions that make one of them the champion of a stream.

The newest row of ``promotions`` names the champion of a stream; None stands for the packaged weights. Each
change of a champion is one row with the next sequence number. Of two concurrent changes the second one fails,
because its number is taken (``ChampionChanged``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, exists, select, update

from pipeline.core.errors import ForewatchError, InputError
from storage.sql.column_types import insert
from storage.sql.statements import Bounds, StreamChoice, of_streams, page_of, where_given
from storage.tables.models import ModelRow, PromotionRow
from storage.tables.stream import AnomalyRow


class ModelState(StrEnum):
    """States of a model version."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    CHAMPION = "champion"
    RETIRED = "retired"
    REJECTED = "rejected"


class PromotionAction(StrEnum):
    """Changes of a champion."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    PIN = "pin"
    UNPIN = "unpin"


class ChampionChanged(ForewatchError):
    """Another transaction changed or pinned the champion: the decision must be repeated."""


@dataclass(slots=True)
class ModelVersion:
    """One row of ``models``."""

    version: str
    stream: str
    path: str
    sha256: str
    state: str
    parent: str | None
    author: str
    created_ns: int
    changed_ns: int
    reason: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    job_id: int | None = None


@dataclass(slots=True)
class Promotion:
    """One change of a champion.

    ``sequence`` 0 is never stored: it stands for a stream without promotions.
    """

    stream: str
    sequence: int
    action: str
    from_version: str | None
    to_version: str | None
    pinned: bool
    author: str
    reason: str
    created_ns: int


_COLUMNS = [getattr(ModelRow, one.name) for one in fields(ModelVersion)]
_CHANGES = [getattr(PromotionRow, one.name) for one in fields(Promotion)]


def add(connection: Connection, model: ModelVersion) -> bool:
    """Store a new version; return False if it exists."""
    values = {one.name: getattr(model, one.name) for one in fields(ModelVersion)}
    statement = (
        insert(connection, ModelRow).values(values).on_conflict_do_nothing().returning(ModelRow.version)
    )
    return connection.execute(statement).scalar_one_or_none() is not None


def get(connection: Connection, prefix: str, stream: str | None = None) -> ModelVersion:
    """Return the version that begins with ``prefix``.

    Raises InputError if there is none, or more than one.
    """
    digits = prefix.lower()
    if not digits or set(digits) - set("0123456789abcdef"):
        raise InputError(
            f"{prefix!r} is not a version: give at least the first digits of one that `forewatch models list` shows"
        )
    statement = (
        select(*_COLUMNS)
        .where(ModelRow.version.between(digits, digits + "g"))
        .order_by(ModelRow.version)
        .limit(6)
    )
    if stream is not None:
        statement = statement.where(ModelRow.stream == stream)
    rows = connection.execute(statement).all()
    if not rows:
        raise InputError(f"there is no version {prefix}; list the versions with `forewatch models list`")
    if len(rows) > 1:
        raise InputError(
            f"several versions begin with {prefix}: {', '.join(row.version for row in rows[:5])}; give more digits"
        )
    return ModelVersion(*rows[0])


def query(
    connection: Connection, *, stream: StreamChoice = None, state: str | None = None, limit: int | None = None
) -> list[ModelVersion]:
    """Return versions, the newest first.

    Args:
        connection: a connection.
        stream: only versions of this stream.
        state: only versions in this ``ModelState``.
        limit: maximum number of versions.
    """
    return page(connection, Bounds(stream, limit=limit), state)


def page(connection: Connection, bounds: Bounds, state: str | None = None) -> list[ModelVersion]:
    """Return a part of the versions; ``bounds.after`` is (created, version)."""
    order = ((ModelRow.created_ns, True), (ModelRow.version, False))
    statement = where_given(
        page_of(select(*_COLUMNS), order, bounds.after, bounds.limit),
        (bounds.stream, of_streams(ModelRow.stream, bounds.stream)),
        (state, ModelRow.state == state),
        (bounds.since_ns, ModelRow.created_ns >= (bounds.since_ns or 0)),
        (bounds.until_ns, ModelRow.created_ns < (bounds.until_ns or 0)),
    )
    return [ModelVersion(*row) for row in connection.execute(statement)]


def set_state(
    connection: Connection,
    version: str,
    state: str,
    reason: str,
    now_ns: int,
    evidence: dict[str, Any] | None = None,
) -> None:
    """Change the state of a version.

    Args:
        connection: a transaction.
        version: the whole version.
        state: the new ``ModelState``.
        reason: one sentence for the row.
        now_ns: current time.
        evidence: figures to add to those of the row.
    """
    known = connection.execute(select(ModelRow.evidence).where(ModelRow.version == version)).scalar_one()
    values = {"state": state, "reason": reason, "changed_ns": now_ns, "evidence": known | (evidence or {})}
    connection.execute(update(ModelRow).where(ModelRow.version == version).values(values))


# ---------------------------------------------------------------------------------------------------- champions


def current_champion(connection: Connection, stream: str) -> Promotion:
    """Return the newest change of the stream's champion, which is its ``to_version``."""
    statement = (
        select(*_CHANGES).where(PromotionRow.stream == stream).order_by(PromotionRow.sequence.desc()).limit(1)
    )
    row = connection.execute(statement).one_or_none()
    return (
        Promotion(*row)
        if row is not None
        else Promotion(stream, 0, "", None, None, False, "", "came with forewatch", 0)
    )


def promotions(
    connection: Connection, stream: StreamChoice = None, limit: int | None = None
) -> list[Promotion]:
    """Return changes of champions, the newest first."""
    return page_of_promotions(connection, Bounds(stream, limit=limit))


def page_of_promotions(connection: Connection, bounds: Bounds) -> list[Promotion]:
    """Return a part of the changes; ``bounds.after`` is (created, stream, sequence)."""
    row = PromotionRow
    order = ((row.created_ns, True), (row.stream, False), (row.sequence, True))
    statement = where_given(
        page_of(select(*_CHANGES), order, bounds.after, bounds.limit),
        (bounds.stream, of_streams(row.stream, bounds.stream)),
        (bounds.since_ns, row.created_ns >= (bounds.since_ns or 0)),
        (bounds.until_ns, row.created_ns < (bounds.until_ns or 0)),
    )
    return [Promotion(*found) for found in connection.execute(statement)]


def record_promotion(
    connection: Connection,
    now: Promotion,
    action: str,
    to_version: str | None,
    *,
    author: str,
    reason: str,
    now_ns: int,
    pinned: bool | None = None,
) -> Promotion:
    """Write the change that follows ``now`` and return it.

    Raises ChampionChanged.

    Args:
        connection: a transaction.
        now: the newest change, from ``current_champion``.
        action: a ``PromotionAction``.
        to_version: the new champion; None for the packaged weights.
        author: the person or component that makes the change.
        reason: one sentence for the row.
        now_ns: current time.
        pinned: whether only a person may change the champion from now on; None leaves it as it is.
    """
    pin = now.pinned if pinned is None else pinned
    next_ = Promotion(
        now.stream, now.sequence + 1, action, now.to_version, to_version, pin, author, reason, now_ns
    )
    values = {one.name: getattr(next_, one.name) for one in fields(Promotion)} | {"pinned": int(pin)}
    statement = (
        insert(connection, PromotionRow)
        .values(values)
        .on_conflict_do_nothing()
        .returning(PromotionRow.sequence)
    )
    if connection.execute(statement).scalar_one_or_none() is None:
        raise ChampionChanged(
            f"the champion of {now.stream} was changed by someone else: see `forewatch models list --changes`, then repeat the command"
        )
    if to_version != now.to_version:
        former = ModelState.REJECTED if action == PromotionAction.ROLLBACK else ModelState.RETIRED
        if now.to_version is not None:
            set_state(connection, now.to_version, former, reason, now_ns)
        if to_version is not None:
            set_state(connection, to_version, ModelState.CHAMPION, reason, now_ns)
    return next_


def previous_version(connection: Connection, now: Promotion) -> str | None:
    """Return the predecessor of the champion of ``now``.

    Raises InputError if no version was ever promoted.
    """
    here = (
        PromotionRow.stream == now.stream,
        PromotionRow.action == PromotionAction.PROMOTE,
        PromotionRow.to_version == now.to_version,
    )
    statement = select(PromotionRow.from_version).where(*here).order_by(PromotionRow.sequence.desc()).limit(1)
    row = connection.execute(statement).one_or_none()
    if row is None or now.to_version is None:
        raise InputError(
            f"stream {now.stream} uses the packaged model: there is no earlier version to roll back to"
        )
    return row.from_version


# ---------------------------------------------------------------------------------------------------- retention


def removable_versions(connection: Connection, stream: str, keep: int) -> list[ModelVersion]:
    """Return the versions of a stream that may be removed.

    The newest ``keep`` versions, the champion, its predecessor and every version that an anomaly names stay.
    """
    now = current_champion(connection, stream)
    needed = {now.to_version, now.from_version}
    idle = [
        one
        for one in query(connection, stream=stream)[keep:]
        if one.state in (ModelState.REJECTED, ModelState.RETIRED) and one.version not in needed
    ]
    return [one for one in idle if not _named_by_anomaly(connection, one.version)]


def remove(connection: Connection, version: str) -> None:
    """Delete the row of a version."""
    connection.execute(delete(ModelRow).where(ModelRow.version == version))


def _named_by_anomaly(connection: Connection, version: str) -> bool:
    named = exists().where(AnomalyRow.model_version.endswith(f"+{version}", autoescape=True))
    return bool(connection.execute(select(named)).scalar_one())
