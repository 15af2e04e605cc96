"""Writes the pages of ``docs/`` that are made from the code: ``python -m pipeline.cli.docs FOLDER``
(``make docs``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.cli.reference import commands_markdown
from pipeline.config.reference import configuration_markdown
from pipeline.observability.metrics_reference import metrics_markdown

PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_markdown,
    "configuration.md": configuration_markdown,
    "metrics.md": metrics_markdown,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(sys.argv[1]) / "reference" / name).write_text(page(), encoding="utf-8")
