"""Every format: its service takes every message, its golden file says what it looks like, and nothing from
outside breaks out of its place.

Write the golden files again with: python -m tests.contract.test_alerts_formats
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pipeline.alerts.delivery.senders import sender_of
from pipeline.alerts.formats import FORMATS
from pipeline.alerts.messages.payload import BudgetView, Hint, Kind, Payload, encode, schema_text
from pipeline.alerts.outbox import encode_anomaly
from pipeline.alerts.routing.composer import CommandLine, NotificationContext, compose
from pipeline.alerts.routing.rules import StreamRules
from pipeline.alerts.transport.base import Call, Message
from pipeline.config.alerts import AlertsConfig
from pipeline.config.endpoints import EndpointConfig
from storage.alerting.alerts import AlertMember, AlertRecord
from storage.alerting.states import Urgency
from tests.support import alert_services as services
from tests.support.alerting import NOON, SECOND, anomaly, closed, endpoint
from tests.support.receiver import Receiver

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
KEY = "k" * 32
KINDS: tuple[Kind, ...] = (
    "opened",
    "updated",
    "repeated",
    "acknowledged",
    "resolved",
    "revised",
    "retracted",
    "test",
)
CONFIG = AlertsConfig.model_validate(
    {"units": {"temperature": "°C", "pressure": "bar"}, "public_url": "https://watch.example"}
)
SERVICES = {
    "webhook": services.webhook(SECRET),
    "json": services.plain(),
    "slack": services.slack(),
    "teams": services.teams(),
    "pagerduty": services.pagerduty(KEY),
    "opsgenie": services.opsgenie(KEY),
    "alertmanager": services.alertmanager(),
}
HOSTILE = (
    "a<!channel> </script><b>*x*</b>\r\nBcc: evil@example.org\x00\u202e [link](http://evil.example) `$(rm)` "
    + "ü" * 300
)


def payload(kind: Kind, series: str = "b2/t1", count: int = 1, text: str = "") -> Payload:
    """Return a message as the router writes it, with ``text`` wherever text from outside can be."""
    over = kind in ("resolved", "retracted")
    shown = [
        anomaly(f"{series}{i or ''}", NOON + i * SECOND, surprise=7.5 - i / 10) for i in range(min(count, 10))
    ]
    shown = [closed(a, end_ns=NOON + 840 * SECOND) if over else a for a in shown]
    if text:
        for a in shown:
            a.labels, a.channels, a.series, a.model_version = (
                {text[:40]: text},
                [text, "pressure"],
                text,
                text,
            )
    state = "retracted" if kind == "retracted" else "closed" if over else "open"
    members = [
        AlertMember(
            a.id,
            shown[0].id,
            "plant",
            a.series,
            state,
            a.severity,
            a.surprise,
            a.start_ns,
            a.end_ns,
            encode_anomaly(a),
        )
        for a in shown
    ]
    labels = dict(shown[0].labels) if count == 1 or text else {"site": "b2"}
    alert = AlertRecord(
        shown[0].id, "plant", "data", "default", text or series, "plant/b2", labels, NOON, NOON, NOON, "major"
    )
    alert.urgency, alert.severities, alert.count, alert.surprise = (
        Urgency.PAGE,
        ["warning"] if kind == "updated" else [],
        count,
        7.5,
    )
    alert.acked_ns = NOON if kind == "acknowledged" else None
    alert.resolved_ns = NOON + 840 * SECOND if over else None
    hints = [Hint(a.series, "2026-03-02T12:00:00.000000Z", 7, 5) for a in shown[:2]] if count > 1 else []
    budget = BudgetView(5.0, 0.00021, 0.0031, 2)
    context = NotificationContext(
        members,
        count,
        0 if over else count,
        hints,
        ["plant/b3/flow", text or "mill/m1/current"],
        budget,
        CommandLine(dashboard="https://dash.example/"),
    )
    behaviour = StreamRules("plant", CONFIG, ("hook",)).behaviour("default")
    return compose(alert, kind, 3, context, behaviour, CONFIG, NOON + 90 * SECOND)


def message(of: Payload) -> Message:
    delivery = UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")
    return Message(delivery, "plant/b2/t1", encode(of), of, datetime(2026, 3, 2, 12, 1, 30, tzinfo=UTC))


def configured(kind: str, url: str, folder: Path) -> EndpointConfig:
    """An endpoint of each type, its secrets in files."""
    (folder / "secret").write_text(SECRET)
    (folder / "key").write_text(KEY)
    extra = {
        "webhook": {"secret": {"file": folder / "secret"}},
        "pagerduty": {"key": {"file": folder / "key"}},
    }
    extra["opsgenie"] = extra["pagerduty"]
    return endpoint(type=kind, url=url, allow=["loopback"], **extra.get(kind, {}))


def rendered(kind: str, of: Payload, folder: Path) -> dict[str, Any]:
    call: Call = FORMATS[kind].render(configured(kind, "https://receiver.example/in", folder), message(of))
    return {
        "method": call.method,
        "url": call.url,
        "headers": dict(call.headers),
        "body": json.loads(call.body),
    }


def golden(kind: str, event: Kind, folder: Path) -> str:
    return (
        json.dumps(
            rendered(kind, payload(event, count=1 if event != "opened" else 12), folder),
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("event", ["opened", "updated", "resolved"])
def test_golden(kind: str, event: Kind, tmp_path: Path):
    assert golden(kind, event, tmp_path) == (GOLDEN / f"{kind}-{event}.json").read_text()


def test_the_published_schema_is_that_of_the_code():
    assert (ROOT / "docs" / "reference" / "alert-payload.schema.json").read_text() == schema_text(), (
        "run python -m tests.contract.test_alerts_formats"
    )


@pytest.mark.parametrize("kind", SERVICES)
def test_the_link_of_every_format_opens_the_incident_in_the_dashboard(kind: str, tmp_path: Path):
    of = payload("opened")
    page = f"https://dash.example/alerts/{of.data.alert_id}"
    assert page in json.dumps(rendered(kind, of, tmp_path)["body"])
    assert page in of.data.text
    assert of.data.picture == f"https://watch.example/alerts/{of.data.alert_id}.png"


@pytest.mark.parametrize("kind", FORMATS)
def test_its_service_takes_every_message(kind: str, tmp_path: Path):
    """Every kind of message, alone and in a storm, also with hostile text; signatures with the time of now."""
    notified = [payload(event) for event in KINDS] + [
        payload("opened", count=5000),
        payload("opened", text=HOSTILE),
    ]
    notified.append(payload("opened", count=10, text=HOSTILE))

    async def scenario(url: str) -> list[str]:
        sender = sender_of(configured(kind, url, tmp_path), lambda _: None)
        problems = []
        for one in notified:
            outcome = await sender.send(_now(one))
            if not outcome.delivered:
                problems.append(f"{one.type}: {outcome.status} {outcome.answer}")
        await sender.close()
        return problems

    with Receiver(SERVICES[kind]) as receiver:
        url = receiver.url.removesuffix("/hook") if kind in ("opsgenie", "alertmanager") else receiver.url
        assert asyncio.run(scenario(url)) == []
        assert len(receiver.received) == len(notified)


def _now(of: Payload) -> Message:
    whole = message(of)
    return Message(whole.delivery, whole.queue, whole.body, of, datetime.now(UTC))


@pytest.mark.parametrize("kind", FORMATS)
def test_text_from_outside_stays_text(kind: str, tmp_path: Path):
    call = rendered(kind, payload("opened", text=HOSTILE), tmp_path)
    for text in services.flat(call["body"]):
        assert "\x00" not in text
        assert "\u202e" not in text
        assert "\r" not in text
    for name, value in call["headers"].items():
        assert (name + value).isprintable()
        assert "evil" not in value


@pytest.mark.parametrize("kind", FORMATS)
def test_secrets_are_named_so_that_they_can_be_hidden(kind: str, tmp_path: Path):
    chosen = configured(kind, "https://receiver.example/in", tmp_path)
    known = FORMATS[kind].secrets(chosen)
    assert (SECRET in known) == (kind == "webhook")
    assert (KEY in known) == (kind in ("pagerduty", "opsgenie"))


def test_pagerduty_follows_the_life_of_an_alert(tmp_path: Path):
    actions = {
        event: rendered("pagerduty", payload(event), tmp_path)["body"]["event_action"] for event in KINDS
    }
    assert actions == dict.fromkeys(("opened", "updated", "repeated", "revised", "test"), "trigger") | {
        "acknowledged": "acknowledge",
        "resolved": "resolve",
        "retracted": "resolve",
    }
    keys = {rendered("pagerduty", payload(event), tmp_path)["body"]["dedup_key"] for event in KINDS}
    assert len(keys) == 1


def test_alertmanager_ends_the_alert_of_the_old_severity(tmp_path: Path):
    old, new = rendered("alertmanager", payload("updated"), tmp_path)["body"]
    assert (old["labels"]["severity"], new["labels"]["severity"]) == ("warning", "major")
    assert old["endsAt"] == "2026-03-02T12:01:30.000000Z" < new["endsAt"]
    assert {k: v for k, v in old["labels"].items() if k != "severity"} == {
        k: v for k, v in new["labels"].items() if k != "severity"
    }


def main() -> None:
    """Write the golden files and the schema."""
    import tempfile

    GOLDEN.mkdir(exist_ok=True)
    (ROOT / "docs" / "reference" / "alert-payload.schema.json").write_text(schema_text())
    with tempfile.TemporaryDirectory() as folder:
        for kind in FORMATS:
            for event in ("opened", "updated", "resolved"):
                (GOLDEN / f"{kind}-{event}.json").write_text(golden(kind, event, Path(folder)))


if __name__ == "__main__":
    main()
