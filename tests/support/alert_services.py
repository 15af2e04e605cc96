"""Local stand-ins of the services that alerts are sent to: each answers as the real one documents, and
refuses what it would refuse.

What is checked stands in the services' own documentation; a format is done when its service takes every
message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.receiver import Received, answer

ROOT = Path(__file__).resolve().parents[2]
Service = Callable[[Received], bytes]


class Refused(Exception):
    """Raised for a request that the service would answer with a 4xx."""


def need(condition: object, message: str) -> None:
    if not condition:
        raise Refused(message)


def service(check: Callable[[Received, Any], bytes]) -> Service:
    """An HTTP answer from a check of the request and its JSON."""

    def behave(request: Received) -> bytes:
        try:
            need(request.method == "POST", "method not allowed")
            need(request.headers.get("content-type", "").startswith("application/json"), "content type")
            need("user-agent" in request.headers, "user agent")
            return check(request, json.loads(request.body))
        except (
            Refused,
            KeyError,
            TypeError,
            ValueError,
            WebhookVerificationError,
            jsonschema.ValidationError,
        ) as error:
            return answer(400, f"{type(error).__name__}: {error}".encode()[:2000])

    return behave


def webhook(secret: str) -> Service:
    """A receiver written with the library alone, and the published schema."""

    def check(request: Received, body: Any) -> bytes:
        need(Webhook(secret).verify(request.body, request.headers) == body, "not what was signed")
        need("." not in request.headers["webhook-id"], "the id may not contain a full stop")
        need(len(request.body) < 20_000, "payloads should be below 20 kB")
        jsonschema.Draft202012Validator(_schema()).validate(body)
        return answer(204, b"")

    return service(check)


@cache
def _schema() -> Any:
    return json.loads((ROOT / "docs" / "reference" / "alert-payload.schema.json").read_text())


def plain() -> Service:

    def check(request: Received, body: Any) -> bytes:
        jsonschema.Draft202012Validator(_schema()).validate(body)
        need(request.headers.get("webhook-id", "").startswith("msg_"), "no id")
        return answer(200)

    return service(check)


def slack() -> Service:
    """https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks and the block reference:
    limits of lengths and counts.
    """

    def check(request: Received, body: Any) -> bytes:
        need(body["text"], "no_text")
        need(len(body["text"]) <= 40_000, "msg_too_long")
        need(not re.search(r"<[!@#]", body["text"]), "a mention was smuggled in")
        blocks = [b for a in body.get("attachments", []) for b in a["blocks"]] + body.get("blocks", [])
        need(0 < len(blocks) <= 50, "invalid_blocks: count")
        for block in blocks:
            _slack_block(block)
        need(sum(len(json.dumps(b)) for b in blocks) < 13_000, "msg_blocks_too_long")
        return answer(200, b"ok")

    return service(check)


def _slack_block(block: dict[str, Any]) -> None:
    if block["type"] == "header":
        need(
            block["text"]["type"] == "plain_text" and 0 < len(block["text"]["text"]) <= 150,
            "invalid_blocks: header",
        )
    elif block["type"] == "image":
        need(
            block["image_url"].startswith("https://") and len(block["image_url"]) <= 3000,
            "invalid_blocks: image_url",
        )
        need(0 < len(block["alt_text"]) <= 2000, "invalid_blocks: alt_text")
    elif block["type"] == "rich_text":
        for section in block["elements"]:
            need(
                section["type"] in {"rich_text_section", "rich_text_preformatted"},
                "invalid_blocks: rich_text",
            )
            for element in section["elements"]:
                need(
                    element["type"] == "text" and isinstance(element["text"], str) and element["text"],
                    "invalid_blocks: text",
                )
                need(len(element["text"]) <= 3000, "invalid_blocks: text too long")
                need(
                    set(element.get("style", {})) <= {"bold", "italic", "strike", "code"},
                    "invalid_blocks: style",
                )
    else:
        raise Refused(f"invalid_blocks: {block['type']}")


def teams() -> Service:
    """Workflows, "when a Teams webhook request is received": a message of 28 KB at most with one Adaptive
    Card of version 1.4 at most.
    """

    def check(request: Received, body: Any) -> bytes:
        need(len(request.body) <= 28_000, "the request entity is too large")
        need(body["type"] == "message" and len(body["attachments"]) == 1, "no message")
        attachment = body["attachments"][0]
        need(attachment["contentType"] == "application/vnd.microsoft.card.adaptive", "no card")
        card = attachment["content"]
        need(
            card["type"] == "AdaptiveCard" and tuple(map(int, card["version"].split("."))) <= (1, 4),
            "version",
        )
        for element in card["body"]:
            if element["type"] == "RichTextBlock":
                for run in element["inlines"]:
                    need(run["type"] == "TextRun" and isinstance(run["text"], str) and run["text"], "TextRun")
                    need(
                        run.get("color", "default")
                        in {"default", "dark", "light", "accent", "good", "warning", "attention"},
                        "color",
                    )
                    need(
                        run.get("size", "default") in {"default", "small", "medium", "large", "extraLarge"},
                        "size",
                    )
                    need(run.get("weight", "default") in {"default", "lighter", "bolder"}, "weight")
            else:
                need(element["type"] == "Image" and element["url"].startswith("https://"), element["type"])
        for action in card.get("actions", []):
            need(action["type"] == "Action.OpenUrl" and action["url"].startswith("https://"), "action")
        return answer(202, b"")

    return service(check)


def pagerduty(key: str) -> Service:
    """Events API v2: https://developer.pagerduty.com/api-reference (send an event), 512 KB, lengths and
    enumerations.
    """

    def check(request: Received, body: Any) -> bytes:
        need(len(request.body) <= 512_000, "too large")
        need(body["routing_key"] == key, "invalid routing key")
        need(body["event_action"] in {"trigger", "acknowledge", "resolve"}, "event_action")
        need(0 < len(body["dedup_key"]) <= 255, "dedup_key")
        need(
            set(body)
            <= {
                "routing_key",
                "event_action",
                "dedup_key",
                "payload",
                "images",
                "links",
                "client",
                "client_url",
            },
            "unknown keys",
        )
        if body["event_action"] == "trigger":
            payload = body["payload"]
            need(0 < len(payload["summary"]) <= 1024, "summary")
            need(payload["source"], "source")
            need(payload["severity"] in {"critical", "error", "warning", "info"}, "severity")
            datetime.fromisoformat(payload["timestamp"])
            need(
                set(payload)
                <= {
                    "summary",
                    "source",
                    "severity",
                    "timestamp",
                    "component",
                    "group",
                    "class",
                    "custom_details",
                },
                "payload keys",
            )
            need(
                all(i["src"].startswith("https://") for i in body.get("images", [])),
                "images must be served over https",
            )
            need(all(link["href"] for link in body.get("links", [])), "links")
        reply = {"status": "success", "message": "Event processed", "dedup_key": body["dedup_key"]}
        return answer(202, json.dumps(reply).encode())

    return service(check)


def opsgenie(key: str) -> Service:
    """Alert API v2: https://docs.opsgenie.com/docs/alert-api."""

    def check(request: Received, body: Any) -> bytes:
        need(request.headers.get("authorization") == f"GenieKey {key}", "Could not authenticate")
        path = urlsplit(request.path)
        if path.path == "/v2/alerts":
            need(0 < len(body["message"]) <= 130, "message")
            need(len(body["alias"]) <= 512 and len(body["description"]) <= 15_000, "alias or description")
            need(body["priority"] in {"P1", "P2", "P3", "P4", "P5"}, "priority")
            need(len(body["entity"]) <= 512 and len(body["source"]) <= 100, "entity or source")
            need(len(body["tags"]) <= 20 and all(0 < len(t) <= 50 for t in body["tags"]), "tags")
            need(all(isinstance(v, str) for v in body["details"].values()), "details are strings")
            need(sum(len(k) + len(v) for k, v in body["details"].items()) <= 8000, "details are too long")
        else:
            need(re.fullmatch(r"/v2/alerts/[^/]+/(acknowledge|close)", path.path), "no such path")
            need(parse_qs(path.query) == {"identifierType": ["alias"]}, "identifierType")
            need(len(body["note"]) <= 25_000 and len(body["source"]) <= 100, "note or source")
        return answer(202, b'{"result":"Request will be processed","took":0.1,"requestId":"r-1"}')

    return service(check)


def alertmanager() -> Service:
    """API v2: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml, postableAlerts."""

    def check(request: Received, body: Any) -> bytes:
        need(request.path == "/api/v2/alerts", "no such path")
        need(isinstance(body, list) and body, "postableAlerts is a list")
        for alert in body:
            need(
                set(alert) <= {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}, "unknown keys"
            )
            for name, value in alert["labels"].items():
                need(
                    re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) and isinstance(value, str) and value,
                    f"label {name}",
                )
            need(all(isinstance(v, str) for v in alert["annotations"].values()), "annotations are strings")
            for key in ("startsAt", "endsAt"):
                need(
                    re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", alert[key]), key
                )
            need(
                datetime.fromisoformat(alert["startsAt"]) <= datetime.fromisoformat(alert["endsAt"]),
                "start time must be before end time",
            )
        return answer(200, b"")

    return service(check)


def flat(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from flat(item)
    elif isinstance(value, list):
        for item in value:
            yield from flat(item)
