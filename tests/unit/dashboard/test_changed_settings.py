"""What would change: previews of alerts under other rules, and verdicts on recorded points."""

from __future__ import annotations

import httpx
import pytest

from tests.support.api_servers import CHANGE
from tests.support.browsers import open_page

STREAM = "streams/plant"


def preview(site: str, **settings) -> httpx.Response:
    url = f"{site}/api/v1/{STREAM}/preview"
    return httpx.post(url, json=settings, headers=CHANGE, trust_env=False)


def test_a_stricter_rule_sends_fewer_messages(site):
    now = httpx.get(f"{site}/api/v1/{STREAM}/preview", trust_env=False).json()
    assert now["messages"] > 0
    dropped = preview(site, rules="rules:\n- match: {series: 'berlin*'}\n  drop: true\n").json()
    assert 0 < dropped["messages"] < now["messages"]
    assert not any("berlin" in one["title"] for one in dropped["examples"])
    rules = httpx.get(f"{site}/api/v1/{STREAM}/rules", trust_env=False, timeout=60).json()
    assert "°C" in rules["rules"]
    assert rules["sensitivity"] == "normal"
    assert preview(site, rules=rules["rules"]).json()["messages"] == now["messages"]


def test_another_sensitivity_scores_the_recorded_points_again(site):
    low, high = (preview(site, sensitivity=one).json() for one in ("low", "high"))
    assert 0 < low["anomalies"] <= high["anomalies"]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("rules: [", "line"),
        ("budgets: 5", "budgets"),
        ("to: [nobody]", "no endpoint 'nobody'"),
        ("silences: {holidays: {calendar: /etc/passwd}}", "only calendars that the config names"),
        ("- a\n- b", "rules:"),
    ],
)
def test_rules_that_cannot_be_used_are_refused_with_the_reason(site, rules, said):
    answer = preview(site, rules=rules)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_a_changed_rule_is_previewed_on_the_page_of_alerts(site, browser):
    page, errors = open_page(browser, f"{site}/alerting")
    rules = page.get_by_label("Rules: the block alerts of the stream")
    page.get_by_role("option", name="as configured (normal)").wait_for(state="attached")
    rules.fill("rules:\n- drop: true\n")
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("fewer than now").first.wait_for()
    page.get_by_text("0 messages", exact=True).wait_for()
    rules.fill("rules: [")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("alert").wait_for()
    page.get_by_role("button", name="Rules in force").click()
    assert "units" in rules.input_value()
    assert not [one for one in errors if "422" not in one]


def test_recorded_points_are_tried_and_the_sliders_change_config_and_verdicts(site, browser):
    page, errors = open_page(browser, f"{site}/try")
    page.get_by_label("or the recorded points of a stream").select_option("plant")
    page.get_by_text("rows are flagged").wait_for()
    assert "plant:" in page.inner_text("pre[aria-label=YAML]")
    page.get_by_label("Sensitivity").focus()
    page.keyboard.press("ArrowRight")
    page.locator("pre[aria-label=YAML]").filter(has_text="sensitivity: high").wait_for()
    page.get_by_label("Direction").select_option("down")
    page.get_by_text("Scoring …").wait_for(state="hidden")
    page.locator("pre[aria-label=YAML]").filter(has_text="direction: down").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    assert "direction: down" in download.value.path().read_text()
    assert not errors
