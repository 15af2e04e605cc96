"""Login of the dashboard by a key: sessions, forged requests, redirects, times, on a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from pipeline.access.api_keys import revoke_key
from pipeline.access.redirect_targets import safe_target
from storage.sql.database import Database
from tests.support.api_servers import ADA, Browser, Site, field, refusal_of, served

SILENCE = {"stream": "plant", "match": {}, "ends": "2150-01-01T00:00:00Z"}
SESSION = "forewatch_session"


@pytest.fixture
def site(database: Database, tmp_path) -> Iterator[Site]:
    with served(database, tmp_path) as running:
        running.key(name="first")
        yield running


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    with Browser(base_url=site.url, timeout=120) as opened:
        yield opened


def test_a_login_gives_a_session_that_pages_can_use(site, browser):
    key = site.key("operator", name="eve", teams=["east"])
    answer = browser.log_in(key, "/series?stream=plant&series=b%201")
    assert (answer.status_code, answer.headers["location"]) == (303, "/series?stream=plant&series=b%201")
    session, csrf = (one for one in answer.headers.get_list("set-cookie") if "Max-Age=0" not in one)
    assert session.startswith(f"{SESSION}=")
    assert "HttpOnly" in session
    assert "SameSite=lax" in session
    assert "HttpOnly" not in csrf
    me = browser.get("/api/v1/session").json()
    assert me == {"name": "eve", "kind": "session", "scope": "operator", "streams": [], "teams": ["east"]}
    made = browser.post("/api/v1/silences", json=SILENCE, headers=browser.token)
    assert (made.status_code, made.json()["author"]) == (201, "eve")
    assert [one.action for one in site.audited()][:2] == ["silence.add", "session.login"]


def test_cookies_are_secure_where_the_address_is_https(database, tmp_path):
    with served(database, tmp_path, {"url": "https://watch.example"}) as site:
        key = site.key()
        with httpx.Client(base_url=site.url) as client:
            form = client.get("/login")
            cookie = form.headers["set-cookie"]
            assert cookie.startswith("__Host-forewatch-login=")
            assert "Secure" in cookie
            name, value = cookie.partition(";")[0].split("=", 1)
            answer = client.post(
                "/login",
                data={"key": key, "csrf": field(form.text, "csrf")},
                headers={"cookie": f"{name}={value}", "origin": "https://watch.example"},
            )
    assert answer.status_code == 303
    for one in answer.headers.get_list("set-cookie"):
        assert one.startswith("__Host-forewatch-")
        assert "Secure" in one
        assert "Path=/" in one
        assert "Domain" not in one


def test_a_session_that_the_browser_brings_is_never_taken(site, browser):
    browser.cookies.set(SESSION, "chosen-by-an-attacker")
    answer = browser.log_in(site.key())
    assert answer.status_code == 303
    assert "chosen-by-an-attacker" not in str(answer.headers)
    with site.client(cookies={SESSION: "chosen-by-an-attacker"}) as attacker:
        assert attacker.get("/api/v1/session").status_code == 401


def test_a_second_login_ends_the_first_session(site, browser):
    key = site.key()
    browser.log_in(key)
    old = browser.cookies[SESSION]
    browser.log_in(key)
    assert browser.cookies[SESSION] != old
    with site.client(cookies={SESSION: old}) as client:
        assert client.get("/api/v1/session").status_code == 401


def test_the_token_of_a_session_is_stored_as_a_hash_only(site, browser):
    browser.log_in(site.key())
    with site.database.read() as connection:
        for table in ("web_sessions", "audit_entries", "login_attempts"):
            rows = str(connection.execute(text(f"SELECT * FROM {table}")).all())
            assert browser.cookies[SESSION] not in rows
            assert browser.cookies["forewatch_csrf"] not in rows


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-forewatch-csrf": ""},
        {"x-forewatch-csrf": "1"},
        {"x-forewatch-csrf": "A" * 43},
        {"x-forewatch-csrf": "right", "origin": "http://evil.example"},
        {"x-forewatch-csrf": "right", "origin": "null"},
        {"x-forewatch-csrf": "right", "sec-fetch-site": "cross-site"},
        {"x-forewatch-csrf": "right", "sec-fetch-site": "same-site"},
    ],
)
def test_a_change_without_the_token_of_the_session_is_refused(site, browser, headers):
    browser.log_in(site.key("operator"))
    right = browser.token["x-forewatch-csrf"]
    given_ = {name: right if value == "right" else value for name, value in headers.items()}
    answer = browser.post("/api/v1/silences", json=SILENCE, headers=given_)
    assert answer.status_code == 403
    assert browser.get("/api/v1/silences").json()["items"] == []


def test_the_token_of_another_session_is_refused(site, browser):
    key = site.key("operator")
    browser.log_in(key)
    with Browser(base_url=site.url, timeout=120) as other:
        other.log_in(key)
        foreign = other.token
    assert browser.post("/api/v1/silences", json=SILENCE, headers=foreign).status_code == 403


def test_a_login_is_not_forged_for_a_victim(site):
    key = site.key()
    with Browser(base_url=site.url) as attacker, Browser(base_url=site.url) as victim:
        form = attacker.get("/login").text
        data = {"key": key, "csrf": field(form, "csrf")}
        assert victim.post("/login", data=data).status_code == 403
        victim.get("/login")
        assert victim.post("/login", data=data).status_code == 403
        right = {"key": key, "csrf": field(victim.get("/login").text, "csrf")}
        cross = victim.post("/login", data=right, headers={"origin": "http://evil.example"})
        assert cross.status_code == 403
        assert SESSION not in victim.cookies


def test_a_logout_needs_the_token_and_ends_the_session(site, browser):
    browser.log_in(site.key())
    session = browser.cookies[SESSION]
    assert browser.post("/logout").status_code == 403
    assert browser.get("/logout").status_code == 405
    answer = browser.post("/logout", headers=browser.token)
    assert answer.status_code == 204
    assert SESSION not in browser.cookies
    with site.client(cookies={SESSION: session}) as client:
        assert client.get("/api/v1/session").status_code == 401
    assert site.audited()[0].action == "session.logout"


def test_sessions_end_with_their_key(site, browser):
    browser.log_in(site.key(name="eve"))
    with site.database.begin() as connection:
        revoke_key(connection, "eve", ADA, time.time_ns())
    ended = refusal_of(browser)
    assert (ended.status_code, "log in again" in ended.json()["detail"]) == (401, True)
    assert browser.get("/").headers["location"] == "/login?next=%2F"


@pytest.mark.parametrize(("column", "seconds"), [("seen_ns", 8 * 3600 + 1), ("expires_ns", 24 * 3600 + 1)])
def test_sessions_end_by_idle_and_by_whole_time(site, browser, column, seconds):
    browser.log_in(site.key())
    assert browser.get("/api/v1/session").status_code == 200
    with site.database.begin() as connection:
        connection.execute(text(f"UPDATE web_sessions SET {column} = {column} - {seconds * 10**9}"))
    assert refusal_of(browser).status_code == 401


def test_wrong_keys_are_slowed_and_not_logged(database, tmp_path):
    with (
        served(database, tmp_path, {"failures_per_minute": 2}) as site,
        structlog.testing.capture_logs() as logs,
    ):
        wrong = site.key()[:-4] + "nono"
        with Browser(base_url=site.url, timeout=120) as browser:
            answers = [browser.log_in(one) for one in (wrong, "no key", wrong, wrong)]
            assert [one.status_code for one in answers] == [401, 401, 429, 429]
            assert "unknown, revoked or expired" in answers[0].text
            assert answers[0].text.count("unknown") == answers[1].text.count("unknown"), "no enumeration"
        assert wrong[16:] not in str(logs)


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\r\nset-cookie: a=b",
        "/%0d%0aset-cookie:a=b\n",
        "///evil.example",
        "http:evil",
        "/" + "a" * 3000,
        "/login?next=/",
        "/api/v1/config",
        "",
    ],
)
def test_a_login_leads_to_pages_of_this_site_only(site, browser, target):
    answer = browser.log_in(site.key(), target)
    assert answer.headers["location"] == "/"
    assert "evil" not in str(answer.headers)


@given(st.text())
def test_a_safe_target_is_a_path(text_):
    target = safe_target(text_)
    assert target.startswith("/")
    assert target[1:2] not in ("/", "\\")
    assert target.isascii()
    assert target.isprintable()
    assert httpx.URL("https://watch.example").join(target).host == "watch.example"


def test_the_page_of_login_escapes_what_it_repeats(site, browser):
    page = browser.get("/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script>" not in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert browser.get("/login.css").headers["content-type"].startswith("text/css")


@pytest.mark.parametrize(
    "path", ["/login.css/../../etc/passwd", "/assets/..%2f..%2fapp.py", "/assets/%2e%2e/%2e%2e/login.py"]
)
def test_no_path_leaves_the_folder_of_the_pages(site, path):
    import socket

    with socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2]))) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = raw.makefile("rb").read()
    assert answer.partition(b" ")[2][:3] in (b"303", b"404"), answer[:200]
    assert b"import" not in answer


def test_a_form_that_is_too_large_is_refused(site, browser):
    form = browser.get("/login").text
    answer = browser.post("/login", data={"key": "x" * 20_000, "csrf": field(form, "csrf")})
    assert answer.status_code == 403
