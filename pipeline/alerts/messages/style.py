"""Colours of severities."""

from __future__ import annotations

SEVERITY_COLOURS = {"info": "#4a7ebb", "warning": "#d9a400", "major": "#e06c00", "critical": "#c4162a"}

RESOLVED_COLOUR = "#2e8b57"
