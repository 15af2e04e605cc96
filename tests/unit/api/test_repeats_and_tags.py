"""Idempotency keys and entity tags on a real server, over SQLite and PostgreSQL."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import RouterBench, anomaly
from tests.support.api_servers import CHANGE, Site, served

SILENCE = {"stream": "plant", "match": {}, "ends": "2150-01-01T00:00:00Z"}


@pytest.fixture
def site(database: Database, tmp_path) -> Iterator[Site]:
    with served(database, tmp_path) as running:
        yield running


def once() -> dict[str, str]:
    return {"idempotency-key": str(uuid.uuid4())}


def test_a_repeat_changes_nothing_and_gets_the_first_answer(site):
    with site.client(headers=CHANGE) as client:
        key = once()
        first = client.post("/api/v1/silences", json=SILENCE, headers=key)
        again = client.post("/api/v1/silences", json=SILENCE, headers=key)
        assert (again.status_code, again.json()) == (first.status_code, first.json()) == (201, first.json())
        assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (
            None,
            "true",
        )
        assert len(client.get("/api/v1/silences").json()["items"]) == 1
        client.post("/api/v1/silences", json=SILENCE, headers=once())
        assert len(client.get("/api/v1/silences").json()["items"]) == 2
    assert len(site.audited("silence.add")) == 2


def test_a_key_of_another_request_or_of_no_sense_is_refused(site):
    with site.client(headers=CHANGE) as client:
        key = once()
        client.post("/api/v1/silences", json=SILENCE, headers=key)
        other = client.post("/api/v1/silences", json=SILENCE | {"comment": "x"}, headers=key)
        assert (other.status_code, "another request" in other.json()["detail"]) == (422, True)
        for wrong in ("", "x" * 201, "\xe9".encode("latin-1")):
            assert (
                client.post("/api/v1/silences", json=SILENCE, headers={"idempotency-key": wrong}).status_code
                == 422
            )


def test_a_request_that_failed_may_come_again_with_its_key(site):
    with site.client(headers=CHANGE) as client:
        key = once()
        assert client.post("/api/v1/silences", json={"match": 1}, headers=key).status_code == 422
        assert client.post("/api/v1/silences", json=SILENCE, headers=key).status_code == 201


def test_keys_of_two_principals_do_not_meet(site):
    key = once()
    answers = []
    for name in ("a", "b"):
        with site.client(site.key("operator", name=name)) as client:
            answers.append(client.post("/api/v1/silences", json=SILENCE, headers=key).json())
    assert answers[0]["id"] != answers[1]["id"]
    assert [one["author"] for one in answers] == ["a", "b"]


def test_repeats_at_the_same_time_change_things_once(site):
    key, answers = once(), []

    def post() -> None:
        with site.client(headers=CHANGE) as client:
            answers.append(client.post("/api/v1/silences", json=SILENCE, headers=key).status_code)

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {201, 409}
    assert 201 in answers
    assert len(site.audited("silence.add")) == 1


def test_an_outcome_that_was_lost_is_not_repeated(site):
    with site.client(headers=CHANGE) as client:
        key = once()
        client.post("/api/v1/silences", json=SILENCE, headers=key)
        with site.database.begin() as connection:  # as if the process had ended before it kept the answer
            connection.execute(text("UPDATE kept_answers SET status = NULL"))
        lost = client.post("/api/v1/silences", json=SILENCE, headers=key)
        assert (lost.status_code, lost.headers["retry-after"]) == (409, "1")
        assert len(client.get("/api/v1/silences").json()["items"]) == 1


def test_an_unchanged_answer_is_304_without_a_body(site):
    with site.client(headers=CHANGE) as client:
        first = client.get("/api/v1/silences")
        same = client.get("/api/v1/silences", headers={"if-none-match": first.headers["etag"]})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
        weak = client.get("/api/v1/silences", headers={"if-none-match": f'"x", W/{first.headers["etag"]}'})
        assert weak.status_code == 304
        client.post("/api/v1/silences", json=SILENCE)
        changed = client.get("/api/v1/silences", headers={"if-none-match": first.headers["etag"]})
        assert (changed.status_code, len(changed.json()["items"])) == (200, 1)
        assert "etag" not in client.get("/api/v1/silences?cursor=x").headers


def test_events_are_not_held_back(site):
    with site.client() as client, client.stream("GET", "/api/v1/events") as stream:
        assert "etag" not in stream.headers
        assert b"ready" in next(stream.iter_bytes())


def test_a_label_of_what_has_changed_is_refused(site):
    one = anomaly()
    with site.database.begin() as connection:
        anomalies.upsert(connection, [one])
    path = f"/api/v1/anomalies/{one.id}"
    with site.client(headers=CHANGE) as client:
        read = client.get(path).headers["etag"]
        first = client.put(f"{path}/label", json={"label": "true"}, headers={"if-match": read})
        assert first.status_code == 200
        second = client.put(f"{path}/label", json={"label": "false"}, headers={"if-match": read})
        assert (second.status_code, "read it again" in second.json()["detail"]) == (412, True)
        assert client.get(path).json()["review"]["label"] == "true"
        fresh = {"if-match": first.headers["etag"]}
        assert client.put(f"{path}/label", json={"label": "false"}, headers=fresh).status_code == 200
        anything = client.put(f"{path}/label", json={"label": "true"}, headers={"if-match": "*"})
        assert anything.status_code == 200


def test_alerts_and_silences_are_compared_too(site):
    bench = RouterBench(site.database)
    bench.happen(anomaly())
    bench.settle()
    with site.client(headers=CHANGE) as client:
        [alert] = client.get("/api/v1/alerts").json()["items"]
        path = f"/api/v1/alerts/{alert['id']}"
        tag = client.get(path).headers["etag"]
        stale = client.post(f"{path}/acknowledge", json={}, headers={"if-match": '"stale"'})
        assert stale.status_code == 412
        assert client.post(f"{path}/acknowledge", json={}, headers={"if-match": tag}).status_code == 202
        made = client.post("/api/v1/silences", json=SILENCE).json()
        path = f"/api/v1/silences/{made['id']}"
        assert client.delete(path, headers={"if-match": '"stale"'}).status_code == 412
        assert client.delete(path, headers={"if-match": client.get(path).headers["etag"]}).status_code == 204
        assert client.get(path).status_code == 200
