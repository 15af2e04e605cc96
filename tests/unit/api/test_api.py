"""The REST API on SQLite and PostgreSQL: what it shows, what it changes, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from pipeline.alerts.outbox import encode_anomaly
from pipeline.alerts.routing.composer import anomaly_view
from pipeline.api.app import create_app
from pipeline.api.request_limits import MAX_BODY_BYTES
from pipeline.api.server import dashboard_server
from pipeline.config.schema import Config
from pipeline.core.types import AnomalyState, DeadLetter, EndReason, Fault, FaultKind, Partition, Severity
from storage.alerting.alerts import AlertMember
from storage.alerting.states import MemberState
from storage.history import parquet
from storage.history.writer import HistoryWriter
from storage.model_store import jobs, monitor_state
from storage.model_store.monitor_state import DriftState
from storage.results import anomalies, dead_letters, faults, labels
from storage.sql.database import Database
from tests.support.alerting import NOON, SECOND, TEXT_OF_ENDED_DRIFT, RouterBench, anomaly, ended_drift
from tests.support.api_servers import STREAM, plant_config

#: The same in each process of the test run, which compares the names of its tests.
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"

RANGE = {"from": "2026-03-02T11:00:00Z", "to": "2026-03-02T13:00:00Z"}


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Config:
    return plant_config(str(database.url), tmp_path)


@pytest.fixture
def api(config: Config, database: Database) -> Iterator[TestClient]:
    with TestClient(create_app(config, database), raise_server_exceptions=False) as client:
        yield client


def store(database: Database, *found) -> None:
    with database.begin() as connection:
        anomalies.upsert(connection, found)


def test_pages_of_anomalies_hold_each_one_once(api, database):
    made = [anomaly(f"b/{n}", NOON + n // 2 * SECOND) for n in range(11)]
    store(database, *made)
    seen, cursor = [], None
    while True:
        page = api.get("/anomalies", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        seen += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break
    assert len(seen) == len({one["id"] for one in seen}) == 11
    assert [one["start"] for one in seen] == sorted((one["start"] for one in seen), reverse=True)
    assert seen[0]["text"].startswith("temperature was 93.1")


def test_the_text_of_an_ended_anomaly_is_that_of_the_message_of_its_end(api, database):
    one = ended_drift()
    store(database, one)
    member = AlertMember(
        one.id, one.id, one.stream, "b", MemberState.CLOSED, "major", 9.0, NOON, NOON, encode_anomaly(one)
    )
    assert anomaly_view(member, {"temperature": "°C"}).statement == TEXT_OF_ENDED_DRIFT
    sentence = TEXT_OF_ENDED_DRIFT.replace(" °C", "")  # the config has no unit of this channel
    detail = api.get(f"/anomalies/{one.id}").json()
    assert detail["text"] == api.get("/anomalies").json()["items"][0]["text"] == sentence
    assert api.get(f"/incidents/{one.id}").json()["anomalies"][0]["text"] == sentence
    leading = detail["channels"][0]
    assert (leading["observed"], leading["lower"], leading["upper"]) == (92.1, 65.6, 69.4)
    assert detail["peak"].startswith("2026-03-02T17:00:00")
    store(database, replace(one, state=AnomalyState.OPEN, end_reason=EndReason.UNKNOWN, revision=3))
    assert api.get(f"/anomalies/{one.id}").json()["text"] == (
        "temperature is 71.8, usual at this time on working days 65.9 to 71.4"
    )


def test_a_list_is_read_once_for_all_until_the_database_changes(api, database, monkeypatch):
    store(database, anomaly("b/1"))
    read, asked = anomalies.query, []
    monkeypatch.setattr(anomalies, "query", lambda *args, **given: asked.append(1) or read(*args, **given))
    first = api.get("/anomalies").json()
    for _ in range(30):
        assert api.get("/anomalies").json() == first
    assert len(asked) < 30  # more than one: the answer has become old, or PostgreSQL did some upkeep
    assert api.get("/anomalies", params={"limit": 1}).json() == first
    store(database, anomaly("b/2"))
    assert len(api.get("/anomalies").json()["items"]) == 2


def test_filters_of_anomalies(api, database):
    store(
        database, anomaly("b/1"), anomaly("c/2", severity=Severity.CRITICAL), anomaly("b/3", stream="other")
    )
    names = lambda **q: sorted(a["series"] for a in api.get("/anomalies", params=q).json()["items"])  # noqa: E731
    assert names(series="b/*") == ["b/1", "b/3"]
    assert names(stream="plant") == ["b/1", "c/2"]
    assert names(severity="critical") == ["c/2"]
    assert names(**RANGE) == ["b/1", "b/3", "c/2"]
    assert names(to="2026-03-02T11:00:00Z") == []


def test_numbers_that_json_lacks_are_null(api, database):
    one = anomaly(observed=[float("nan"), 1.0], expected=[float("inf"), 1.0])
    store(database, one)
    shown = api.get(f"/anomalies/{one.id}").json()["channels"][0]
    assert (shown["observed"], shown["expected"], shown["lower"]) == (None, None, 68.9)


def test_texts_of_an_incident_have_the_times_of_its_reader(api, database):
    one = anomaly()
    store(database, one)

    def step(**query) -> str:
        return api.get(f"/incidents/{one.id}", params=query).json()["anomalies"][0]["first_step"]

    assert "12:00 UTC" in step()
    assert "17:30 IST" in step(timezone="Asia/Kolkata")
    assert step(timezone="Mars/Phobos") == step(timezone="../../etc/passwd") == step()


def test_a_label_is_stored_with_its_author(api, database):
    one = anomaly()
    store(database, one)
    body = {"label": "maintenance", "comment": "pump \x00 changed", "author": "ada"}
    shown = api.put(f"/anomalies/{one.id}/label", json=body).json()
    assert (shown["review"]["label"], shown["review"]["author"]) == ("maintenance", "ada")
    with database.read() as connection:
        assert labels.reviews(connection, [one.id])[one.id].comment == "pump ␀ changed"


def test_a_silence_is_added_and_ended(api):
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = api.post("/silences", json={"stream": "plant", "match": {"site": "b*"}, "ends": ends})
    assert made.status_code == 201
    silence = f"/silences/{made.json()['id']}"
    assert [one["match"] for one in api.get("/silences").json()["items"]] == [{"site": "b*"}]
    assert api.delete(silence).status_code == 204
    assert api.get("/silences").json()["items"] == []
    assert api.delete(silence).status_code == 404
    past = api.post("/silences", json={"match": {}, "ends": "2020-01-01T00:00:00Z"})
    assert past.status_code == 422
    assert "future time" in past.json()["detail"]


def test_an_alert_is_acknowledged_and_its_delivery_shown(api, database):
    bench = RouterBench(database)
    bench.happen(anomaly())
    bench.settle()
    [alert] = api.get("/alerts").json()["items"]
    detail = api.get(f"/alerts/{alert['id']}").json()
    [delivery] = detail["deliveries"]
    assert '"type"' in api.get(f"/deliveries/{delivery['id']}").json()["payload"]
    assert api.post(f"/alerts/{alert['id']}/acknowledge", json={"author": "ada"}).status_code == 202
    bench.settle()
    assert api.get(f"/alerts/{alert['id']}").json()["acknowledged_by"] == "ada"
    again = api.post(f"/deliveries/{delivery['id']}/redeliver", json={})
    assert (again.status_code, "pending" in again.json()["detail"]) == (422, True)


def test_budgets_state_what_the_last_day_has_used(config, database):
    bench = RouterBench(database)
    bench.now_ns = time.time_ns()
    bench.happen(anomaly("b/1", bench.now_ns), anomaly("b/2", bench.now_ns))
    bench.settle()
    limited = STREAM | {"alerts": {"budget": "4 per day"}}
    with_budget = Config.model_validate({"database": config.database, "streams": {"plant": limited}})
    for asked, per_day in ((config, None), (with_budget, 4.0)):
        with TestClient(create_app(asked, database)) as client:
            [shown] = client.get("/budgets").json()["items"]
        assert (shown["stream"], shown["per_day"], shown["alerts"]) == ("plant", per_day, 2)
        assert shown["messages"] == 2


def test_lanes_have_the_highest_level_of_each_bucket(api, database):
    store(
        database,
        anomaly("calm"),
        anomaly("bad", severity=Severity.CRITICAL, start_ns=NOON - 600 * SECOND, end_ns=NOON),
    )
    found = api.get("/lanes", params=RANGE | {"buckets": 120}).json()
    assert found["complete"]
    assert [(lane["series"], lane["runs"]) for lane in found["lanes"]] == [
        ("bad", [[50, 60, 4]]),
        ("calm", [[60, 61, 3]]),
    ]


def test_points_keep_extremes_and_flags_of_each_pixel(api, config):
    n = 10_000
    values = np.sin(np.arange(n) / 50).astype(np.float64)
    values[4321] = 99.0
    flag = np.zeros(n, bool)
    flag[777] = True
    pair = np.column_stack([values, values])
    table = parquet.rows(
        np.arange(n),
        NOON + np.arange(n) * SECOND // 10,
        np.zeros(n, np.int32),
        parquet.texts(["b/1"]),
        ["temperature", "pressure"],
        {"flag": flag, "surprise": np.zeros(n, np.float32)},
        dict.fromkeys(("value", "expected", "lower", "upper"), pair),
    )
    writer = HistoryWriter(config.history_path, "plant")
    writer.open(Partition("x", 0), "log", 1, 0)
    writer.append(Partition("x", 0), 0, n, table)
    writer.close()
    asked = {"stream": "plant", "series": "b/1", "width": 100, "from": "2026-03-02T12:00:00Z"}
    asked |= {"to": "2026-03-02T12:16:40Z"}
    shown = api.get("/points", params=asked).json()
    assert len(shown["value"]) <= 201
    assert max(shown["value"]) == 99.0
    assert sum(shown["flag"]) == 1
    assert shown["time_ns"] == sorted(shown["time_ns"])
    arrow = api.get("/points", params=asked | {"format": "arrow"})
    assert pa.ipc.open_stream(arrow.content).read_all().column("time").to_pylist() == shown["time_ns"]
    wrong = api.get("/points", params=asked | {"channel": "speed"})
    assert wrong.json()["detail"].endswith("it has temperature, pressure")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/anomalies?limit=0", 422),
        ("/anomalies?limit=501", 422),
        ("/anomalies?cursor=abc", 422),
        ("/anomalies?series=****************x", 422),
        ("/anomalies?stream=%00", 422),
        ("/anomalies?from=0001-01-01T00:00:00Z", 422),
        (f"/anomalies/{UNKNOWN_ID}", 404),
        ("/anomalies/..%2f..%2fetc%2fpasswd", 404),
        (f"/alerts/{UNKNOWN_ID}", 404),
        (f"/deliveries/{UNKNOWN_ID}", 404),
        ("/jobs/9223372036854775808", 422),
        ("/jobs/1", 404),
        ("/points?stream=nowhere&series=x", 404),
        ("/nothing", 404),
    ],
)
def test_an_error_is_a_problem_that_says_more_than_its_status(api, path, status):
    answer = api.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert answer.json()["detail"]


def test_a_large_body_is_refused(api):
    body = {"match": {}, "ends": "2150-01-01T00:00:00Z", "comment": "x" * MAX_BODY_BYTES}
    assert api.post("/silences", json=body).status_code == 413
    chunks = (b"x" * 1000 for _ in range(MAX_BODY_BYTES))
    assert api.post("/silences", content=chunks).status_code == 413


def lists_rows(operations: dict) -> bool:
    answer = operations.get("get", {}).get("responses", {}).get("200", {}).get("content", {})
    return "Page_" in str(answer.get("application/json"))


def pages_of(api, path: str, **query) -> list[dict]:
    """Return the rows of all pages of a list, two on each."""
    rows, cursor = [], None
    while True:
        page = api.get(path, params=query | {"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 2
        rows += page["items"]
        if (cursor := page["next_cursor"]) is None:
            return rows


def test_pages_of_every_list_hold_each_row_once(api, database):
    bench = RouterBench(database)
    for n in range(5):
        bench.happen(anomaly(f"b/{n}"))
    bench.settle()
    with database.begin() as connection:
        for n in range(5):
            fault = Fault("plant", FaultKind.SOURCE_DOWN, f"broker {n}", NOON + n // 2, Partition("x", n))
            faults.save(connection, fault)
        letters = [
            DeadLetter("plant", Partition("x", 0), n, NOON, None, b"{", [], "json", "no") for n in range(5)
        ]
        dead_letters.add(connection, letters)
    for n in range(5):
        api.post("/silences", json={"match": {"site": str(n)}, "ends": "2190-01-01T00:00:00Z"})
    for path, name in [
        ("/alerts", "id"),
        ("/deliveries", "id"),
        ("/silences", "id"),
        ("/faults", "message"),
        ("/dead-letters", "id"),
        ("/anomalies", "id"),
    ]:
        whole = api.get(path).json()["items"]
        assert len(whole) >= 5 or path == "/anomalies", path
        assert [one[name] for one in pages_of(api, path)] == [one[name] for one in whole], path
        assert pages_of(api, path, stream="elsewhere") == [] or path == "/silences", path
        assert api.get(path, params={"nonsense": 1}).status_code == 422
        assert api.get(path, params={"cursor": "bm90IGEgY3Vyc29y"}).status_code == 422


def test_operations_and_models_answer_on_an_empty_database(api):
    lists = [path for path, one in api.get("/openapi.json").json()["paths"].items() if lists_rows(one)]
    assert len(lists) >= 12
    for path in lists:
        answer = api.get(
            path.format(stream="plant"),
            params=dict.fromkeys(["stream"] if path == "/detection-power" else [], "plant"),
        )
        assert (answer.status_code, answer.json()["next_cursor"]) == (200, None), path
    assert api.get("/streams").json()["items"][0]["channels"] == ["temperature", "pressure"]
    refused = api.post("/streams/plant/rollback", json={})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


def test_the_config_shows_no_password(tmp_path, sqlite_template):
    config = plant_config("postgresql+psycopg://ada:hunter2@db/x", tmp_path)
    with TestClient(create_app(config, Database(f"sqlite:///{sqlite_template}"))) as client:
        shown = client.get("/config").text
    assert "hunter2" not in shown
    assert "plant" in shown


def test_every_operation_has_a_summary_and_typed_answers(api):
    document = api.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (method, path)
            assert "application/problem+json" in operation["responses"]["422"]["content"], (method, path)


def test_the_served_api_refuses_foreign_hosts_and_forged_changes(tmp_path, sqlite_template):
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    config = plant_config(f"sqlite:///{tmp_path}/forewatch.db", tmp_path)
    body = {"match": {}, "ends": "2150-01-01T00:00:00Z"}
    with (
        dashboard_server(config, port=0) as server,
        httpx.Client(base_url=f"{server.url}/api/v1", trust_env=False) as client,
    ):
        assert client.get("/streams").status_code == 200
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/api/v1"}]
        assert client.get("/streams", headers={"host": "evil.example"}).status_code == 403
        assert client.post("/silences", json=body).status_code == 403
        token = {"x-forewatch-csrf": "1"}
        forged = client.post("/silences", json=body, headers=token | {"origin": "http://evil.example"})
        assert forged.status_code == 403
        assert client.post("/silences", json=body, headers=token).status_code == 201


def test_anomalies_are_filtered_by_labels_of_their_series(api, database):
    store(database, anomaly("b/1"), anomaly("b/2"), anomaly("c/1"))

    def found(*labels: str) -> set[str]:
        return {one["series"] for one in api.get("/anomalies", params={"label": labels}).json()["items"]}

    assert found("site=b") == {"b/1", "b/2"}
    assert found("site=b", "sensor=1") == {"b/1"}
    for wrong in (["site"], ["=b"], ["site=b", "site=c"]):
        assert api.get("/anomalies", params={"label": wrong}).status_code == 422


def test_labels_are_listed_with_their_anomalies(api, database):
    made = [anomaly(f"b/{n}") for n in range(3)]
    store(database, *made)
    for one in made:
        api.put(f"/anomalies/{one.id}/label", json={"label": "false", "comment": "rain", "author": "ada"})
    first = api.get("/labels", params={"limit": 2}).json()
    rest = api.get("/labels", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    items = [*first["items"], *rest["items"]]
    assert [one["series"] for one in items] == ["b/2", "b/1", "b/0"]
    assert {(one["label"], one["comment"], one["author"]) for one in items} == {("false", "rain", "ada")}
    assert rest["next_cursor"] is None


def test_drift_names_the_series_and_the_training_that_it_asked_for(api, database):
    nothing = api.get("/drift", params={"stream": "plant"}).json()
    assert (nothing["watched"], nothing["saved"], nothing["drifts"]) == (True, None, [])
    moved = {"series": "b/1", "channel": "temperature", "kind": "input", "since_ns": NOON}
    evidence = {"stream": "plant", "at_ns": NOON + SECOND, "since_ns": NOON, "statistics": ["kswin"]}
    drift = evidence | {"watched": 7, "series": [moved | {"statistic": 9.5, "before": 1.0, "after": 4.0}]}
    with database.begin() as connection:
        for trigger, detail in (("drift", {"drift": drift}), ("manual", {})):
            jobs.add(
                connection, "train", "plant", NOON, trigger=trigger, author="x", now_ns=NOON, detail=detail
            )
        state = DriftState("plant", Partition("x", 0), b"", NOON + 2 * SECOND, NOON)
        monitor_state.save_drift(connection, state)
    found = api.get("/drift", params={"stream": "plant"}).json()
    assert (found["saved"], found["quiet_until"]) == ("2026-03-02T12:00:00Z", "2026-03-02T12:00:02Z")
    [one] = found["drifts"]
    assert (one["at"], one["watched"], one["statistics"]) == ("2026-03-02T12:00:01Z", 7, ["kswin"])
    assert one["series"][0]["since"] == "2026-03-02T12:00:00Z"
    assert one["series"][0]["after"] == 4.0


def test_a_config_is_checked_without_being_put_into_force(api, config):
    wrong = api.post(
        "/config/check", content=b"database: sqlite:///x.db\nstreams:\n  plant: {presett: sensor}\n"
    )
    assert (wrong.status_code, wrong.json()["valid"]) == (200, False)
    found = {one["key"]: one for one in wrong.json()["problems"]}
    assert found["streams.plant.presett"]["line"] == 3
    assert "preset" in found["streams.plant.presett"]["remedy"]
    assert not api.post("/config/check", content=b"a: [").json()["valid"]
    assert api.post("/config/check", content=b"\xff").status_code == 422
    good = "streams: {one: {source: {memory: {name: x}}, format: {json: {time: t, values: [v]}}}}"
    checked = api.post("/config/check", content=good.encode()).json()
    assert (checked["valid"], checked["problems"]) == (True, [])
    assert list(config.streams) == ["plant"]


def test_a_stream_says_what_a_backfill_can_read(api, config, database, tmp_path):
    assert api.get("/champions").json()["items"][0]["backfill"] == "none"
    sources = {
        "range": {"kafka": {"brokers": ["b:9092"], "topics": ["x"]}},
        "files": {"files": {"paths": [str(tmp_path / "*.csv")]}},
    }
    for wanted, source in sources.items():
        stream = STREAM | {"source": source}
        other = Config.model_validate({"database": config.database, "streams": {"plant": stream}})
        with TestClient(create_app(other, database)) as client:
            assert client.get("/champions").json()["items"][0]["backfill"] == wanted


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: " + "[" * 15_000, "levels of brackets"), (BOMB, "each alias is written out")],
    ids=["nested", "aliases"],
)
def test_a_yaml_that_no_person_wrote_is_refused_before_it_costs_time(api, text, said):
    checked = api.post("/config/check", content=text.encode()).json()
    assert (checked["valid"], said in checked["problems"][0]["what"]) == (False, True)


@pytest.mark.parametrize("text", ["a: " + "[" * 15_000, BOMB], ids=["nested", "aliases"])
def test_rules_that_no_person_wrote_are_refused_before_they_cost_time(config, database, text):
    sink = {"type": "webhook", "url": "http://127.0.0.1:9/", "secret": {"env": "X"}, "allow": ["loopback"]}
    tree = config.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"endpoints": {"ops": sink}}
    with TestClient(create_app(Config.model_validate(tree), database)) as client:
        answer = client.post("/streams/plant/preview", json={"rules": text})
    assert (answer.status_code, "write them plainly" in answer.text) == (422, True)
