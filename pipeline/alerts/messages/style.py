"""How loud each severity looks."""

from __future__ import annotations

#: Severity → how loud it looks.
SEVERITY_COLOURS = {"info": "#4a7ebb", "warning": "#d9a400", "major": "#e06c00", "critical": "#c4162a"}


RESOLVED_COLOUR = "#2e8b57"
