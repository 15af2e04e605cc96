"""The written reference, the JSON Schema and the template agree with the models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from pipeline.config.loader import load_config
from pipeline.config.reference import configuration_markdown, json_schema
from pipeline.config.schema import Config, Secret
from pipeline.config.template import STREAMS, template

ROOT = Path(__file__).resolve().parents[3]


def test_the_reference_is_up_to_date():
    assert (ROOT / "docs" / "reference" / "configuration.md").read_text() == configuration_markdown(), (
        "run `make docs`"
    )


def test_every_link_of_the_reference_leads_to_a_heading():
    text = configuration_markdown()
    headings = {
        re.sub(r"[^\w-]", "", line[3:].lower().replace(" ", "-"))
        for line in text.splitlines()
        if line.startswith("## ")
    }
    assert set(re.findall(r"\(#([^)]*)\)", text)) <= headings


def test_every_key_has_a_meaning():
    rows = [line for line in configuration_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []


@pytest.mark.parametrize("preset", STREAMS)
def test_the_template_is_accepted_by_the_loader_and_by_the_schema(tmp_path, preset):
    path = tmp_path / "forewatch.yaml"
    path.write_text(template(preset))
    assert load_config(path).streams.popitem()[1].preset == preset
    jsonschema.validate(YAML(typ="safe").load(path), json_schema())


@pytest.mark.parametrize("preset", STREAMS)
def test_what_the_template_leaves_out_is_shown_with_its_default(tmp_path, preset):
    path = tmp_path / "forewatch.yaml"
    path.write_text(template(preset))
    plain = load_config(path).model_dump()
    every_key = re.sub(r"^( *)# ( *\w+:( |$))", r"\1\2", template(preset), flags=re.MULTILINE)
    # The password of a Kafka source needs a protocol.
    path.write_text(every_key.replace("security: {}", "security: {security_protocol: SASL_SSL}"))
    assert "# storage:" not in path.read_text()
    full = load_config(path)
    jsonschema.validate(YAML(typ="safe").load(path), json_schema())
    assert full.database_password == Secret(env="NAME")
    shown = json.loads(
        json.dumps(full.model_dump(), default=str)
        .replace('{"env": "NAME", "file": null}', "null")
        .replace('{"security_protocol": "SASL_SSL"}', "{}")
    )
    assert shown == json.loads(json.dumps(plain, default=str))


def test_the_schema_is_a_valid_schema_and_refuses_what_the_loader_refuses():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    good = {
        "streams": {
            "a": {"source": {"memory": {}}, "format": {"json": {"series": "s", "time": "t", "values": "v"}}}
        }
    }
    jsonschema.validate(good, schema)
    Config.model_validate(good)
    for wrong in ({}, {**good, "extra": 1}, {**good, "engine": {"watchdog": "soon"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
