"""The Prometheus rules and Grafana dashboards: generated, correct, and each alert fires when it must."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.observability.metrics_reference import metric_descriptions
from tests.deploy.alert_cases import CASES
from tools.monitoring.__main__ import CHART_RULES, DASHBOARD_FOLDER, ROOT, RULES, generated_files
from tools.monitoring.alert_rules import ALERT_GROUPS, RECORDING_RULES, recorded_names
from tools.monitoring.dashboards import DASHBOARDS
from tools.monitoring.metric_names import UnknownMetric, check_expression, metric_labels
from tools.monitoring.panels import expressions

ALERTS = {rule.name: rule for rules in ALERT_GROUPS.values() for rule in rules}


def panel_expressions() -> list[str]:
    """Return the expressions of all dashboards."""
    return [expression for dashboard in DASHBOARDS for expression in expressions(dashboard)]


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", generated_files(), ids=str)
def test_the_files_are_those_that_the_generator_writes(path: Path):
    assert (ROOT / path).read_text(encoding="utf-8") == generated_files()[path], (
        "run python -m tools.monitoring and commit what it wrote"
    )


@pytest.mark.parametrize(
    "expression",
    [
        "rate(forewatch_record_total[5m])",
        'forewatch_records_total{state="late"}',
        "sum by (topic) (forewatch_records_total)",
        "forewatch_batch_seconds",
        "forewatch:records:rate1m",
    ],
)
def test_an_expression_with_an_unknown_name_is_refused(expression: str):
    with pytest.raises(UnknownMetric):
        check_expression(expression, recorded_names())


def test_a_renamed_metric_makes_the_generator_fail(monkeypatch: pytest.MonkeyPatch):
    without = {name: labels for name, labels in metric_labels().items() if name != "forewatch_lag_records"}
    monkeypatch.setattr("tools.monitoring.metric_names.metric_labels", lambda: without)
    with pytest.raises(UnknownMetric, match="no metric forewatch_lag_records"):
        generated_files()


def test_prometheus_accepts_the_rules(promtool: str):
    assert "SUCCESS" in run(promtool, "check", "rules", str(ROOT / RULES))


def test_each_alert_has_a_case_that_fires_and_one_that_does_not():
    assert {case.alert for case in CASES if case.labels is not None} == ALERTS.keys()
    assert {case.alert for case in CASES if case.labels is None} == ALERTS.keys()


def test_alerts_fire_when_they_must_and_only_then(promtool: str, tmp_path: Path):
    tests = []
    for case in CASES:
        rule = ALERTS[case.alert]
        expected = [] if case.labels is None else [{"exp_labels": {"severity": rule.severity, **case.labels}}]
        tests.append(
            {
                "interval": "1m",
                "name": f"{case.alert} {'fires' if expected else 'does not fire'}",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [
                    {"eval_time": f"{case.minute}m", "alertname": case.alert, "exp_alerts": expected}
                ],
            }
        )
    # Only labels are compared: the annotations are taken out, as promtool would compare them too.
    rules = YAML(typ="safe").load((ROOT / RULES).read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (tmp_path / "rules.yaml").write_text(json.dumps(rules))
    (tmp_path / "tests.yaml").write_text(
        json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )
    run(promtool, "test", "rules", str(tmp_path / "tests.yaml"))


def test_prometheus_parses_the_expression_of_every_panel(promtool: str, tmp_path: Path):
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$\w+", ".*", expression)}
        for number, expression in enumerate(panel_expressions())
    ]
    assert len(rules) > 50
    (tmp_path / "panels.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(promtool, "check", "rules", str(tmp_path / "panels.yaml"))


def test_every_metric_is_shown_or_watched():
    text = " ".join(
        [*panel_expressions(), *(rule.expression for rule in (*ALERTS.values(), *RECORDING_RULES))]
    )
    used = {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\bforewatch_\w+", text)}
    assert {one.name for one in metric_descriptions()} - used == set()


def test_annotations_name_labels_that_the_alert_has():
    fired = {case.alert: case.labels for case in CASES if case.labels is not None}
    for name, rule in ALERTS.items():
        used = {word.split(" ")[0] for word in rule.summary.split("$labels.")[1:]}
        assert {word.rstrip("}:,;") for word in used} <= fired[name].keys() | {"instance"}, name


def test_panels_do_not_overlap_and_have_unique_numbers():
    for file in sorted((ROOT / DASHBOARD_FOLDER).glob("*.json")):
        panels = json.loads(file.read_text(encoding="utf-8"))["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])
            }
            assert not cells & taken, (file.name, panel["title"])
            taken |= cells


def test_the_chart_carries_the_same_rules():
    assert (ROOT / CHART_RULES).read_text(encoding="utf-8") == (ROOT / RULES).read_text(encoding="utf-8")
