"""Every operation that names an object is refused to a key of another team (from the OpenAPI document).

A new operation, or a new parameter that names an object, is tested without a change here. The test fails
where it has no object for a parameter: add one to ``objects``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest

from pipeline.api.app import build_app
from storage.model_store import jobs, models
from storage.model_store.models import ModelState, ModelVersion
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import RouterBench, anomaly
from tests.support.api_servers import Site, served

DOCUMENT = build_app().openapi()
VERSION = "abcdefabcdef"
MINE = "plant"
#: Bodies that a request needs before it comes to its object; others are empty.
BODIES = {
    "PUT /anomalies/{anomaly_id}/label": {"label": "true"},
    "POST /silences": {"stream": MINE, "ends": "2150-01-01T00:00:00Z"},
    "POST /dead-letters/replay": {"stream": MINE},
}
#: Parameters that belong to another one, and name no object alone.
HARMLESS = {"series": "b2/t1", "topic": "sensors", "notice": "info"}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, and the names of its parameters by place."""

    method: str
    path: str
    in_path: tuple[str, ...]
    in_query: tuple[str, ...]
    required: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name as in ``BODIES``."""
        return f"{self.method} {self.path}"


def operations() -> Iterator[Operation]:
    for path, of_path in DOCUMENT["paths"].items():
        for method, one in of_path.items():
            given = one.get("parameters", [])
            found = {
                place: tuple(p["name"] for p in given if p["in"] == place) for place in ("path", "query")
            }
            required = tuple(p["name"] for p in given if p.get("required") and p["in"] == "query")
            yield Operation(method.upper(), path, found["path"], found["query"], required)


OPERATIONS = list(operations())
#: Those that name an object in the path, a stream in the query, or a stream in the body.
NAMING = [one for one in OPERATIONS if one.in_path or "stream" in one.in_query or one.name in BODIES]


@pytest.fixture(scope="module")
def site(tmp_path_factory, sqlite_template) -> Iterator[Site]:
    """Serve two streams of two teams."""
    folder = tmp_path_factory.mktemp("teams")
    (folder / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{folder}/forewatch.db")
    with served(database, folder) as running:
        yield running
    database.close()


@pytest.fixture(scope="module")
def objects(site: Site) -> dict[str, str]:
    """Return the id of an object of ``MINE`` for each name of a parameter."""
    database, one = site.database, anomaly(stream=MINE)
    bench = RouterBench(database)
    with database.begin() as connection:
        anomalies.upsert(connection, [one])
        now = time.time_ns()
        job = jobs.add(connection, "train", MINE, now, trigger="manual", author="ada", now_ns=now)
        models.add(connection, made_model(now))
    bench.happen(one)
    bench.settle()
    with site.client(site.key("operator", teams=["east"])) as client:
        silence = client.post("/api/v1/silences", json=BODIES["POST /silences"]).json()["id"]
        [alert] = client.get("/api/v1/alerts").json()["items"]
        delivery = client.get("/api/v1/deliveries").json()["items"][0]["id"]
    return HARMLESS | {
        "stream": MINE,
        "anomaly_id": str(one.id),
        "incident_id": str(one.id),
        "anomaly": str(one.id),
        "alert_id": alert["id"],
        "delivery_id": delivery,
        "silence_id": silence,
        "job_id": str(job),
        "version": VERSION,
    }


def made_model(now: int) -> ModelVersion:
    return ModelVersion(VERSION, MINE, "nowhere", "0" * 64, ModelState.SHADOW, None, "ada", now, now)


@pytest.fixture(scope="module")
def clients(site: Site) -> Iterator[dict[str, httpx.Client]]:
    """Clients of both teams that may do everything: only the team can be the reason of a refusal."""
    with ExitStack() as stack:
        yield {
            team: stack.enter_context(site.client(site.key("admin", teams=[team])))
            for team in ("east", "west")
        }


def ask(client: httpx.Client, one: Operation, objects: dict[str, str]) -> tuple[int, str]:
    named = {name for name in (*one.in_path, *one.required) if name not in objects}
    assert not named, f"{one.name}: add an object for {named} to this test"
    path = one.path.format(**{name: objects[name] for name in one.in_path})
    query = {name: objects[name] for name in one.in_query if name in (*one.required, "stream")}
    body = None if one.method == "GET" else BODIES.get(one.name, {})
    answer = client.request(one.method, f"/api/v1{path}", params=query, json=body)
    return answer.status_code, answer.text


@pytest.mark.parametrize("one", NAMING, ids=[one.name for one in NAMING])
def test_an_object_of_another_team_is_neither_shown_nor_changed(clients, objects, one):
    status, text = ask(clients["west"], one, objects)
    assert status in (403, 404), text
    assert objects["silence_id"] not in text or one.path.startswith("/silences")
    assert "temperature" not in text, "nothing of the object is in the answer"


@pytest.mark.parametrize("one", [one for one in NAMING if one.method == "GET"], ids=lambda one: one.name)
def test_the_team_itself_sees_the_object(clients, objects, one):
    if one.path == "/events":
        pytest.skip("its answer has no end")
    status, text = ask(clients["east"], one, objects)
    assert status != 403, text
    assert status != 404 or "explanation" in one.path, "the other test would pass for a wrong id"


def test_every_list_without_a_filter_leaves_out_other_teams(clients, objects):
    """No answer that a key of another team gets names an object of this one."""
    for one in OPERATIONS:
        if one.method != "GET" or one.in_path or one.path == "/events" or "stream" in one.required:
            continue
        text = clients["west"].get(f"/api/v1{one.path}").text
        for name in ("anomaly_id", "alert_id", "delivery_id", "silence_id", "version"):
            assert objects[name] not in text, one.name
        assert f'"{MINE}"' not in text, one.name
