"""Rules of a source that polls a SQL database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from pipeline.config.problems import Finding, KeyPath
from pipeline.config.sql import SqlSourceConfig

_SELECT = re.compile(
    r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*(select|with|values|table)\b", re.IGNORECASE | re.DOTALL
)


def sql_rules(source: SqlSourceConfig, at: KeyPath) -> Iterator[Finding]:
    """Yield what is wrong with a source at ``at``."""
    if not _SELECT.match(source.query):
        yield Finding(
            (*at, "query"),
            "is not a SELECT statement",
            "write SELECT … FROM …; nothing of the database is changed",
        )
    if ";" in source.query.rstrip().rstrip(";"):
        yield Finding((*at, "query"), "holds a semicolon", "write one statement")
    if not timedelta() < source.every:
        yield Finding((*at, "every"), "is not above 0", "write a duration such as 10s")
