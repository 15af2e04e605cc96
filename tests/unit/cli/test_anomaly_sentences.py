"""Sentences that the commands about anomalies print: those of the messages, with units and time zone."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.text_settings import TextSettings, read_text_settings
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import TEXT_OF_ENDED_DRIFT, ended_drift

STREAM = "{source: {memory: {}}, format: {csv: {series: s, time: t, values: v}}%s}"


def config_of(folder: Path, more: str, database: str = "sqlite:///forewatch.db") -> Path:
    """Write a config of one stream."""
    file = folder / "forewatch.yaml"
    file.write_text(f"database: {database}\nstreams: {{plant: {STREAM % more}}}\n")
    return file


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (", alerts: {units: {temperature: °C}}", TEXT_OF_ENDED_DRIFT),
        (
            ", timezone: Europe/Berlin, alerts: {units: {temperature: °C}}",
            TEXT_OF_ENDED_DRIFT.replace("17:00 UTC", "18:00 CET"),
        ),
    ],
)
def test_an_ended_anomaly_has_the_sentence_of_the_message_of_its_end(
    tmp_path, sqlite_template, more, sentence
):
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    url, one = f"sqlite:///{tmp_path}/forewatch.db", ended_drift()
    with closing(Database(url)) as database, database.begin() as connection:
        anomalies.upsert(connection, [one])
    file = config_of(tmp_path, more, url)

    def output(*words: str) -> str:
        result = CliRunner().invoke(app, ["anomalies", *words, "-c", str(file)], env={"COLUMNS": "400"})
        assert result.exit_code == 0, result.output
        return result.stdout

    (listed,) = json.loads(output("list", "--json"))
    shown = json.loads(output("show", str(one.id), "--json"))
    assert listed["statement"] == shown["statement"] == sentence
    assert (shown["channels"][0]["observed"], shown["peak"]) == (92.1, listed["peak"])
    assert sentence in " ".join(output("list").split())
    assert sentence in " ".join(output("show", str(one.id)).split())
    assert sentence in output("explain", str(one.id))


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ("", TextSettings()),
        (", timezone: Mars/Phobos, alerts: [units]", TextSettings()),
        (", timezone: ../../etc/passwd, alerts: {units: {v: 1, w: bar}}", TextSettings({"w": "bar"})),
        (", calendar: XNYZ", TextSettings()),
        (", calendar: XNYS", TextSettings(timezone="America/New_York")),
    ],
)
def test_wrong_settings_of_texts_count_as_left_out(tmp_path, more, settings):
    assert read_text_settings(config_of(tmp_path, more)) == {"plant": settings}
