"""Reading a config: messages about mistakes, and the result of a correct file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config.kafka_security import client_security
from pipeline.config.loader import load_config
from pipeline.config.schema import Config, KafkaSourceConfig, Secret, Stream
from pipeline.config.stream_hash import config_hash
from pipeline.config.yaml_file import ConfigFileError
from pipeline.core.errors import ConfigError

GOOD = """\
database: sqlite:///x.db
streams:
  plant:
    source: {kafka: {brokers: ["localhost:9092"], topics: [sensors]}}
    format: {json: {series: [site, sensor], time: ts, values: [temperature, pressure]}}
    every: 1m
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "forewatch.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> list[str]:
    """The lines shown for ``text``, without the folder."""
    with pytest.raises(ConfigFileError) as caught:
        load_config(write(folder, text))
    return str(caught.value).replace(f"{folder}/", "").split("\n")


def test_a_good_file_becomes_a_config(tmp_path):
    config = load_config(write(tmp_path, GOOD))
    plant = config.streams["plant"]
    assert plant.channels == ("temperature", "pressure")
    assert plant.every is not None
    assert plant.every.total_seconds() == 60
    assert type(plant.source.kafka.topics[0]) is str


def test_every_mistake_of_a_file_is_shown_at_once_with_line_key_and_remedy(tmp_path):
    text = GOOD.replace(
        "every: 1m", "every: 60\n    preset: senzor\n    alarm_rate: 2\n    lateness: soon"
    ).replace("topics", "topcs")
    assert refusal(tmp_path, text) == [
        "forewatch.yaml:4: streams.plant.source.kafka.topics: is missing — add it: topics to read; partitions that are added later are read as well",
        "forewatch.yaml:4: streams.plant.source.kafka.topcs: there is no such key — did you mean topics?",
        "forewatch.yaml:6: streams.plant.every: 60 does not fit — write a duration such as 30s, 5m, 1h30m or 7d",
        "forewatch.yaml:7: streams.plant.preset: 'senzor' is not one of sensor, network, stock — did you mean sensor?",
        "forewatch.yaml:8: streams.plant.alarm_rate: 2 must be less than 1 — target share of alarms among normal points (minutes, where points come faster)",
        "forewatch.yaml:9: streams.plant.lateness: 'soon' does not fit — write a duration such as 30s, 5m, 1h30m or 7d",
    ]


@pytest.mark.parametrize("sensitivity", ["low", "normal", "high"])
def test_sensitivity_and_alarm_rate_cannot_both_be_given(tmp_path, sensitivity):
    text = GOOD.replace("every: 1m", f"every: 1m\n    sensitivity: {sensitivity}\n    alarm_rate: 0.0001")
    assert refusal(tmp_path, text) == [
        "forewatch.yaml:7: streams.plant.sensitivity: is given together with alarm_rate — remove one of them"
    ]


def test_sensitivity_is_an_alarm_rate():
    from pipeline.models.champion import detector_spec

    assert detector_spec(stream()) == detector_spec(stream(sensitivity="normal"))
    for sensitivity, rate in (("low", 1e-5), ("normal", 1e-4), ("high", 1e-3)):
        assert detector_spec(stream(sensitivity=sensitivity)) == detector_spec(stream(alarm_rate=rate))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "series: [site, sensor]",
            "series: 5",
            "5: streams.plant.format.json.series: 5 does not fit — give text, or a list: [text, text], or a mapping",
        ),
        ("[sensors]", "[7]", "4: streams.plant.source.kafka.topics[0]: 7 does not fit — put it in quotes"),
        (
            "[sensors]",
            "[]",
            "4: streams.plant.source.kafka.topics: is empty — topics to read; partitions that are added later are read as well",
        ),
        (
            "every: 1m",
            "counters: [bytes]",
            "6: streams.plant.counters: no channel bytes — there are temperature, pressure",
        ),
        ("every: 1m", "aggregate: {every: 1m, values: {a: {nuniq: b}}}", "did you mean nunique?"),
        (
            "every: 1m",
            "aggregate: {every: 1m, values: {a: summ}}",
            "6: streams.plant.aggregate.values.a: 'summ' does not fit — give one of sum, ",
        ),
        (
            "every: 1m",
            "aggregate: {every: 1m, values: {a: sum}}",
            "6: streams.plant.aggregate.values.a: there is no value 'a' to take the sum of",
        ),
        (
            "every: 1m",
            "limits: {pressure: {min: 2, max: 1}}",
            "6: streams.plant.limits.pressure: min 2 is above max 1 — swap the two values",
        ),
        (
            "every: 1m",
            "calendar: XNYZ",
            "6: streams.plant.calendar: there is no calendar 'XNYZ' — did you mean",
        ),
        (
            "every: 1m",
            "detector: lihgt",
            "6: streams.plant.detector: there is no detector 'lihgt' — did you mean light?",
        ),
        (
            "every: 1m",
            "detector: bidirectional",
            "it is a forecaster that cannot run on a live stream: bidirectional looks ahead",
        ),
        (
            "every: 1m",
            "detector: lstm",
            "there is no detector 'lstm' — it is a forecaster: write `forecaster: {kind: lstm}`",
        ),
        (
            "every: 1m",
            "threshold: spto",
            "6: streams.plant.threshold: there is no threshold 'spto' — did you mean spot?",
        ),
        (
            "every: 1m",
            "warm_start: no/such.csv",
            "6: streams.plant.warm_start: there is nothing at no/such.csv",
        ),
        (
            "time: ts",
            "time: ts, timezone: Mars/Phobos",
            "5: streams.plant.format.json.timezone: there is no time zone 'Mars/Phobos'",
        ),
        (
            "time: ts",
            "time: ts, optional: [presure]",
            "5: streams.plant.format.json.optional[0]: there is no value or label 'presure'",
        ),
        (
            '"localhost:9092"',
            "localhost",
            "4: streams.plant.source.kafka.brokers[0]: 'localhost' is not host:port",
        ),
        (
            "[sensors]",
            "[sensors], start: 2024-13-01",
            "4: streams.plant.source.kafka.start: '2024-13-01' is not a time",
        ),
        (
            "{kafka:",
            "{memory: {}, kafka:",
            "4: streams.plant.source: has memory, kafka — give exactly one of kafka, files, telemetry, memory",
        ),
        ("json:", "csv:", "5: streams.plant.format.csv: records of Kafka carry no header line"),
        ("sqlite:///x.db", "mysql://x/y", "1: database: the kind of database 'mysql' is not supported"),
        ("sqlite:///x.db", "sqlite://x.db", "1: database: a SQLite URL has three slashes"),
        ("every: 1m", "every: 1m\n   bad: 1", "7: not YAML: "),
        ("every: 1m", "every: 1m\n\tbad: 1", "indent with spaces"),
        (
            "every: 1m",
            "every: 1m\n    every: 2m",
            "7: not YAML: while constructing a mapping found duplicate key",
        ),
        ("every: 1m", "every: *nothing", "put the text in quotes"),
    ],
)
def test_a_mistake_is_named(tmp_path, old, new, expected):
    assert old in GOOD
    lines = refusal(tmp_path, GOOD.replace(old, new))
    assert any(expected in line for line in lines), lines
    assert all(" — " in line for line in lines), "each says what to do"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "[1, 2]",
        "just text",
        "\x00",
        "a: &a [*a]",
        "streams: {1: 2}",
        "streams: !!python/object:os.system {}",
    ],
)
def test_what_is_no_config_at_all_is_refused_too(tmp_path, text):
    assert refusal(tmp_path, text)[0].startswith("forewatch.yaml")


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: no such file — `forewatch init`"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"database: \xe9")
    with pytest.raises(ConfigError, match="byte 10 is not UTF-8"):
        load_config(tmp_path / "latin.yaml")


def test_two_streams_may_not_share_a_consumer_group(tmp_path):
    stream = '{source: {kafka: {brokers: ["a:1"], topics: [t], group: g}}, format: {json: {series: s, time: t, values: v}}}'
    lines = refusal(tmp_path, f"streams:\n  a: {stream}\n  b: {stream}\n")
    assert lines == [
        "forewatch.yaml:3: streams.b.source.kafka.group: stream a already uses the group 'g' — give each stream a group of its own, or none"
    ]


def test_times_keep_their_spelling_and_anchors_work(tmp_path):
    text = GOOD.replace("topics: [sensors]", "topics: [sensors], start: 2025-01-31T00:00:00Z")
    assert load_config(write(tmp_path, text)).streams["plant"].source.kafka.start == "2025-01-31T00:00:00Z"
    text = GOOD.replace("  plant:", "  plant: &plant") + "  other:\n    <<: *plant\n    every: 5m\n"
    streams = load_config(write(tmp_path, text)).streams
    assert streams["other"].source == streams["plant"].source
    assert streams["other"].every != streams["plant"].every


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sqlite:///x.db", "postgresql+psycopg://me:hunter2@host/db"),
        ("sqlite:///x.db", "postgresql+psycopg:///db?password=hunter2"),
        ("[sensors]", "[sensors], password: hunter2"),
        ("[sensors]", "[sensors], security: {sasl_plain_password: hunter2}"),
        ("[sensors]", "[sensors], security: {sasl.password: hunter2}"),
        ("[sensors]", "[sensors], security: {SASL.Password: hunter2}"),
        ("[sensors]", "[sensors], security: {ssl_password: hunter2}"),
        ("[sensors]", "[sensors], security: {ssl.key.password: hunter2}"),
        ("[sensors]", "[sensors], security: {ssl.key.pem: hunter2}"),
        ("[sensors]", "[sensors], security: {sasl.oauthbearer.client.secret: hunter2}"),
        ("[sensors]", "[sensors], security: {sasl.jaas.config: 'password=hunter2'}"),
        ('"localhost:9092"', '"me:hunter2@localhost:9092"'),
        ("sqlite:///x.db", "postgresql+psycopg://me:hun/ter@hunter2@host/db"),
        ("sqlite:///x.db", "postgresql+psycopg:///db?PASSWORD=hunter2"),
        ("sqlite:///x.db", "postgresql+psycopg:///db?user=me&pass%77ord=hunter2"),
        ("sqlite:///x.db", "postgresql+psycopg:///db?sslmode=require&sslpassword=hunter2"),
        ("sqlite:///x.db", "mysql://me:hunter2@host/db"),
        ("streams:", "cluster: {scheduler: 'tcp://me:hunter2@host:8786'}\nstreams:"),
        ("streams:", "cluster: {scheduler: 'tcp://hunter2@host:8786'}\nstreams:"),
        ("streams:", "cluster: {scheduler: 'tcp://host:8786?token=hunter2'}\nstreams:"),
        ("streams:", "cluster: {scheduler: 'me:hunter2@host:8786'}\nstreams:"),
        ("sqlite:///x.db", "host=db user=me password=hunter2"),
        ("sqlite:///x.db", "postgresql+psycopg:///db?pass=hunter2"),
        ("[sensors]", "[sensors], security: {sasl.oauthbearer.config: 'principal=me secret=hunter2'}"),
        ("[sensors]", "[sensors], password: {env: whsec_hunter2}"),
        ("streams:", "storage: {history_path: 's3://me:hunter2@bucket/x'}\nstreams:"),
        ("streams:", "storage: {models_path: 'ftp://hunter2@host/x'}\nstreams:"),
        ("streams:", "storage: {models_path: 'az://box/x?account_key=hunter2'}\nstreams:"),
        ("database: sqlite:///x.db", "database_password: hunter2\ndatabase_password: hunter2"),
        ("[sensors]", "[sensors], security: hunter2"),
        ("[sensors]", "[sensors], password: {env: [hunter2]}"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_never_shown(tmp_path, old, new):
    lines = refusal(tmp_path, GOOD.replace(old, new))
    assert lines
    assert "hunter2" not in "\n".join(lines)


@pytest.mark.parametrize(
    "endpoint",
    [
        "slack, url: https://hooks.slack.com/services/T0/B0/hunter2",
        "slack, url: https://HOOKS.slack.com/workflows/hunter2",
        "teams, url: https://x.webhook.office.com/webhookb2/hunter2",
        "teams, url: 'https://prod.westus.logic.azure.com:443/workflows/1/x?api-version=1&sig=hunter2'",
        "json, url: https://discord.com/api/webhooks/1/hunter2",
        "json, url: https://host/x?token=hunter2",
        "json, url: https://host/x?a=1&Key=hunter2",
        "json, url: https://host/x?access_token=hunter2",
        "json, url: https://host/x#token=hunter2",
        "json, url: https://me:hunter2@host/x",
        "json, url: https://hunter2@host/x",
        "json, url: https://host/x, headers: {Authorization: hunter2}",
        "json, url: https://host/x, headers: {proxy-authorization: hunter2}",
        "json, url: https://host/x, headers: {X-Api-Key: hunter2}",
        "json, url: https://host/x, headers: {apikey: hunter2}",
        "json, url: https://host/x, headers: {Cookie: a=hunter2}",
        "json, url: https://host/x, headers: {X-Auth-Token: hunter2}",
        "json, url: https://host/x, headers: {X-Anything: Bearer hunter2}",
        "json, url: https://host/x, headers: {X-Number: xoxb-hunter2hunter2}",
        "webhook, url: https://host/x, secret: whsec_hunter2",
        "pagerduty, key: hunter2",
        "kafka, brokers: ['a:1'], topic: t, security: {security_protocol: SASL_SSL, sasl_plain_password: hunter2}",
        "kafka, brokers: ['a:1'], topic: t, security: {security_protocol: SASL_SSL, sasl.password: hunter2}",
        "kafka, brokers: ['me:hunter2@a:1'], topic: t",
        "email, host: h, sender: a@b, to: [c@d], user: me, password: hunter2",
    ],
)
def test_a_secret_of_an_endpoint_is_refused_with_its_line_and_never_shown(tmp_path, endpoint):
    lines = refusal(tmp_path, GOOD + f"endpoints:\n  hook:\n    {{type: {endpoint}}}\n")
    assert "hunter2" not in "\n".join(lines)
    assert any(line.startswith("forewatch.yaml:9: endpoints.hook.") for line in lines)


def test_a_clear_secret_names_the_remedy(tmp_path):
    text = GOOD + "endpoints:\n  hook: {type: slack, url: 'https://hooks.slack.com/services/T0/B0/x'}\n"
    assert refusal(tmp_path, text) == [
        "forewatch.yaml:8: endpoints.hook.url: the path of a webhook, which is its secret stands in the config — "
        "write {env: NAME} or {file: PATH}"
    ]


def test_what_is_no_secret_is_accepted(tmp_path):
    text = GOOD.replace("[sensors]", "[sensors], security: {security_protocol: SSL, ssl_keyfile: k.pem}")
    text = text.replace("values: [temperature, pressure]", "values: [token, password_attempts]")
    text += """\
endpoints:
  hook: {type: json, url: 'https://host/hooks/plant?site=3', headers: {X-Site: north, Accept: text/plain}}
  named: {type: json, url: {env: URL}, headers: {Authorization: {env: TOKEN}}}
"""
    assert set(load_config(write(tmp_path, text)).endpoints) == {"hook", "named"}


@pytest.mark.parametrize(
    ("security", "key", "what"),
    [
        ("password: {env: P}", "security", "a password without a security_protocol would mean plain text"),
        ("password: {env: P}, security: {sasl_mechanism: PLAIN}", "security", "a password without"),
        ("security: {ssl_cafile: x.pem}", "security", "SASL or TLS settings without"),
        (
            "password: {env: P}, security: {security_protocol: SSL}",
            "security.security_protocol",
            "SSL does not use the user and password",
        ),
        (
            "password: {env: P}, security: {security_protocol: sasl_ssl}",
            "security.security_protocol",
            "'sasl_ssl' is not a security protocol",
        ),
    ],
)
def test_a_kafka_password_never_means_plain_text(tmp_path, security, key, what):
    (line,) = refusal(tmp_path, GOOD.replace("[sensors]", f"[sensors], {security}"))
    assert line.startswith(f"forewatch.yaml:4: streams.plant.source.kafka.{key}: {what}")
    endpoint = f"endpoints:\n  k: {{type: kafka, brokers: ['a:1'], topic: t, {security}}}\n"
    (line,) = refusal(tmp_path, GOOD + endpoint)
    assert line.startswith(f"forewatch.yaml:8: endpoints.k.{key}: {what}")


def test_named_secrets_among_kafka_settings_are_read_when_used(monkeypatch):
    monkeypatch.setenv("PASSPHRASE", "hunter2")
    source = KafkaSourceConfig(
        brokers=["a:1"],
        topics=["t"],
        security={"ssl_password": {"env": "PASSPHRASE"}},
        password=Secret(env="PASSPHRASE"),
    )
    again = KafkaSourceConfig.model_validate_json(source.model_dump_json(exclude_unset=True))
    assert "hunter2" not in repr(source)
    assert client_security(again.security, again.password) == {
        "ssl_password": "hunter2",
        "sasl_plain_password": "hunter2",
        "security_protocol": "SASL_SSL",
    }


def test_a_config_with_secrets_shows_their_names_only(tmp_path, monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    (tmp_path / "db").write_text("hunter3\n")
    text = (
        GOOD.replace(
            "[sensors]", "[sensors], security: {security_protocol: SASL_SSL}, password: {env: KAFKA_PASSWORD}"
        )
        + f"database_password: {{file: {tmp_path / 'db'}}}\n"
    )
    config = load_config(write(tmp_path, text))
    kafka, database = config.streams["plant"].source.kafka.password, config.database_password
    assert (kafka.reveal().get_secret_value(), database.reveal().get_secret_value()) == ("hunter2", "hunter3")
    shown = repr(config) + str(config) + config.model_dump_json() + repr(kafka.reveal())
    assert "hunter" not in shown


def test_a_secret_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match="environment variable NOT_SET is not set — "):
        Secret(env="NOT_SET").reveal()
    with pytest.raises(ConfigError, match=r"cannot read the secret file .*: No such file"):
        Secret(file=tmp_path / "none").reveal()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="it is not text"):
        Secret(file=tmp_path / "binary").reveal()


def stream(**changes: object) -> Stream:
    base = {"source": {"memory": {}}, "format": {"json": {"series": "s", "time": "t", "values": ["v"]}}}
    return Config.model_validate({"streams": {"one": base | changes}}).streams["one"]


def test_the_hash_changes_with_the_meaning_and_not_with_the_spelling():
    plain = config_hash(stream())
    assert len(plain) == 12
    assert config_hash(stream(preset="sensor", lateness="0s")) == plain, "defaults written out mean the same"
    assert config_hash(stream(lateness="60s")) == config_hash(stream(lateness="1m"))
    changed = {
        config_hash(stream(**change))
        for change in (
            {"lateness": "1m"},
            {"alarm_rate": 0.001},
            {"sensitivity": "low"},
            {"limits": {"v": {"max": 1}}},
        )
    }
    assert len(changed | {plain}) == 5


def test_the_hash_of_a_meaning_is_the_one_stored_before_keys_were_renamed():
    former = {"decision": "surprise"}
    assert config_hash(stream(**former)) == "ca3b1cbd6d74"
    assert config_hash(stream(**former, warm_start="past/2025")) == "416458f823c1"
    assert config_hash(stream(**former, max_series=100_000)) == "ca3b1cbd6d74"
    assert config_hash(stream(**former, max_series=5)) != "ca3b1cbd6d74"


def test_a_config_without_a_decision_decides_by_usual_ranges_and_has_another_hash():
    assert stream().decision == "usual_range"
    assert config_hash(stream()) == config_hash(stream(decision="usual_range")) != "ca3b1cbd6d74"


@given(st.text(max_size=300))
def test_any_text_is_loaded_or_refused_with_a_message(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ConfigFileError, match=r"any\.yaml"):
        load_config(path)


@given(
    st.integers(0, len(GOOD)),
    st.sampled_from(
        [
            ":",
            "-",
            "{",
            "}",
            "[",
            "]",
            "\t",
            "&a",
            "*a",
            "!x",
            '"',
            "#",
            "\n",
            " ",
            "1",
            "null",
            "? ",
            "|",
            "%",
            "!!int ",
        ]
    ),
)
@example(56, "&a")
def test_one_stray_token_never_raises_anything_else(tmp_path_factory, place, token):
    path = tmp_path_factory.getbasetemp() / "stray.yaml"
    path.write_text(GOOD[:place] + token + GOOD[place:])
    with suppress(ConfigFileError):
        assert isinstance(load_config(path), Config)


def test_a_number_of_underscores_only_is_refused_with_a_message(tmp_path):
    path = tmp_path / "forewatch.yaml"
    path.write_text("database: -_\n")
    with pytest.raises(ConfigFileError):
        load_config(path)
