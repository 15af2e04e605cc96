"""Config keys of retraining, and the messages about mistakes in them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from pipeline.config.loader import load_config
from pipeline.config.schema import Config
from pipeline.config.stream_hash import config_hash
from pipeline.config.yaml_file import ConfigFileError

STREAM = """database: sqlite:///f.db
cluster: {cluster}
streams:
  plant:
    source: {{memory: {{name: plant}}}}
    format: {{json: {{series: sensor, time: ts, values: t}}}}
    retraining:
      {retraining}
"""


def load(tmp_path, retraining="on_drift: true", cluster="{}"):
    file = tmp_path / "f.yaml"
    file.write_text(STREAM.format(retraining=retraining, cluster=cluster))
    return load_config(file)


def test_the_defaults_are_usable(tmp_path):
    settings = load(tmp_path).streams["plant"].retraining
    assert (settings.schedule, settings.timezone, settings.device, settings.promote) == (
        "0 3 * * *",
        "UTC",
        "auto",
        "auto",
    )
    assert (settings.history, settings.shadow) == (timedelta(days=30), timedelta(days=1))


def test_everything_can_be_said(tmp_path):
    said = "{schedule: '*/5 * * * 7', timezone: Europe/Berlin, on_drift: false, min_interval: 1h, device: gpu, cpu_after: null, shadow: 0s}"
    settings = load(tmp_path, said.strip("{}").replace(", ", "\n      ")).streams["plant"].retraining
    assert (settings.timezone, settings.device, settings.cpu_after, settings.shadow) == (
        "Europe/Berlin",
        "gpu",
        None,
        timedelta(0),
    )


@pytest.mark.parametrize(
    ("retraining", "cluster", "message"),
    [
        (
            "schedule: every night",
            "{}",
            r"f.yaml:8: streams.plant.retraining.schedule: 'every night' is not a cron expression .* write minute",
        ),
        ("schedule: 0 25 * * *", "{}", r":8: .*retraining.schedule: .*25"),
        ("timezone: Europe/Berln", "{}", r":8: .*retraining.timezone: there is no time zone 'Europe/Berln'"),
        ("device: tpu", "{}", r":8: .*retraining.device"),
        ("shedule: null", "{}", r":8: .*retraining.shedule.*schedule"),
        ("history: yesterday", "{}", r":8: .*retraining.history.*30s"),
        (
            "seed: 1",
            "{scheduler: host}",
            r":2: cluster.scheduler: 'host' is not the address.*tcp://host:8786",
        ),
        ("seed: 1", "{scheduler: 'tls://host:8786'}", r":2: cluster.scheduler: tls:// needs certificates"),
        ("seed: 1", "{tls: {ca: a, cert: b, key: c}}", r":2: cluster.tls: certificates without a scheduler"),
        (
            "seed: 1",
            "{scheduler: 'tls://h:1', tls: {ca: a, cert: b, key: c}}",
            r":2: cluster.tls.ca: there is no file a",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, retraining, cluster, message):
    with pytest.raises(ConfigFileError, match=f"(?s){message}"):
        load(tmp_path, retraining, cluster)


def test_retraining_changes_no_verdict(tmp_path):
    one, other = (load(tmp_path, retraining).streams["plant"] for retraining in ("seed: 1", "seed: 2"))
    assert config_hash(one) == config_hash(other)


def test_a_config_survives_the_way_to_the_runner(tmp_path):
    config = load(tmp_path, "history: 1h30m", "{scheduler: 'tcp://host:8786'}")
    assert Config.model_validate_json(config.model_dump_json(by_alias=True, exclude_unset=True)) == config


def test_an_old_key_is_read_and_reported(tmp_path):
    with capture_logs() as logs:
        old = load(tmp_path, "guard: 2h").streams["plant"]
    assert old.retraining.post_promotion_check == timedelta(hours=2)
    assert [(entry["line"], entry["key"], entry["new_name"]) for entry in logs] == [
        (8, "streams.plant.retraining.guard", "post_promotion_check")
    ]
    assert config_hash(old) == config_hash(load(tmp_path, "post_promotion_check: 2h").streams["plant"])


def test_a_mistake_below_an_old_key_is_named_with_its_line(tmp_path):
    with pytest.raises(ConfigFileError, match=r"f.yaml:8: .*retraining.post_promotion_check: .*30s"):
        load(tmp_path, "guard: yesterday")


def test_a_key_under_both_names_is_an_error(tmp_path):
    with pytest.raises(ConfigFileError, match=r"f.yaml:8: .*retraining.guard: there is no such key"):
        load(tmp_path, "guard: 2h\n      post_promotion_check: 2h")
