"""Trials of the sensitivities on recorded history: real segments, a real database, the page in a parser."""

from __future__ import annotations

import json
from datetime import timedelta
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from pipeline.database import open_database
from pipeline.models.champion import champion_of
from pipeline.monitoring.history_replay import initial_state, read_recorded, replay
from pipeline.monitoring.sensitivity_page import MAX_DRAWN_ROWS, _drawn_rows
from pipeline.monitoring.sensitivity_page import page as page_of
from pipeline.monitoring.sensitivity_trial import try_sensitivities
from tests.support.trainings import config_of, write_history

HOSTILE = 'pump <script>alert("x")</script> & co'
ROWS = 6 * 1440
FAULT_AT = ROWS - 600


def values(seed: int, fault: float) -> np.ndarray:
    x = 20 + np.random.default_rng(seed).normal(0, 0.3, ROWS)
    x[FAULT_AT : FAULT_AT + 30] += fault
    return x


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Config file and config of a stream with recorded history; the second series has a fault of 20 sigma."""
    folder = tmp_path_factory.mktemp("tune")
    made = config_of(f"sqlite:///{folder}/forewatch.db", folder, "light")
    stream = made.streams["plant"].model_dump(mode="json", by_alias=True, exclude_none=True)
    stream |= {"decision": "usual_range", "sensitivity": "normal"}
    del stream["alarm_rate"]
    keys = made.model_dump(mode="json", by_alias=True, exclude_none=True) | {"streams": {"plant": stream}}
    file = folder / "forewatch.yaml"
    file.write_text(json.dumps(keys))
    config = Config.model_validate(keys)
    write_history(config, {"calm": values(1, 0), HOSTILE: values(2, 6)})
    with open_database(config):
        return file, config


def tune(file, *arguments) -> str:
    result = CliRunner().invoke(app, ["tune", "--stream", "plant", "-c", str(file), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_fault_is_an_event_of_each_sensitivity(setting):
    report = json.loads(tune(setting[0], "--last", "2d", "--json"))
    assert [one["sensitivity"] for one in report["sensitivities"]] == ["low", "normal", "high"]
    assert [one["configured"] for one in report["sensitivities"]] == [False, True, False]
    assert report["series_months"] == pytest.approx(2 * 2 / 30, rel=0.01)
    for one in report["sensitivities"]:
        faults = [event for event in one["events"] if event["series"] == HOSTILE]
        assert faults, one["sensitivity"]
        assert {event["severity"] for event in faults} & {"major", "critical"}
        assert one["anomalies"] == len(one["events"]) == sum(one["severities"].values())
        assert one["per_series_and_month"] == pytest.approx(one["anomalies"] / report["series_months"])


def test_events_before_the_span_do_not_count(setting):
    report = json.loads(tune(setting[0], "--last", "2h", "--json"))
    assert all(one["anomalies"] == 0 for one in report["sensitivities"])
    assert report["rows"] == 2 * ROWS, "older rows are learned"


def test_the_replay_gives_the_verdicts_that_were_recorded(setting):
    _, config = setting
    stream = config.streams["plant"]
    with open_database(config) as database:
        champion = champion_of(database, "plant", stream)
        rows = read_recorded(config.history_path, "plant", stream, 1_000_000)
        assert rows.series == ["calm", HOSTILE]
        flag = np.zeros(len(rows), bool)
        for at, scored in replay(champion, initial_state(database, champion, stream, rows), rows):
            flag[at] = scored.verdicts.flag
            assert (np.diff(scored.seq[scored.points.slot == 0]) == 1).all()
    from pipeline.training.dataset import from_history

    assert (flag == from_history(config.history_path, "plant", stream.channels).flagged).all()
    assert flag[rows.first[1] + FAULT_AT :].any()


class Elements(HTMLParser):
    """Tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name in ("src", "href") or name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


def test_the_page_stands_alone_and_escapes_names(setting, tmp_path):
    page = tmp_path / "tune.html"
    tune(setting[0], "--last", "2d", "--page", str(page))
    found = Elements()
    found.feed(page.read_text())
    assert "script" not in found.tags
    assert HOSTILE in found.text
    assert {"svg", "table", "polyline"} <= set(found.tags)


def test_a_picture_needs_no_usual_range_of_the_value(setting):
    config = setting[1]
    stream = config.streams["plant"]
    with open_database(config) as database:
        rows = read_recorded(config.history_path, "plant", stream, 1_000_000)
        report = try_sensitivities(database, "plant", stream, rows, timedelta(days=2))
    for one in report.configured.anomalies:
        one.cause = "unusual_step"  # a range of changes is no line in a picture of values
    assert report.configured.anomalies
    assert "<polyline" in page_of(report, rows)


def test_a_long_picture_keeps_the_peak():
    x = np.zeros(20_000)
    x[7_001], x[7_002], x[500] = 25.0, -3.0, np.nan
    rows = _drawn_rows(x, 100, 19_000)
    assert len(rows) <= MAX_DRAWN_ROWS
    assert (np.diff(rows) > 0).all()
    assert {7_001, 7_002} <= set(rows.tolist())
    assert len(_drawn_rows(x, 0, 50)) == 50


def test_text_names_the_sensitivities_that_raise_an_event(setting):
    out = tune(setting[0], "--last", "2d")
    assert "normal (configured)" in out
    assert "low, normal, high" in out


def test_errors_say_what_to_do(setting, tmp_path):
    file, config = setting
    runner = CliRunner()
    bad = runner.invoke(app, ["tune", "--stream", "plant", "-c", str(file), "--last", "soon"])
    assert bad.exit_code == 2
    assert "duration such as" in bad.output
    nowhere = runner.invoke(
        app, ["tune", "--stream", "plant", "-c", str(file), "--page", str(tmp_path / "no" / "x.html")]
    )
    assert isinstance(nowhere.exception, InputError)
    assert "there is no folder" in str(nowhere.exception)
    with pytest.raises(InputError, match="no recorded history"):
        read_recorded(str(tmp_path / "empty"), "plant", config.streams["plant"], 100)
