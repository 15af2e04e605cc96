"""Every page in a browser, its changes through the served routes, and its answers."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from detectors.base import FORECASTERS
from pipeline.core.types import Anomaly, AnomalyState
from pipeline.core.verdict_words import CAUSES_OF_VALUES
from storage.alerting import alerts, deliveries, silences
from storage.alerting.states import AlertState, DeliveryState
from storage.results import anomalies, labels
from storage.sql.database import Database
from storage.tables.alerting import DeliveryRow
from tests.support.alerting import TEXT_OF_ENDED_DRIFT, ended_drift
from tests.support.browsers import open_page
from tests.unit.dashboard.conftest import HOSTILE, NAMES

AXE = (
    Path(__file__).parents[3] / "pipeline" / "dashboard" / "web" / "node_modules" / "axe-core" / "axe.min.js"
)
CHANGE = {"x-forewatch-csrf": "1"}
NOBODY = "00000000-0000-4000-8000-000000000000"


def view(site: str, path: str, **query) -> dict:
    answer = httpx.get(f"{site}/api/v1/{path}", params=query, trust_env=False, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def change(site: str, path: str, body: dict, headers: dict = CHANGE, method: str = "POST") -> httpx.Response:
    return httpx.request(
        method, f"{site}/api/v1/{path}", json=body, headers=headers, trust_env=False, timeout=60
    )


@pytest.fixture(scope="module")
def jump(filled):
    """Return the largest anomaly of the first series."""
    database = Database(filled.database)
    with database.read() as connection:
        found = anomalies.query(connection, stream="plant", series="berlin-1")
    database.close()
    return max(found, key=lambda one: one.surprise)


def test_series_has_the_recorded_points_and_the_anomaly(site, jump):
    found = view(site, "chart", stream="plant", series="berlin-1")
    assert found["rows"] > 800
    assert max(found["points"]["v"]["max"]) > 27
    assert str(jump.id) in {one["id"] for one in found["anomalies"]}
    assert found["units"] == {"v": "°C"}


def test_an_interval_without_an_end_is_left_out_of_the_charts(site):
    found = view(site, "chart", stream="plant", series="berlin-1")
    first = found["points"]["v"]
    assert (first["lower"][0], first["upper"][0]) == (None, None), "before the second point there is none"
    assert all(10 < one < 40 for part in ("lower", "upper") for one in first[part][20:])
    points = view(site, "points", stream="plant", series="berlin-1")
    assert points["upper"][0] is None


def test_every_series_has_one_active_forecaster(site):
    found = view(site, "streams/plant/forecasters")["items"]
    assert sum(one["series"] for one in found) == len(NAMES)
    assert {one["forecaster"] for one in found} <= set(FORECASTERS)
    shown = [name for one in found for name in one["examples"]]
    assert set(shown) <= set(NAMES)
    assert [one["series"] for one in found] == sorted((one["series"] for one in found), reverse=True)


def test_series_is_reduced_to_extremes_that_keep_the_jump(site):
    found = view(site, "chart", stream="plant", series="berlin-1", width=50)
    assert len(found["time_ms"]) <= 51
    assert found["reduced"]
    assert max(found["points"]["v"]["max"]) > 27
    assert min(found["points"]["v"]["min"]) < 20


def test_the_chart_of_an_incident_has_some_hundred_points_before_it_and_some_after(site, jump):
    found = view(site, "chart", stream="plant", series="berlin-1", anomaly=str(jump.id))
    start_ms, end_ms = jump.start_ns / 1e6, jump.end_ns / 1e6
    before = [one for one in found["time_ms"] if one < start_ms]
    after = [one for one in found["time_ms"] if one > end_ms]
    assert (len(before), len(after)) == (300, 60)
    assert found["points"]["v"]["lower"][len(before) // 2] is not None
    assert (
        httpx.get(
            f"{site}/api/v1/chart",
            params={"stream": "plant", "series": "berlin-1", "anomaly": NOBODY},
            trust_env=False,
        ).status_code
        == 404
    )


def test_an_incident_draws_the_usual_range_of_its_cause(site, browser, jump):
    page, errors = open_page(browser, f"{site}/anomalies/{jump.id}")
    page.locator(".plot canvas").wait_for()
    shown = page.inner_text(".plot h3")
    assert ("usual range of the cause" in shown) == (jump.cause in CAUSES_OF_VALUES)
    page.locator(".plot .u-over").hover()
    assert "expected" in page.inner_text(".plot .u-legend")
    gap = page.evaluate(
        "(() => { const plot = document.querySelector('.plot'); return plot.getBoundingClientRect().bottom"
        " - plot.querySelector('canvas').getBoundingClientRect().bottom; })()"
    )
    assert gap < 20, "no room is kept for the legend below the chart"
    assert not errors


def test_incident_states_the_value_of_the_anomaly(site, jump):
    found = view(site, f"incidents/{jump.id}")
    (first, *_) = found["anomalies"]
    leading = max(first["channels"], key=lambda one: one["contribution"])
    assert leading["channel"] in first["text"]
    assert f"{leading['observed']:.3g}" in first["text"]
    assert "berlin-1" not in {one["series"] for one in found["around"]} or found["around"]


@pytest.mark.parametrize("word", ["true", "false", "maintenance"])
def test_label_is_stored(filled, site, jump, word):
    body = {"label": word, "author": "ada"}
    assert change(site, f"anomalies/{jump.id}/label", body, method="PUT").status_code == 200
    database = Database(filled.database)
    with database.read() as connection:
        assert labels.of(connection, [jump.id])[jump.id] == word
    database.close()


def test_silence_of_a_series_can_be_ended(filled, site, jump):
    ends = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    made = change(site, "silences", {"stream": "plant", "series": "berlin-1", "ends": ends}).json()
    database = Database(filled.database)
    with database.read() as connection:
        (one,) = silences.in_force(connection, "plant", time.time_ns())
    assert one.match == {"series": "berlin-1"}
    assert change(site, f"silences/{made['id']}", {}, method="DELETE").status_code == 204
    with database.read() as connection:
        assert not silences.in_force(connection, "plant", time.time_ns())
    database.close()


def test_explain_recomputes_the_verdict(site, jump):
    answer = view(site, f"anomalies/{jump.id}/explanation")
    assert answer["verdict"] in ("holds", "changed", "unknown")
    assert "Recomputed" in answer["text"]


def test_acknowledged_alert_and_one_that_has_ended(filled, site):
    database = Database(filled.database)
    with database.read() as connection:
        open_ones = alerts.query(connection, states=[AlertState.OPEN])
    database.close()
    if open_ones:
        assert change(site, f"alerts/{open_ones[0].alert_id}/acknowledge", {}).status_code == 202
    assert change(site, f"alerts/{NOBODY}/acknowledge", {}).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 403), (CHANGE | {"origin": "http://evil.example"}, 403), (CHANGE, 404)],
)
def test_change_of_another_site_is_refused(site, headers, status):
    path = f"anomalies/{NOBODY}/label"
    assert change(site, path, {"label": "true"}, headers, method="PUT").status_code == status


def test_large_and_broken_bodies_are_refused(site):
    url = f"{site}/api/v1/silences"
    large = httpx.post(url, content=b"x" * 100_000, headers=CHANGE, trust_env=False, timeout=60)
    broken = httpx.post(url, content=b"[1", headers=CHANGE, trust_env=False, timeout=60)
    assert (large.status_code, broken.status_code) == (413, 422)
    file = httpx.post(
        f"{site}/api/v1/try", content=b"x" * 100_000, headers=CHANGE, trust_env=False, timeout=60
    )
    assert file.status_code == 422


def test_preview_counts_more_messages_at_a_lower_level(site):
    low = view(site, "streams/plant/preview", notice="info")
    high = view(site, "streams/plant/preview", notice="critical")
    assert low["messages"] >= high["messages"]
    assert low["messages"] > 0


def test_config_is_shown_without_the_secret(filled, site):
    secret = filled.endpoints["ops"].secret.file.read_text()
    text = httpx.get(f"{site}/api/v1/config", trust_env=False, timeout=60).text
    assert "plant" in text
    assert secret not in text


def test_try_scores_a_file_and_gives_its_config(site):
    lines = ["time,machine,load"]
    lines += [
        f"2026-01-01T{n // 60:02}:{n % 60:02}:00Z,m1,{50 + n % 7 + 300 * (n == 900)}" for n in range(1000)
    ]
    url = f"{site}/api/v1/try"
    answer = httpx.post(
        url,
        content="\n".join(lines),
        params={"sensitivity": "high"},
        headers=CHANGE,
        trust_env=False,
    )
    found = answer.json()
    assert (found["time"], found["series"], found["values"]) == ("time", "machine", ["load"])
    assert found["flags"][900]
    assert "sensitivity: high" in found["yaml"]
    assert (
        httpx.post(url, content=b"\x00\x01", headers=CHANGE, trust_env=False, timeout=60).status_code == 422
    )


def paths(jump) -> dict[str, str]:
    return {
        "fleet": "/?range=1h",
        "series": "/series?stream=plant&series=berlin-1",
        "incident": f"/anomalies/{jump.id}",
        "alerting": "/alerting",
        "models": "/models",
        "try": "/try",
        "system": "/system",
        "audit": "/audit",
        "missing": "/nonsense",
    }


PAGES = ["fleet", "series", "incident", "alerting", "models", "try", "system", "audit", "missing"]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_page_is_accessible_and_keeps_its_policy(site, browser, jump, name, scheme):
    page, errors = open_page(browser, site + paths(jump)[name], color_scheme=scheme)
    page.wait_for_selector("main h1", state="attached")
    page.wait_for_selector(".skeleton", state="detached")
    page.wait_for_timeout(200)
    assert not [one for one in errors if name != "missing" or "404" not in one]
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: make dashboard")
    page.evaluate(AXE.read_text())  # Playwright evaluates in the page without a script element
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [
        (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
    ]
    assert not serious
    page.close()


def test_series_of_hostile_names_open_as_text(site, browser):
    for name in HOSTILE:
        page, errors = open_page(
            browser, str(httpx.URL(f"{site}/series", params={"stream": "plant", "series": name}))
        )
        page.wait_for_selector(".plot")
        shown = page.text_content("h1")
        assert name.replace("\u202e", "\ufffd") in shown
        assert "\u202e" not in shown
        assert "owned" not in page.title() or name in page.title()
        assert page.evaluate("document.images.length") == 1
        assert not errors
        page.close()


def test_incident_is_usable_at_phone_width(site, browser, jump):
    page, _ = open_page(browser, f"{site}/anomalies/{jump.id}", viewport={"width": 390, "height": 800})
    page.wait_for_selector(".sentence")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="True anomaly").click()
    page.wait_for_selector("text=Labelled true.")


@pytest.mark.parametrize("path", ["/?range=1h", "/series?stream=plant&series=" + "x" * 250])
def test_a_page_fits_the_width_of_a_phone(site, browser, path):
    page, errors = open_page(browser, f"{site}{path}", viewport={"width": 390, "height": 800})
    page.locator(".lanes canvas, .plot canvas").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not errors


@pytest.mark.parametrize("page_of", ["incident", "alerting", "series"])
def test_no_column_of_a_table_is_cut_off_on_a_phone(site, browser, jump, page_of):
    paths = {"incident": f"/anomalies/{jump.id}", "alerting": "/alerting"}
    path = paths.get(page_of, "/series?stream=plant&series=berlin-1")
    page, errors = open_page(browser, f"{site}{path}", viewport={"width": 390, "height": 800})
    cells = page.locator(".scroll td")
    cells.first.wait_for()
    hidden = page.evaluate(
        "[...document.querySelectorAll('.scroll td')]"
        ".filter((one) => one.getBoundingClientRect().right > 390).length"
    )
    assert hidden == 0
    assert cells.first.get_attribute("data-label")
    assert not errors


def test_a_message_is_shown_with_its_attempts(filled, site, browser):
    page, errors = open_page(browser, f"{site}/alerting")
    page.get_by_role("button", name="Message to ops").first.click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("Payload").wait_for()
    assert '"series"' in dialog.get_by_label("Payload").inner_text()
    page.keyboard.press("Escape")
    assert not errors


def test_a_silence_is_confirmed_by_keyboard_and_ended_on_the_page_of_alerts(filled, site, browser, jump):
    page, errors = open_page(browser, f"{site}/anomalies/{jump.id}")
    page.get_by_role("button", name="Silence this series").focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("Duration of the silence").select_option("8")
    page.keyboard.press("a")  # keys of pages do nothing while a dialog is open
    dialog.get_by_role("button", name="Silence this series").press("Enter")
    dialog.get_by_text("Alerts of this series are silenced until").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")
    page.goto(f"{site}/alerting")
    page.get_by_role("button", name="End the silence of dashboard").click()
    page.locator("dialog[open]").get_by_role("button", name="End", exact=True).click()
    page.get_by_text("The silence has ended.").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("Nothing is silenced.").wait_for()
    assert not errors


def test_a_dead_message_is_sent_again_from_the_page_of_alerts(filled, site, browser):
    database = Database(filled.database)
    with database.begin() as connection:
        sent = deliveries.query(connection)
        connection.execute(update(DeliveryRow).values(state=DeliveryState.DEAD, reason="attempts"))
    assert sent
    page, errors = open_page(browser, f"{site}/alerting")
    page.get_by_role("button", name="Redeliver to ops").first.click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_role("button", name="Redeliver").click()
    dialog.get_by_text("The message is queued again for ops").wait_for()
    with database.read() as connection:
        assert sum(one.state is DeliveryState.PENDING for one in deliveries.query(connection)) == 1
    database.close()
    assert not errors


def test_open_anomalies_are_listed_in_words_on_the_fleet(filled, site, browser, jump):
    database = Database(filled.database)
    with database.begin() as connection:
        anomalies.upsert(connection, [replace(jump, state=AnomalyState.OPEN, revision=jump.revision + 1)])
    try:
        page, _ = open_page(browser, f"{site}/?range=1h")
        line = page.locator(".opennow li").filter(has_text="berlin-1")
        line.wait_for()
        assert "usual" in line.inner_text()
        line.get_by_role("link").click()
        page.get_by_text("What to do").wait_for()
        assert page.locator(".badge").inner_text().startswith("open")
    finally:
        with database.begin() as connection:
            anomalies.upsert(connection, [replace(jump, revision=jump.revision + 2)])
        database.close()


def test_an_ended_incident_has_the_sentence_of_the_message_of_its_end(filled, site, browser):
    one, database = ended_drift(), Database(filled.database)
    beside = replace(one, id=Anomaly.identify("plant", "b2/t2", one.start_ns), series="b2/t2")
    with database.begin() as connection:
        anomalies.upsert(connection, [one, beside])
    sentence = TEXT_OF_ENDED_DRIFT.replace(" °C", "")  # the config has no unit of this channel
    try:
        page, errors = open_page(browser, f"{site}/anomalies/{one.id}", timezone_id="UTC")
        page.wait_for_selector(".sentence")
        shown = page.inner_text(".sentence")
        assert shown == f"{sentence}. It began at Mar 02, 12:00:00 UTC and lasted 5 h."
        listed = page.locator(".card").filter(has_text="What else broke")
        assert sentence in listed.inner_text()
        assert not errors
    finally:
        with database.begin() as connection:
            gone = [replace(a, points=0, revision=a.revision + 1) for a in (one, beside)]
            anomalies.upsert(connection, gone)
        database.close()


def test_times_are_those_of_the_reader_beside_utc(site, browser, jump):
    page, _ = open_page(browser, f"{site}/anomalies/{jump.id}", timezone_id="Asia/Tokyo")
    page.wait_for_selector(".sentence")
    assert "UTC+9 (" in page.inner_text(".sentence")
    assert page.inner_text(".zone") == "Tokyo, UTC+9"
    steps = page.locator(".card").filter(has_text="What to do").inner_text()
    assert " UTC" not in steps.replace("(UTC", "")
    assert " JST" in steps


def test_palette_opens_a_page_by_keyboard(site, browser):
    page, _ = open_page(browser, site)
    page.wait_for_selector("[data-lanes]")
    page.keyboard.press("Control+k")
    page.keyboard.type("system")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Config in force")


def test_palette_has_the_focus_before_the_next_key(site, browser):
    page, _ = open_page(browser, site)
    page.wait_for_selector("[data-lanes]")
    focused = page.evaluate("""async () => {
        document.dispatchEvent(new KeyboardEvent("keydown", { key: "k", ctrlKey: true, bubbles: true }));
        await Promise.resolve().then(() => undefined).then(() => undefined);
        return document.activeElement.closest(".palette") !== null;
    }""")
    assert focused
