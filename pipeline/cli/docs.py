"""Generator of the reference pages in ``docs/reference``: ``python -m pipeline.cli.docs docs`` (``make docs``)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.alerts.messages.payload import schema_text
from pipeline.api.reference import rest_api_markdown
from pipeline.cli.command_reference import commands_markdown
from pipeline.cli.payload_reference import payloads_markdown
from pipeline.cli.verdict_reference import verdict_schema_text, verdicts_markdown
from pipeline.config.reference import configuration_markdown
from pipeline.observability.log_reference import log_events_markdown
from pipeline.observability.metrics_reference import metrics_markdown

PAGES: dict[str, Callable[[], str]] = {
    "alert-payload.schema.json": schema_text,
    "commands.md": commands_markdown,
    "configuration.md": configuration_markdown,
    "log-events.md": log_events_markdown,
    "metrics.md": metrics_markdown,
    "payloads.md": payloads_markdown,
    "rest-api.md": rest_api_markdown,
    "verdict.schema.json": verdict_schema_text,
    "verdicts.md": verdicts_markdown,
}


def write_pages(folder: Path) -> None:
    """Write every generated page into ``folder``/reference."""
    for name, page in PAGES.items():
        (folder / "reference" / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
