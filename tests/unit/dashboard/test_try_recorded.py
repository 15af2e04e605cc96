"""Try with the recorded points of a stream: its own settings, other ones, and the YAML of the difference."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from pipeline.config.schema import Config
from pipeline.core.errors import ForewatchError
from pipeline.services import try_recorded as tried
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.browsers import open_page
from tests.unit.dashboard.conftest import JUMPING, NAMES, config_of, run_until_read

SECOND = 10**9


def with_keys(config: Config, **keys: Any) -> Config:
    """Return a config whose stream has further keys."""
    stream = config.streams["plant"]
    values = stream.model_dump(exclude_unset=True, mode="json") | keys
    return config.model_copy(update={"streams": {"plant": type(stream).model_validate(values)}})


def try_recorded(config: Config, stream: str, query: dict[str, str]) -> dict[str, Any]:
    """Call the service with the database of the config."""
    with closing(Database(config.database)) as database:
        return tried.try_recorded(database, config, stream, query)


def test_the_settings_are_those_of_the_stream_until_they_are_changed(filled):
    config = with_keys(filled, sensitivity="high", direction="up", min_points=2)
    found = try_recorded(config, "plant", {})
    assert found["settings"] == {
        "sensitivity": "high",
        "direction": "up",
        "min_deviation": "0.0",
        "min_points": "2",
        "timezone": "UTC",
        "holidays": "none",
    }
    assert found["yaml"] == "streams:\n  plant:\n    preset: sensor\n"
    changed = try_recorded(config, "plant", {"sensitivity": "normal", "direction": "up", "min_points": "1"})
    assert changed["yaml"].splitlines()[3:] == ["    sensitivity: normal", "    min_points: 1"]


def test_the_season_is_that_of_the_stream_until_it_is_changed(filled):
    config = with_keys(filled, timezone="Europe/Berlin", holidays="DE-BY")
    found = try_recorded(config, "plant", {})
    assert (found["settings"]["timezone"], found["settings"]["holidays"]) == ("Europe/Berlin", "DE-BY")
    assert found["yaml"] == "streams:\n  plant:\n    preset: sensor\n"
    changed = try_recorded(config, "plant", {"timezone": "Asia/Tokyo", "holidays": "none"})
    assert changed["yaml"].splitlines()[3:] == ["    timezone: Asia/Tokyo", "    holidays: null"]
    for wrong in ({"timezone": "Berlin"}, {"holidays": "XX"}):
        with pytest.raises(ForewatchError, match=r"there (is no time zone|are no holidays)"):
            try_recorded(config, "plant", wrong)


def test_a_stream_with_an_alarm_rate_gets_the_sensitivity_that_the_page_shows(filled):
    found = try_recorded(with_keys(filled, alarm_rate=0.01), "plant", {})
    assert "sensitivity: normal" in found["yaml"]


@pytest.mark.parametrize("detector", ["light", "standard"])
def test_points_are_judged_by_the_detector_of_the_stream(filled, detector):
    assert try_recorded(with_keys(filled, detector=detector), "plant", {})["detector"] == detector


def test_the_series_with_most_flagged_rows_is_shown_first(filled):
    found = try_recorded(filled, "plant", {})
    assert found["shown"] == found["names"][0] in {NAMES[n] for n in JUMPING}
    assert found["flagged_of"] == sorted(found["flagged_of"], reverse=True)
    assert found["flagged_of"][0] > 0
    assert try_recorded(filled, "plant", {"show": "berlin-2"})["shown"] == "berlin-2"


def test_the_range_of_another_quantity_is_not_drawn_as_the_forecast(filled):
    found = try_recorded(filled, "plant", {})
    forecasts = [one for one, flag in zip(found["expected"], found["flags"], strict=True) if flag]
    assert forecasts
    assert set(forecasts) == {None}
    assert all(15 < one < 35 for one in found["expected"][100:] if one is not None)


def test_a_young_stream_is_judged_by_what_its_warm_start_has_learned(tmp_path, sqlite_template):
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    rng, began_ns = np.random.default_rng(3), time.time_ns() - 2000 * SECOND
    for name, first, rows, jump in (("past", 0, 1500, ()), ("now.csv", 1500, 100, range(60, 75))):
        lines = ["sensor,t,v,w"]
        for row in range(rows):
            v, w = 20 + rng.normal(0, 0.2), 5 + rng.normal() + 30 * (row in jump)
            lines.append(f"a,{began_ns + (first + row) * SECOND},{v:.4f},{w:.4f}")
        path = tmp_path / name if name.endswith("csv") else tmp_path / "warm" / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([*lines, ""]))
    config = with_keys(config_of(tmp_path), warm_start=str(tmp_path / "warm"))
    config = config.model_copy(update={"endpoints": {}})
    run_until_read(config, 1500 + 99)
    found = try_recorded(config, "plant", {})
    assert found["judged"] == ["v", "w"]
    assert found["flagged"] > 0, "a jump of the channel that is not shown"
    assert "warm_start" in found["notes"][0]
    other = try_recorded(config, "plant", {"preset": "network"})
    assert other["flagged"] == 0
    assert "fewer than 150 rows" in other["notes"][-1]


def test_of_many_series_those_with_anomalies_and_the_shown_one_are_judged(filled, monkeypatch):
    monkeypatch.setattr(tried, "MAX_ROWS", 1000)
    monkeypatch.setattr(tried, "MAX_FEW_SERIES", 4)
    found = try_recorded(filled, "plant", {"show": "berlin-2"})
    assert set(found["names"]) == {"berlin-2", *(NAMES[n] for n in JUMPING)}
    assert found["shown"] == "berlin-2"


def test_an_incident_leads_to_other_settings_of_its_series_and_their_yaml(filled, site, browser):
    database = Database(filled.database)
    with database.read() as connection:
        jump = anomalies.query(connection, stream="plant", series="berlin-1")[0]
    database.close()
    page, errors = open_page(browser, f"{site}/anomalies/{jump.id}")
    page.get_by_role("link", name="Try other settings").press("Enter")
    page.get_by_role("heading", name="of them in berlin-1").wait_for()
    assert "preset: sensor" in page.get_by_label("YAML").inner_text()
    assert page.get_by_label("Shown value").input_value() == jump.channels[jump.leading_channel]
    page.get_by_role("slider", name="Sensitivity").press("ArrowRight")
    page.get_by_text("sensitivity: high").wait_for()
    page.get_by_role("slider", name="Sensitivity").press("ArrowLeft")
    page.get_by_text("sensitivity: high").wait_for(state="detached")
    assert not errors
