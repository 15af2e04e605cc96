"""The formats of alerts for HTTP receivers: one module each, registered here. To add one: write ``render``
and ``secrets``, add a line.

``render(endpoint, message)`` makes the request, ``secrets(endpoint)`` names what must never be shown. Both
read secrets anew each time, so that one that was exchanged on disk is used at once.
``tests/contract/test_alerts_formats.py`` says when a format is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.alerts.formats import alertmanager, opsgenie, pagerduty, plain, slack, teams, webhook
from pipeline.alerts.transport.base import Call, Message


class Format(NamedTuple):
    render: Callable[[Any, Message], Call]
    secrets: Callable[[Any], list[str]]


FORMATS: dict[str, Format] = {
    "webhook": Format(webhook.render, webhook.secrets),
    "json": Format(plain.render, plain.secrets),
    "slack": Format(slack.render, slack.secrets),
    "teams": Format(teams.render, teams.secrets),
    "pagerduty": Format(pagerduty.render, pagerduty.secrets),
    "opsgenie": Format(opsgenie.render, opsgenie.secrets),
    "alertmanager": Format(alertmanager.render, alertmanager.secrets),
}
