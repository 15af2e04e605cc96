"""Warnings about unknown labels, in ``check`` and at the start."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.alerts.routing.unknown_labels import unknown_label_warnings
from pipeline.alerts.service import AlertService
from pipeline.cli.app import app
from pipeline.config.schema import Config
from pipeline.observability.metrics import Metrics
from storage.sql.database import Database

TREE = {
    "database": "sqlite:///forewatch.db",
    "http": None,
    "streams": {
        "plant": {
            "source": {"kafka": {"brokers": ["127.0.0.1:1"], "topics": ["plant"]}},
            "format": {"json": {"series": ["site", "severity"], "time": "t", "values": ["v"]}},
            "detector": "light",
        }
    },
}


def with_alerts(**alerts) -> dict:
    tree = copy.deepcopy(TREE)
    tree["streams"]["plant"]["alerts"] = alerts
    return tree


KNOWN = {
    "site": "a*",
    "label.severity": "!x",
    "severity": "major",
    "stream": "plant",
    "series": "*",
    "cause": "*",
}


def test_labels_and_properties_are_known():
    tree = with_alerts(
        group={"by": ["site", "severity"]},
        rules=[{"match": KNOWN}],
        silences={"night": {"match": {**KNOWN, "fault": "*"}, "cron": "0 2 * * *", "for": "1h"}},
    )
    assert unknown_label_warnings(Config.model_validate(tree)) == []


@pytest.mark.parametrize(
    ("alerts", "where"),
    [
        ({"rules": [{"match": {"sight": "a"}}]}, "alerts.rules.rule-1.match"),
        ({"rules": [{"name": "x", "match": {"site": "a", "sight": ["!b"]}}]}, "alerts.rules.x.match"),
        ({"rules": [{"match": {"label.sight": "a"}}]}, "alerts.rules.rule-1.match"),
        ({"rules": [{"group": {"by": ["sight"]}}]}, "alerts.rules.rule-1.group.by"),
        ({"group": {"by": ["site", "sight"]}}, "alerts.group.by"),
        (
            {"silences": {"n": {"match": {"sight": "*"}, "cron": "0 2 * * *", "for": "1h"}}},
            "silences.n.match",
        ),
    ],
)
def test_an_unknown_label_is_named_by_check_and_at_the_start(
    alerts: dict, where: str, tmp_path: Path, database: Database, capsys
):
    tree = with_alerts(**alerts)
    (warning,) = unknown_label_warnings(Config.model_validate(tree))
    assert where in warning
    assert "sight'" in warning
    assert "did you mean" in warning
    assert "site?" in warning
    file = tmp_path / "forewatch.yaml"
    file.write_text(json.dumps(tree))
    result = CliRunner().invoke(app, ["check", str(file), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["warnings"] == [warning]
    capsys.readouterr()
    AlertService(Config.model_validate(tree), database, Metrics()).start()
    assert warning in "".join(capsys.readouterr())
