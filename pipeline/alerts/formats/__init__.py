"""Formats of alerts for HTTP receivers, one module each, registered here.

A new format has the functions ``render`` and ``secrets`` and a line in ``FORMATS``. ``render(endpoint, message)``
returns the request, ``secrets(endpoint)`` the texts that must not be shown. Both read secrets in every call, so
that a secret that was replaced on disk is used at once. ``tests/contract/test_alerts_formats.py`` is the test
that a format must pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.alerts.formats import alertmanager, opsgenie, pagerduty, plain, slack, teams, webhook
from pipeline.alerts.transport.base import Call, Message


class AlertFormat(NamedTuple):
    """Functions of one format."""

    render: Callable[[Any, Message], Call]
    secrets: Callable[[Any], list[str]]


FORMATS: dict[str, AlertFormat] = {
    "webhook": AlertFormat(webhook.render, webhook.secrets),
    "json": AlertFormat(plain.render, plain.secrets),
    "slack": AlertFormat(slack.render, slack.secrets),
    "teams": AlertFormat(teams.render, teams.secrets),
    "pagerduty": AlertFormat(pagerduty.render, pagerduty.secrets),
    "opsgenie": AlertFormat(opsgenie.render, opsgenie.secrets),
    "alertmanager": AlertFormat(alertmanager.render, alertmanager.secrets),
}
