"""``docs/reference/rest-api.md``, made from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.api.app import build_app
from pipeline.api.starting_site import PREFIX

_HEAD = """# REST API

Generated from `pipeline/api/` by `make docs`; do not edit.

`forewatch serve CONFIG` serves it at `http://127.0.0.1:9465/api/v1`.
Its OpenAPI 3.1 document is at `/api/v1/openapi.json`.
[Use the REST API](../how-to/use-the-rest-api.md) has examples.
Times are ISO 8601 in UTC, also without a zone. A number that does not exist is null.

| status | meaning |
|---|---|
| 400 | the address contains a key, or a header is repeated |
| 401 | no API key or session, or one that is unknown, revoked or expired |
| 403 | missing scope, foreign `Host`, or a change without `x-forewatch-csrf` or from another site |
| 404 | there is no such thing |
| 409 | conflict with the present state, or with an unanswered request of the same `Idempotency-Key` |
| 412 | the object has changed since the answer that `If-Match` names |
| 413 | the body is larger than 64 KiB |
| 422 | the request cannot be used; `detail` says why |
| 429 | too many requests; `Retry-After` has the seconds to wait |
| 503 | database or recorded history do not answer; repeat the request later |

Errors are `application/problem+json` with `title`, `status` and `detail`.
"""


def rest_api_markdown() -> str:
    """Return the text of ``docs/reference/rest-api.md``."""
    document = build_app().openapi()
    parts = [_HEAD, "\n## Operations\n"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(method, path, operation)
    parts.append("\n## Models\n")
    hidden = ("HTTPValidationError", "ValidationError", "Problem")
    for name, schema in document["components"]["schemas"].items():
        if name not in hidden and "properties" in schema:
            parts += _model(name, schema)
    return "".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"\n### `{method.upper()} {PREFIX}{path}`\n\n{operation['description']}\n"
    yield f"\nScope: `{operation['x-forewatch-scope']}`.\n"
    if parameters := operation.get("parameters"):
        yield "\n| parameter | type | meaning |\n|---|---|---|\n"
        for one in parameters:
            schema = one["schema"]
            default = "" if schema.get("default") is None else f" (default `{schema['default']}`)"
            needed = " (required)" if one.get("required") else ""
            meaning = one.get("description", "")
            yield f"| `{one['name']}` | {_type(schema)} | {meaning}{default}{needed} |\n"
    if body := operation.get("requestBody"):
        [(media_type, content)] = body["content"].items()
        kind = "" if media_type == "application/json" else f" (`{media_type}`)"
        yield f"\nBody: {_type(content['schema'])}{kind}.\n"
    good = next(response for status, response in operation["responses"].items() if int(status) < 400)
    for content in good.get("content", {}).items():
        if "schema" in content[1]:
            yield f"\nAnswer: {_type(content[1]['schema'])}.\n"


def _model(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"\n### {name}\n\n{' '.join(schema.get('description', '').split())}\n\n"
    yield "| field | type | meaning |\n|---|---|---|\n"
    for field, one in schema["properties"].items():
        yield f"| `{field}` | {_type(one)} | {one.get('description', '')} |\n"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("items") or {}
        return f"list of {_type(items)}" if items else "list"
    return str(schema.get("format") or schema.get("type") or "any")
