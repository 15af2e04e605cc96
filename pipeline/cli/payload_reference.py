"""Reference page of the alert payload, generated from its JSON Schema."""

from __future__ import annotations

from typing import Any

from pipeline.alerts.messages.payload import schema

_HEAD = """# Alert payload

Generated from `pipeline/alerts/messages/payload.py` by `make docs`; do not edit. The same as JSON Schema:
[alert-payload.schema.json](alert-payload.schema.json).

This is the body of a signed webhook (endpoint type `webhook`), of a plain JSON call without a signature (`json`) and of
a message on a Kafka topic (`kafka`). The headers `webhook-id`, `webhook-timestamp` and `webhook-signature` follow Standard Webhooks 1.0.
[Send alerts](../how-to/alert.md#the-payload-and-its-signature) shows a receiver.

A key with "or null" can be null. A key is always present unless the table says "optional". A later version can add
keys; a receiver must ignore keys that it does not know.
"""


def payloads_markdown() -> str:
    """Return the text of ``docs/reference/payloads.md``."""
    return schema_markdown(_HEAD, schema()["$defs"])


def schema_markdown(head: str, definitions: dict[str, Any]) -> str:
    """Return a page with a table for each definition of a JSON Schema."""
    return "\n".join([head, *(_section(name, model) for name, model in definitions.items())]).rstrip() + "\n"


def _section(name: str, model: dict[str, Any]) -> str:
    rows = ["| key | type | meaning |", "|---|---|---|"]
    for key, value in model.get("properties", {}).items():
        kind = _kind(value) if key in model["required"] else f"optional: {_kind(value)}"
        rows.append(f"| `{key}` | {kind} | {_text(value.get('description', ''))} |")
    return f"## {name}\n\n{_text(model.get('description', ''))}\n\n" + "\n".join(rows) + "\n"


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if options := value.get("anyOf"):
        return " or ".join(_kind(option) for option in options)
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if value.get("type") == "array":
        return f"list of {_kind(value['items'])}"
    if value.get("type") == "object":
        values = value.get("additionalProperties")
        return f"mapping of {_kind(values)}" if isinstance(values, dict) else "mapping"
    words = {"string": "text", "integer": "whole number"}
    return words.get(value.get("type", ""), value.get("type", "any"))


def _text(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").replace("<", "&lt;").split())
