"""Entries of the audit log about changes by commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.access.audit import Change


def record(connection: Connection, by: str | None, change: Change) -> None:
    """Write a change into the audit log, in the transaction that makes it."""
    from time import time_ns

    from pipeline.cli.argument_values import command_actor
    from storage.access import audit

    audit.add(connection, command_actor(by), change, time_ns())
