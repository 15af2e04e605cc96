"""``forewatch calibration`` on recorded history: real segments, a real database."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.schema import Config
from pipeline.database import open_database
from tests.support.trainings import config_of, write_history

ROWS = 4_000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Config file of a stream whose recorded history is undisturbed noise."""
    folder = tmp_path_factory.mktemp("calibration")
    made = config_of(f"sqlite:///{folder}/forewatch.db", folder, "light")
    stream = made.streams["plant"].model_dump(mode="json", by_alias=True, exclude_none=True)
    stream |= {"decision": "usual_range"}
    keys = made.model_dump(mode="json", by_alias=True, exclude_none=True) | {"streams": {"plant": stream}}
    path = folder / "forewatch.yaml"
    path.write_text(json.dumps(keys))
    config = Config.model_validate(keys)
    rng = np.random.default_rng(1)
    write_history(config, {f"s{i}": 20 + rng.normal(0, 1, ROWS) for i in range(4)})
    with open_database(config):
        return path


def calibration(file, *arguments) -> str:
    result = CliRunner().invoke(app, ["calibration", "--stream", "plant", "-c", str(file), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_noise_is_calibrated_and_covered(file):
    report = json.loads(calibration(file, "--json"))
    assert (report["series"], report["rows"], report["interval"]) == (4, 4 * ROWS, 0.99)
    assert list(report["channels"]) == ["temperature", "all channels"]
    old = report["channels"]["all channels"]["old"]
    assert [one["rows"] for one in old["frequencies"]] == [4 * 2_000] * 3 + [0]
    assert [one["within"] for one in old["frequencies"][:2]] == [True, True]
    assert 0.985 <= old["coverage"] <= 0.995
    young = report["channels"]["temperature"]["young"]
    assert young["values"] == 4 * 1_801
    assert young["frequencies"][0]["within"]


def test_text_has_a_line_for_each_channel_age_and_rarity(file):
    out = calibration(file)
    assert out.count("temperature") == 3 + 3 + 2, "three rarities and one coverage of each age"
    assert "1 in 1,000" in out
    assert "inside the 0.99 interval" in out
    assert "all channels" not in out, "the same numbers as those of the only channel"
    assert "young: rows 200 to 2,000 of a series" in out
