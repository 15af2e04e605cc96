"""Reference page of verdicts, generated from their JSON Schema."""

from __future__ import annotations

import json

from pipeline.cli.payload_reference import schema_markdown
from pipeline.outputs.verdict import verdict_schema

_HEAD = """# Verdicts

Generated from `pipeline/outputs/verdict.py` by `make docs`; do not edit. The same as JSON Schema:
[verdict.schema.json](verdict.schema.json).

This is the value of a record in the topic of an output ([write verdicts](../how-to/write-verdicts.md)).
Its key is `series`, its timestamp the event time, and its header `id` the same as the key `id`.
A later version can add keys; a reader must ignore keys that it does not know.
"""


def verdicts_markdown() -> str:
    """Return the text of ``docs/reference/verdicts.md``."""
    definitions = verdict_schema()["$defs"]
    ordered = {"Verdict": definitions["Verdict"], **definitions}
    return schema_markdown(_HEAD, ordered)


def verdict_schema_text() -> str:
    """Return the text of ``docs/reference/verdict.schema.json``."""
    return json.dumps(verdict_schema(), indent=2, ensure_ascii=False) + "\n"
