"""JSON Schema and reference page of the configuration, generated from the models."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from pipeline.config.schema import Config, format_duration

Schema = dict[str, Any]

_HEAD = """# Configuration

Generated from `pipeline/config/` by `make docs`; do not edit. `forewatch init` writes a commented example, `forewatch check FILE`
reports errors with line, key and remedy, and `forewatch schema` prints the JSON Schema for completion in editors.

- Durations are written `30s`, `5m`, `1h30m`, `7d` (units: ms, s, m, h, d, w).
- An unknown key is an error. A missing key has the default value of the table.
- The file contains no secrets. It names an environment variable or a file for each ([Secret](#secret)).
- Paths are relative to the working directory of forewatch.
- A running daemon reloads the file on SIGHUP, or after each change with `run --watch`. If the new file has errors, the running config stays in force.
"""


class _Generator(GenerateJsonSchema):
    """Generator that writes default durations in the format of the config."""

    def encode_default(self, dft: Any) -> Any:
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def json_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a config file."""
    schema = Config.model_json_schema(schema_generator=_Generator)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "forewatch configuration",
    }


def configuration_markdown() -> str:
    """Return the reference page as Markdown."""
    schema = json_schema()
    sections = dict(_sections("", schema, schema["$defs"]))
    parts = [_HEAD]
    for name, title in sections.items():
        model = schema["$defs"][name] if name else schema
        parts.append(
            f"## "
            f"{title}\n\n{_text(model.get('description', ''))}\n\n{_table(model, sections, schema['$defs'])}"
        )
    return "\n".join(parts).rstrip() + "\n"


def _sections(
    name: str, model: Schema, defs: Schema, title: str = "The file", path: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield each model with the title of its section, in the order of the page."""
    yield name, title
    for key, value in model["properties"].items():
        for inner, step in _models(value, key):
            here = f"{path}.{step}".removeprefix(".")
            heading = inner if inner == "Secret" else f"`{here}`"
            yield from _sections(inner, defs[inner], defs, heading, here)


def _models(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    """Yield the models in the schema of a key, with their paths."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2], path
    for option in schema.get("anyOf", ()):
        yield from _models(option, path)
    for kind, reference in schema.get("discriminator", {}).get("mapping", {}).items():
        yield reference.rpartition("/")[2], f"{path} (type: {kind})"
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _models(schema["additionalProperties"], f"{path}.NAME")
    if "items" in schema:
        yield from _models(schema["items"], f"{path}[]")


def _table(model: Schema, sections: dict[str, str], defs: Schema) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, schema in model["properties"].items():
        kind = _kind(schema, sections)
        meaning = schema.get("description") or next(
            (defs[name]["description"] for name, _ in _models(schema, "")), ""
        )
        rows.append(f"| `{key}` | {kind} | {_default(key, schema, model)} | {_text(meaning)} |")
    return "\n".join(rows) + "\n"


def _default(key: str, schema: Schema, model: Schema) -> str:
    if key in model.get("required", ()):
        return "required"
    if schema.get("default") is None:
        return ""
    return (
        f"`{schema['default']}`"
        if not isinstance(schema["default"], bool)
        else f"`{str(schema['default']).lower()}`"
    )


def _kind(schema: Schema, sections: dict[str, str]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name.removesuffix('Config')}](#{_anchor(sections[name])})"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(
            dict.fromkeys(_kind(option, sections) for option in options if option.get("type") != "null")
        )
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'], sections)}"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return f"mapping of {_kind(values, sections)}" if isinstance(values, dict) else "mapping"
    if schema.get("examples"):
        return "duration"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}
    return "path" if schema.get("format") == "path" else words.get(schema.get("type", ""), "any")


def _anchor(title: str) -> str:
    """Return the anchor that Markdown viewers give to a heading."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def _text(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").replace("<", "&lt;").split())
