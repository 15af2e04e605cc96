"""The key ``forecaster``: what it names, what is refused with line and reason, and hashes that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from detectors.forecasters.network_spec import NetworkSpec
from pipeline.config.loader import load_config
from pipeline.config.schema import Stream
from pipeline.config.stream_hash import config_hash
from pipeline.config.yaml_file import ConfigFileError
from pipeline.models.champion import detector_spec, network_of


def load(folder: Path, forecaster: dict[str, Any] | None, **settings: Any) -> Stream:
    stream = {
        "source": {"memory": {"name": "plant"}},
        "format": {"json": {"series": "sensor", "time": "ts", "values": ["temperature"]}},
        **settings,
    }
    if forecaster is not None:
        stream["forecaster"] = forecaster
    path = folder / "forewatch.yaml"
    path.write_text(yaml.safe_dump({"streams": {"plant": stream}}))
    return load_config(path).streams["plant"]


def test_the_key_of_the_issue(tmp_path: Path) -> None:
    keys = {"kind": "gru", "layers": 2, "hidden": 64, "head": "many_to_one", "output": "student_t"}
    stream = load(tmp_path, keys | {"activation": "tanh"})
    assert stream.forecaster is not None
    assert stream.forecaster.spec == NetworkSpec(
        "gru", layers=2, hidden=64, head="many_to_one", output="student_t", activation="tanh"
    )


def test_defaults_depend_on_the_kind(tmp_path: Path) -> None:
    found = {}
    for kind in ("feedforward", "encoder_decoder", "rnn"):
        forecaster = load(tmp_path, {"kind": kind}).forecaster
        assert forecaster is not None
        found[kind] = (forecaster.spec.head, forecaster.spec.activation)
    assert found == {
        "feedforward": ("many_to_many", "relu"),
        "encoder_decoder": ("one_to_many", "tanh"),
        "rnn": ("many_to_many", "tanh"),
    }


@pytest.mark.parametrize(
    ("forecaster", "settings", "key", "reason"),
    [
        ({"kind": "bidirectional"}, {}, "forecaster.kind", "looks ahead"),
        ({"kind": "transformer"}, {}, "forecaster.kind", "feedforward"),
        ({"kind": "gru", "units": 3}, {}, "forecaster.units", "there is no such key"),
        ({}, {}, "forecaster.kind", ""),
        ({"kind": "gru", "hidden": 100_000}, {}, "forecaster.hidden", "512"),
        ({"kind": "gru", "activation": "relu"}, {}, "forecaster.activation", "sigmoid gates and tanh"),
        ({"kind": "rnn", "activation": "softmax"}, {}, "forecaster.activation", "probabilities of classes"),
        ({"kind": "lstm", "head": "one_to_one"}, {}, "forecaster.head", "one point alone"),
        ({"kind": "encoder_decoder", "head": "many_to_one"}, {}, "forecaster.head", "unrolls"),
        ({"kind": "feedforward", "window": 1}, {}, "forecaster.window", "no sequence"),
        ({"kind": "gru", "window": 16}, {}, "forecaster.window", "gru has no window; feedforward have"),
        ({"kind": "lstm", "memory": 16}, {}, "forecaster.memory", "lstm has no memory"),
        ({"kind": "rnn", "span": 16}, {}, "forecaster.span", "rnn has no span"),
        ({"kind": "gru", "inputs": ["clock"]}, {}, "forecaster.inputs", "calendar"),
        ({"kind": "gru", "inputs": ["lags", "lags"]}, {}, "forecaster.inputs", "twice"),
        ({"kind": "gru"}, {"holidays": "DE-XX"}, "holidays", "there are no holidays of 'DE-XX'"),
        ({"kind": "gru"}, {"detector": "light"}, "forecaster", "detector light has no network"),
        ({"kind": "gru"}, {"retraining": {"models_by": ["sensor"]}}, "forecaster", "models_by"),
        (
            {"kind": "gru", "output": "negative_binomial"},
            {"preset": "network"},
            "forecaster.output",
            "takes logarithms",
        ),
        (
            {"kind": "gru", "output": "negative_binomial"},
            {"counters": ["temperature"]},
            "forecaster.output",
            "rate per second",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, forecaster: dict[str, Any], settings: dict[str, Any], key: str, reason: str
) -> None:
    with pytest.raises(ConfigFileError) as refused:
        load(tmp_path, forecaster, **settings)
    (line,) = str(refused.value).splitlines()[:1]
    assert f"streams.plant.{key}" in str(refused.value)
    assert reason in str(refused.value)
    assert "forewatch.yaml:" in line, "the file and the line"


def test_inputs_have_the_zone_and_the_holidays_of_the_stream(tmp_path: Path) -> None:
    keys = {"timezone": "Europe/Berlin", "holidays": "DE-BY"}
    stream = load(tmp_path, {"kind": "gru", "inputs": ["lags", "calendar"]}, **keys)
    assert network_of(stream) == NetworkSpec(
        "gru", inputs="calendar,lags", zone="Europe/Berlin", holidays="DE-BY"
    )
    assert detector_spec(stream).holidays == "DE-BY"
    assert network_of(load(tmp_path, {"kind": "gru"}, **keys)) == NetworkSpec("gru")
    assert network_of(load(tmp_path, None)) is None


def test_events_have_no_forecaster(tmp_path: Path) -> None:
    form = {"json": {"series": "door", "time": "t", "code": "event"}}
    with pytest.raises(ConfigFileError, match="is for streams of numbers"):
        load(tmp_path, {"kind": "gru"}, format=form)


def test_holidays_change_the_hash_where_there_are_some(tmp_path: Path) -> None:
    without = config_hash(load(tmp_path, None))
    assert config_hash(load(tmp_path, None, holidays=None)) == without
    assert config_hash(load(tmp_path, None, holidays="FR")) != without


def test_the_key_changes_no_hash_of_verdicts(tmp_path: Path) -> None:
    assert config_hash(load(tmp_path, None)) == config_hash(load(tmp_path, {"kind": "gru"}))
