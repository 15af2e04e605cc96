"""Entries of the audit log about changes by commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.access.audit import Change


def record(connection: Connection, by: str | None, change: Change) -> None:
    """Write a change into the audit log, in the transaction that makes it."""
    from time import time_ns

    from pipeline.cli.argument_values import command_actor
    from storage.access import audit

    audit.add(connection, command_actor(by), change, time_ns())


def change_of(action: str, object_: Any, stream: str | None = None, **detail: Any) -> Change:
    """Return a change for the audit log.

    Args:
        action: Group and name, such as ``alert.acknowledge``.
        object_: Changed object.
        stream: Its stream.
        detail: Values before and after, and the reason.
    """
    from storage.access.audit import Change

    return Change(action, str(object_), stream, detail)
