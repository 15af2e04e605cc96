"""HTML page of an alert: the body of a mail, and the page behind the link of a message."""

from __future__ import annotations

import html

from pipeline.alerts.messages import text
from pipeline.alerts.messages.payload import Alert
from pipeline.alerts.messages.style import RESOLVED_COLOUR, SEVERITY_COLOURS


def html_of(alert: Alert, picture: str | None) -> str:
    """Return the page of an alert.

    ``picture`` is the address of the chart: inside the mail (cid:) or on this server.
    """
    ended = alert.status in ("resolved", "retracted")
    colour = RESOLVED_COLOUR if ended else SEVERITY_COLOURS.get(alert.severity, RESOLVED_COLOUR)
    rows = "".join(
        f'<tr><td style="padding:3px 14px 3px 0;color:#666;vertical-align:top;white-space:nowrap">{_escape(line.label)}</td>'
        f'<td style="padding:3px 0">{_escape(line.text)}</td></tr>'
        for line in text.lines(alert)
    )
    commands = "\n".join(_escape(line.text) for line in text.commands(alert))
    alt = "Chart of the series with its expected band"
    image = (
        f'<img src="{_escape(picture)}" alt="{alt}" width="600" '
        'style="max-width:100%;height:auto;margin:14px 0">'
        if picture is not None
        else ""
    )
    return (
        '<!doctype html><html><head><meta charset="utf-8"></head>'
        '<body style="font:14px/1.45 -apple-system,Segoe UI,Helvetica,Arial,sans-serif;color:#222;margin:0;padding:16px">'
        f'<div style="border-left:5px solid {colour};padding-left:14px;max-width:680px">'
        f'<h2 style="margin:0 0 10px;font-size:18px">{_escape(alert.title)}</h2>'
        f'<table style="border-collapse:collapse;font-size:14px">{rows}</table>{image}'
        f'<pre style="background:#f5f5f5;padding:10px;font-size:12px;white-space:pre-wrap">{commands}</pre></div></body></html>'
    )


def _escape(value: str) -> str:
    return html.escape(value, quote=True)
