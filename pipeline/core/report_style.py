"""Style sheet of self-contained HTML reports."""

from __future__ import annotations

from importlib.resources import files


def report_style() -> str:
    """Return the CSS that all reports share, for a ``style`` element."""
    return files("pipeline.core").joinpath("report_style.css").read_text()
