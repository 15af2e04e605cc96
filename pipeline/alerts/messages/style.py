"""How loud each severity looks."""

from __future__ import annotations

#: Severity → how loud it looks.
COLOURS = {"info": "#4a7ebb", "warning": "#d9a400", "major": "#e06c00", "critical": "#c4162a"}


CALM = "#2e8b57"
