"""Who may: keys, scopes and streams on a real server, over SQLite and PostgreSQL."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import structlog

from pipeline.access import gate
from pipeline.access.api_keys import find_key, revoke_key
from pipeline.api.app import build_app
from pipeline.api.permissions import SCOPES
from pipeline.core.errors import ConfigError
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import RouterBench, anomaly
from tests.support.api_servers import ADA, CHANGE, Site, refusal_of, served

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
SILENCE = {"stream": "plant", "match": {}, "ends": "2150-01-01T00:00:00Z"}


@pytest.fixture
def site(database: Database, tmp_path) -> Iterator[Site]:
    with served(database, tmp_path) as running:
        yield running


def test_a_server_of_this_machine_is_open_until_a_first_key_exists(site):
    with site.client() as client:
        assert client.get("/api/v1/session").json()["kind"] == "local"
        assert client.get("/").status_code in (200, 503)
        key = site.key("admin")
        time.sleep(1.1)
        refused = client.get("/api/v1/streams")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.headers["content-type"] == "application/problem+json"
        assert "header `Authorization`" in refused.json()["detail"]
        page = client.get("/series?stream=a&series=b")
        assert (page.status_code, page.headers["location"]) == (
            303,
            "/login?next=%2Fseries%3Fstream%3Da%26series%3Db",
        )
    with site.client(key) as client:
        assert client.get("/api/v1/session").json()["scope"] == "admin"
        assert len(client.get("/api/v1/streams").json()["items"]) == 2


def test_a_revoked_last_key_does_not_open_the_server(site):
    key = site.key(name="only")
    with site.client(key) as client, site.client() as nobody:
        assert client.get("/api/v1/streams").status_code == 200
        with site.database.begin() as connection:
            revoke_key(connection, "only", ADA, 1)
        refused = refusal_of(client)
        assert (refused.status_code, "revoked" in refused.json()["detail"]) == (401, True)
        assert nobody.get("/api/v1/streams").status_code == 401


@pytest.mark.parametrize(
    "header",
    ["Basic abc", "Bearer", "Bearer x", "Bearer fw_0123456789ab_" + "A" * 43, "bearer a b", "Bearer \xff"],
)
def test_headers_without_a_known_key_are_refused(site, header):
    site.key()
    with site.client() as client:
        refused = client.get("/api/v1/streams", headers={"authorization": header.encode("latin-1")})
    assert (refused.status_code, refused.json()["status"]) == (401, 401)


def test_a_repeated_authorization_header_is_refused(site):
    key = site.key()
    with socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2]))) as raw:
        raw.sendall(
            f"GET /api/v1/streams HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n"
            f"Authorization: Bearer {key}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(("method", "path"), sorted(SCOPES))
def test_each_operation_names_the_scope_that_is_missing(site, method, path):
    needed = SCOPES[(method, path)]
    order = ["viewer", "operator", "admin"]
    lesser = order[order.index(needed) - 1] if needed != "viewer" else None
    address = "/api/v1" + path.replace("{stream}", "plant").replace("{version}", "a" * 12).replace(
        "{job_id}", "1"
    )
    for name in ("alert_id", "delivery_id", "silence_id", "anomaly_id"):
        address = address.replace(f"{{{name}}}", UNKNOWN_ID)
    allowed = site.key(needed)
    if lesser is not None:
        with site.client(site.key(lesser)) as client:
            refused = client.request(method, address, json={})
        assert refused.status_code == 403
        assert f"needs the scope {needed}" in refused.json()["detail"]
    with site.client(allowed) as client:
        assert client.request(method, address, json={}).status_code not in (401, 403, 500)


def test_every_change_of_the_document_has_a_scope():
    document = build_app().openapi()
    changes = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if method != "get"
    }
    assert changes - set(SCOPES) == set()
    assert {scheme for one in document["security"] for scheme in one} == {"key", "session"}
    assert document["paths"]["/silences"]["post"]["x-forewatch-scope"] == "operator"


def of_two_teams(database: Database):
    east, west = anomaly("b/1"), anomaly("c/2", stream="web")
    with database.begin() as connection:
        anomalies.upsert(connection, [east, west])
    return east, west


def test_a_key_of_a_team_sees_only_its_streams(site):
    east, west = of_two_teams(site.database)
    bench = RouterBench(site.database)
    bench.happen(east)
    bench.settle()
    mine, other, admin = (
        site.key("operator", teams=["east"]),
        site.key("operator", streams=["web"]),
        site.key("admin"),
    )
    with site.client(mine) as client, site.client(other) as stranger, site.client(admin) as all_:
        assert [one["name"] for one in client.get("/api/v1/streams").json()["items"]] == ["plant"]
        assert [one["series"] for one in client.get("/api/v1/anomalies").json()["items"]] == ["b/1"]
        assert [one["series"] for one in stranger.get("/api/v1/anomalies").json()["items"]] == ["c/2"]
        assert len(all_.get("/api/v1/anomalies").json()["items"]) == 2
        [alert] = client.get("/api/v1/alerts").json()["items"]
        assert stranger.get("/api/v1/alerts").json()["items"] == []
        delivery = client.get("/api/v1/deliveries").json()["items"][0]
        assert stranger.get("/api/v1/deliveries").json()["items"] == []
        hidden = [
            f"/anomalies/{east.id}",
            f"/anomalies/{east.id}/explanation",
            f"/incidents/{east.id}",
            f"/incidents/{alert['id']}",
            f"/alerts/{alert['id']}",
            f"/deliveries/{delivery['id']}",
            "/anomalies?stream=plant",
            "/partitions?stream=plant",
            "/points?stream=plant&series=b",
            "/chart?stream=plant&series=b",
            "/dead-letters/counts?stream=plant",
            "/streams/plant/preview?notice=info",
            "/detection-power?stream=plant",
            "/lanes?stream=plant",
            "/series?stream=plant",
            "/streams/plant/series-names",
        ]
        for path in hidden:
            answer = stranger.get(f"/api/v1{path}")
            assert answer.status_code == 404, path
            assert "there is no" in answer.json()["detail"], path
            assert client.get(f"/api/v1{path}").status_code != 404 or "explanation" in path, path
        fleet = stranger.get("/api/v1/fleet?range=365d").json()
        assert [one["name"] for one in fleet["streams"]] == ["web"]
        assert (fleet["tiles"]["open_alerts"], fleet["tiles"]["messages_today"]) == (0, 0)
        assert fleet["tiles"]["deliveries_waiting"] == 0
        assert list(stranger.get("/api/v1/config").json()["config"]["streams"]) == ["web"]
        around = stranger.get(f"/api/v1/incidents/{west.id}").json()["around"]
        assert around == []


def test_a_key_of_a_team_changes_only_its_streams(site):
    east, _ = of_two_teams(site.database)
    bench = RouterBench(site.database)
    bench.happen(east)
    bench.settle()
    stranger, admin = site.client(site.key("operator", streams=["web"])), site.client(site.key("admin"))
    with stranger, admin:
        [alert] = admin.get("/api/v1/alerts").json()["items"]
        delivery = admin.get("/api/v1/deliveries").json()["items"][0]
        everywhere = admin.post("/api/v1/silences", json=SILENCE | {"stream": None}).json()
        silence = admin.post("/api/v1/silences", json=SILENCE).json()
        for method, path, body, status in [
            ("PUT", f"/anomalies/{east.id}/label", {"label": "false"}, 404),
            ("POST", f"/alerts/{alert['id']}/acknowledge", {}, 404),
            ("POST", f"/deliveries/{delivery['id']}/redeliver", {}, 404),
            ("POST", "/silences", SILENCE, 404),
            ("POST", "/silences", SILENCE | {"stream": None}, 403),
            ("DELETE", f"/silences/{silence['id']}", None, 404),
            ("DELETE", f"/silences/{everywhere['id']}", None, 403),
            ("POST", "/streams/plant/rollback", {}, 404),
        ]:
            answer = stranger.request(method, f"/api/v1{path}", json=body)
            assert answer.status_code == status, (path, answer.text)
        assert len(admin.get("/api/v1/silences").json()["items"]) == 2
        assert [one["id"] for one in stranger.get("/api/v1/silences").json()["items"]] == [everywhere["id"]]
    assert not [
        one for one in site.audited() if one.action in ("anomaly.label", "alert.acknowledge", "silence.end")
    ]


def test_the_author_of_a_change_is_the_key_and_not_what_the_body_says(site):
    east, _ = of_two_teams(site.database)
    key = site.key("operator", name="ci")
    with site.client(key) as client:
        body = {"label": "true", "author": "the boss", "comment": f"leaked {key}"}
        shown = client.put(f"/api/v1/anomalies/{east.id}/label", json=body).json()
        client.put(f"/api/v1/anomalies/{east.id}/label", json={"label": "false"})
    assert shown["review"]["author"] == "ci"
    last, first = site.audited("anomaly.label")
    assert (first.actor, first.actor_kind, first.address, first.stream) == ("ci", "key", "127.0.0.1", "plant")
    assert (last.detail["before"], last.detail["after"]) == ("true", "false")
    assert key not in str(site.audited())


def test_an_open_server_takes_the_author_as_given_and_needs_the_header(site):
    east, _ = of_two_teams(site.database)
    with site.client() as client:
        path = f"/api/v1/anomalies/{east.id}/label"
        assert client.put(path, json={"label": "true"}).status_code == 403
        shown = client.put(path, json={"label": "true", "author": "bob"}, headers=CHANGE).json()
    assert shown["review"]["author"] == "bob"
    assert site.audited("anomaly.label")[0].actor_kind == "local"


@pytest.mark.parametrize("query", ["key=x", "access_token=x", "API_KEY=x", "q={key}", "q=a%26{key}", "{key}"])
def test_a_key_in_the_address_is_refused_and_never_logged(site, query):
    key = site.key("admin")
    with structlog.testing.capture_logs() as logs, site.client() as client:
        answer = client.get(f"/api/v1/streams?{query.format(key=key)}")
        wrong = key[:-5] + "wrong"
        client.get("/api/v1/streams", headers={"authorization": f"Bearer {wrong}"})
    assert (answer.status_code, answer.json()["title"]) == (400, "The address contains a key")
    assert key not in answer.text
    assert key[16:40] not in str(logs)
    assert any(one.get("key") == key[3:15] for one in logs), "the public part says which key it was"


def test_foreign_host_names_are_refused_on_loopback(site):
    with site.client() as client:
        for host in ("evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io", "[::2]", "a b"):
            assert client.get("/api/v1/streams", headers={"host": host}).status_code in (400, 403), host
        assert client.get("/api/v1/streams", headers={"host": "localhost:1"}).status_code == 200


def test_the_public_name_of_the_config_is_a_good_host(database, tmp_path):
    with served(database, tmp_path, {"url": "https://watch.example"}) as site, site.client() as client:
        answer = client.get("/api/v1/streams", headers={"host": "watch.example"})
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]
        assert client.get("/api/v1/streams", headers={"host": "other.example"}).status_code == 403


def test_another_address_needs_a_key(database, tmp_path):
    with (
        pytest.raises(ConfigError, match="forewatch keys create"),
        served(database, tmp_path, host="0.0.0.0"),
    ):
        pass
    with served(database, tmp_path) as site:
        key = site.key()
    elsewhere = {"host": "anything.example"}
    with served(database, tmp_path, host="0.0.0.0") as site, site.client(headers=elsewhere) as client:
        address = site.url.replace("0.0.0.0", "127.0.0.1")
        assert client.get(f"{address}/api/v1/streams").status_code == 401
        good = client.get(f"{address}/api/v1/streams", headers={"authorization": f"Bearer {key}"})
        assert good.status_code == 200


def test_requests_beyond_the_limit_are_told_when_to_come_again(database, tmp_path):
    with served(database, tmp_path, {"requests_per_minute": 5, "failures_per_minute": 3}) as site:
        key, other = site.key(), site.key()
        with site.client(key) as client:
            answers = [client.get("/api/v1/session") for _ in range(6)]
        assert [one.status_code for one in answers] == [200] * 5 + [429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert answers[-1].headers["content-type"] == "application/problem+json"
        with site.client("fw_0123456789ab_" + "A" * 43) as client:
            refused = [client.get("/api/v1/session").status_code for _ in range(4)]
        assert refused == [401, 401, 401, 429]
        with site.client(other) as client:
            assert client.get("/api/v1/session").status_code == 200, "a good key is not locked out"


def test_addresses_of_untrusted_proxies_are_not_believed(database, tmp_path):
    spoofed = {"x-forwarded-for": "203.0.113.9"}
    for serve, expected in (({}, "127.0.0.1"), ({"trusted_proxies": ["127.0.0.0/8"]}, "203.0.113.9")):
        with served(database, tmp_path, serve) as site, site.client(site.key("operator")) as client:
            client.post("/api/v1/silences", json=SILENCE, headers=spoofed)
            assert site.audited("silence.add")[0].address == expected


def test_the_audit_log_is_for_administrators_and_paged(site):
    with site.client(site.key("admin")) as client:
        for _ in range(3):
            client.post("/api/v1/silences", json=SILENCE)
        page = client.get("/api/v1/audit?action=silence&limit=2").json()
        assert [one["action"] for one in page["items"]] == ["silence.add"] * 2
        rest = client.get("/api/v1/audit", params={"action": "silence", "cursor": page["next_cursor"]}).json()
        assert (len(rest["items"]), rest["next_cursor"]) == (1, None)
        assert client.get("/api/v1/audit?stream=web").json()["items"] == []


def test_an_answer_has_headers_that_keep_it_private(site):
    with site.client() as client:
        headers = client.get("/api/v1/streams").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "authorization" in headers["vary"]
    assert "private" in headers["cache-control"]


def test_the_api_behind_no_guard_is_closed(database, tmp_path):
    from starlette.testclient import TestClient

    from pipeline.api.app import create_app
    from tests.support.api_servers import config_of

    config = config_of(str(database.url), tmp_path)
    with TestClient(create_app(config, database, guarded=True)) as client:
        assert client.get("/streams").status_code == 401


def test_a_revoked_key_is_refused_within_seconds(site):
    key = site.key("operator", name="leaver")
    with site.client(key) as client:
        assert [client.get("/api/v1/session").status_code for _ in range(3)] == [200] * 3
        with site.database.begin() as connection:
            revoke_key(connection, "leaver", ADA, time.time_ns())
        assert refusal_of(client).status_code == 401


def test_a_key_is_looked_up_once_for_a_while_and_a_wrong_one_each_time(site, monkeypatch):
    looked_up = []
    monkeypatch.setattr(gate, "REMEMBERED_SECONDS", 1000.0)
    monkeypatch.setattr(gate, "find_key", lambda *given: looked_up.append(given[1]) or find_key(*given))
    key, wrong = site.key(), "fw_0123456789ab_" + "A" * 43
    with site.client(key) as client:
        for _ in range(5):
            client.get("/api/v1/session")
    with site.client(wrong) as client:
        assert [client.get("/api/v1/session").status_code for _ in range(3)] == [401] * 3
    assert looked_up.count(wrong) == 3
    assert looked_up.count(key) == 1


def test_a_config_is_checked_for_administrators_of_all_streams_only(site):
    with site.client(site.key("admin", teams=["east"])) as client:
        refused = client.post("/api/v1/config/check", content=b"streams: {}")
    assert refused.status_code == 403
    with site.client(site.key("admin")) as client:
        assert client.post("/api/v1/config/check", content=b"streams: {}").status_code == 200
