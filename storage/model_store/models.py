"""Versions of models, and which of them decides in each stream since when.

The champion of a stream is what the newest row of ``promotions`` says; None stands for the weights that come
with forewatch. A change of it is one row, and two that were decided at the same time cannot both count: the
second one's number is taken (``Overtaken``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, delete, exists, select, update

from pipeline.core.errors import ForewatchError, InputError
from storage.sql.column_types import insert
from storage.tables.models import ModelRow, PromotionRow
from storage.tables.stream import AnomalyRow


class Overtaken(ForewatchError):
    """Somebody else changed the champion meanwhile, or pinned it: decide again."""


@dataclass(slots=True)
class Model:
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
    """One change of a champion. ``sequence`` 0, which is never stored: nobody has promoted anything yet."""

    stream: str
    sequence: int
    action: str
    from_version: str | None
    to_version: str | None
    pinned: bool
    author: str
    reason: str
    created_ns: int


_COLUMNS = [getattr(ModelRow, one.name) for one in fields(Model)]
_CHANGES = [getattr(PromotionRow, one.name) for one in fields(Promotion)]


def add(connection: Connection, model: Model) -> bool:
    """Keep a new version; False if it is there already."""
    values = {one.name: getattr(model, one.name) for one in fields(Model)}
    statement = (
        insert(connection, ModelRow).values(values).on_conflict_do_nothing().returning(ModelRow.version)
    )
    return connection.execute(statement).scalar_one_or_none() is not None


def get(connection: Connection, prefix: str, stream: str | None = None) -> Model:
    """The version that begins with ``prefix``. Raises InputError if there is none, or more than one."""
    digits = prefix.lower()
    if not digits or set(digits) - set("0123456789abcdef"):
        raise InputError(
            f"{prefix!r} is no version: give at least the first digits of one, as `forewatch models list` shows it"
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
        raise InputError(f"there is no version {prefix}; `forewatch models list` shows those there are")
    if len(rows) > 1:
        raise InputError(
            f"{prefix} is the beginning of several versions: {', '.join(row.version for row in rows[:5])}; give more of it"
        )
    return Model(*rows[0])


def query(
    connection: Connection, *, stream: str | None = None, state: str | None = None, limit: int | None = None
) -> list[Model]:
    """Versions, the newest first."""
    statement = select(*_COLUMNS).order_by(ModelRow.created_ns.desc(), ModelRow.version).limit(limit)
    if stream is not None:
        statement = statement.where(ModelRow.stream == stream)
    if state is not None:
        statement = statement.where(ModelRow.state == state)
    return [Model(*row) for row in connection.execute(statement)]


def judge(
    connection: Connection,
    version: str,
    state: str,
    reason: str,
    now_ns: int,
    evidence: dict[str, Any] | None = None,
) -> None:
    """Change how a version stands; ``evidence``, where given, is added to what is known."""
    known = connection.execute(select(ModelRow.evidence).where(ModelRow.version == version)).scalar_one()
    values = {"state": state, "reason": reason, "changed_ns": now_ns, "evidence": known | (evidence or {})}
    connection.execute(update(ModelRow).where(ModelRow.version == version).values(values))


# ---------------------------------------------------------------------------------------------------- who decides


def champion(connection: Connection, stream: str) -> Promotion:
    """The newest change of the stream's champion (``to_version`` decides)."""
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
    connection: Connection, stream: str | None = None, limit: int | None = None
) -> list[Promotion]:
    """Changes of champions, the newest first."""
    statement = select(*_CHANGES).order_by(PromotionRow.id.desc()).limit(limit)
    return [
        Promotion(*row)
        for row in connection.execute(
            statement if stream is None else statement.where(PromotionRow.stream == stream)
        )
    ]


def change(
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
    """Write the change that follows ``now`` (what ``champion`` said).

    ``pinned`` None: as before. Raises Overtaken.
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
        raise Overtaken(
            f"the champion of {now.stream} was changed meanwhile: look at `forewatch models list --changes` and decide again"
        )
    if to_version != now.to_version:
        left = "rejected" if action == "rollback" else "retired"
        if now.to_version is not None:
            judge(connection, now.to_version, left, reason, now_ns)
        if to_version is not None:
            judge(connection, to_version, "champion", reason, now_ns)
    return next_


def before(connection: Connection, now: Promotion) -> str | None:
    """The version that decided before the one that ``now`` made champion.

    Raises InputError where nothing was ever promoted.
    """
    here = (
        PromotionRow.stream == now.stream,
        PromotionRow.action == "promote",
        PromotionRow.to_version == now.to_version,
    )
    statement = select(PromotionRow.from_version).where(*here).order_by(PromotionRow.sequence.desc()).limit(1)
    row = connection.execute(statement).one_or_none()
    if row is None or now.to_version is None:
        raise InputError(
            f"stream {now.stream} is watched by what came with forewatch: there is nothing to go back to"
        )
    return row.from_version


# ---------------------------------------------------------------------------------------------------- retention


def expendable(connection: Connection, stream: str, keep: int) -> list[Model]:
    """Versions that may go: not among the last ``keep``, not the champion or the one to go back to, and no
    anomaly names them.
    """
    now = champion(connection, stream)
    needed = {now.to_version, now.from_version}
    idle = [
        one
        for one in query(connection, stream=stream)[keep:]
        if one.state in ("rejected", "retired") and one.version not in needed
    ]
    return [one for one in idle if not _named(connection, one.version)]


def remove(connection: Connection, version: str) -> None:
    connection.execute(delete(ModelRow).where(ModelRow.version == version))


def _named(connection: Connection, version: str) -> bool:
    named = exists().where(AnomalyRow.model_version.endswith(f"+{version}", autoescape=True))
    return bool(connection.execute(select(named)).scalar_one())
