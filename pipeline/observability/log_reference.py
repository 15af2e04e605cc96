"""Reference of all log events, read from the sources: ``docs/reference/log-events.md``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "storage", "detectors")
#: Method of a logger → level.
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}
_LOGGERS = frozenset({"log", "_log"})
#: Fields of every line.
COMMON_FIELDS = {
    "timestamp": "ISO 8601, UTC",
    "level": "debug, info, warning, error",
    "logger": "module",
    "event": "the fixed text of the tables below",
    "exception": "traceback, where an error has one",
}


class LogEvent(NamedTuple):
    """One place in the code that logs."""

    event: str
    level: str
    logger: str
    fields: tuple[str, ...]


class VariableEvent(Exception):
    """Log call whose event is not a fixed text and cannot be searched for."""


def log_events(root: Path = ROOT) -> list[LogEvent]:
    """Return every log event of the sources, by logger and event.

    Raises:
        VariableEvent: A call has no fixed text.
    """
    found: set[LogEvent] = set()
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            logger = ".".join(file.relative_to(root).with_suffix("").parts)
            found.update(_events_of(ast.parse(file.read_text(encoding="utf-8")), logger))
    return sorted(found, key=lambda one: (one.logger, one.event, one.fields))


def _events_of(tree: ast.Module, logger: str) -> Iterator[LogEvent]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_log_call(node.func):
            assert isinstance(node.func, ast.Attribute)
            fields = tuple(f"{word.arg}" if word.arg else "further fields" for word in node.keywords)
            for event in _texts(node.args[0] if node.args else None, f"{logger}:{node.lineno}"):
                yield LogEvent(
                    event, LEVELS[node.func.attr], logger, tuple(sorted(set(fields) - {"exc_info"}))
                )


def _is_log_call(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute) or function.attr not in LEVELS:
        return False
    of = function.value
    if isinstance(of, ast.Call) and isinstance(of.func, ast.Attribute) and of.func.attr == "bind":
        of = of.func.value
    return (
        of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
    ) in _LOGGERS


def _texts(node: ast.expr | None, place: str) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body, place)
        yield from _texts(node.orelse, place)
    else:
        raise VariableEvent(f"{place}: a log event is a fixed text; put what varies into fields")


def log_events_markdown() -> str:
    """Return the page."""
    lines = [
        "# Log events",
        "",
        "Generated from the sources by `make docs`; do not edit. [Logs](../how-to/operate.md#logs) describes",
        "the format. A line has the fields of its event and these:",
        "",
        "| field | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in COMMON_FIELDS.items()),
        "",
        "Events of libraries have the name of the library as `logger` and are not listed.",
        "`%s` and `%r` stand for a value in the text.",
    ]
    package = ""
    for one in log_events():
        if (current := ".".join(one.logger.split(".")[:2])) != package:
            package = current
            lines += ["", f"## `{package}`", "", "| event | level | fields | logger |", "|---|---|---|---|"]
        fields = ", ".join(f"`{name}`" for name in one.fields)
        event = one.event.replace("|", "\\|")
        lines.append(f"| {event} | {one.level} | {fields} | `{one.logger}` |")
    return "\n".join(lines) + "\n"
