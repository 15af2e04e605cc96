"""Login at a real OpenID provider: discovery, PKCE, nonce, signatures, groups."""

from __future__ import annotations

import base64
import hashlib
import time
import warnings
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import structlog

from pipeline.access.openid import LoginRefused, OpenIdProvider, rights_of
from pipeline.access.scopes import Scope
from pipeline.config.serve import OpenIdConfig
from storage.sql.database import Database
from tests.support.api_servers import Browser, Site, served
from tests.support.openid_providers import SigningProvider
from tests.support.postgres_server import free_port

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import oidc_provider_mock

GROUPS = {"sre": {"scope": "admin"}, "plant": {"scope": "operator", "teams": ["east"]}}


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """A provider of the package oidc-provider-mock with two people."""
    people = (
        oidc_provider_mock.User(sub="ada", claims={"groups": ["plant"], "preferred_username": "Ada"}),
        oidc_provider_mock.User(sub="eve", claims={"groups": ["guests"]}),
    )
    with oidc_provider_mock.run_server_in_thread(user_claims=people) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def site(database: Database, tmp_path, provider: str, monkeypatch) -> Iterator[Site]:
    port = free_port()
    monkeypatch.setenv("OIDC_SECRET", "of the client")
    secret = {"env": "OIDC_SECRET"}
    oidc = {"issuer": provider, "client_id": "forewatch", "client_secret": secret, "groups": GROUPS}
    serve = {"port": port, "url": f"http://127.0.0.1:{port}", "oidc": oidc}
    with served(database, tmp_path, serve, port=port) as running:
        yield running


def to_provider(browser: Browser, target: str = "/system") -> httpx.Response:
    answer = browser.get("/login/oidc", params={"next": target})
    assert answer.status_code == 303
    return answer


def approve(answer: httpx.Response, person: str) -> str:
    """Log ``person`` in at the provider; return the address that the browser is sent back to."""
    back = httpx.post(answer.headers["location"], data={"sub": person}, timeout=120)
    assert back.status_code == 302, back.text
    return back.headers["location"]


def test_a_person_of_a_group_gets_its_rights(site):
    with Browser(base_url=site.url, timeout=120) as browser:
        assert "Log in at the provider" in browser.get("/login").text
        answer = to_provider(browser, "/series?stream=plant")
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        assert query["code_challenge_method"] == ["S256"]
        assert query["redirect_uri"] == [f"{site.url}/login/oidc/callback"]
        back = browser.get(approve(answer, "ada"))
        assert (back.status_code, back.headers["location"]) == (303, "/series?stream=plant"), back.text
        me = browser.get("/api/v1/session").json()
        assert (me["name"], me["scope"], me["teams"]) == ("Ada", "operator", ["east"])
        assert [one["name"] for one in browser.get("/api/v1/streams").json()["items"]] == ["plant"]
        assert site.audited("session.login")[0].actor == "Ada"
    with site.client() as nobody:
        assert nobody.get("/api/v1/streams").status_code == 401


def test_a_person_without_a_group_is_refused(site):
    with Browser(base_url=site.url, timeout=120) as browser:
        refused = browser.get(approve(to_provider(browser), "eve"))
        assert refused.status_code == 403
        assert "none of the groups" in refused.text
        assert "forewatch_session" not in browser.cookies


def test_an_answer_of_the_provider_counts_once_and_in_its_own_browser(site):
    with (
        Browser(base_url=site.url, timeout=120) as victim,
        Browser(base_url=site.url, timeout=120) as attacker,
    ):
        stolen = approve(to_provider(attacker), "ada")
        to_provider(victim)
        assert victim.get(stolen).status_code == 403, "another browser"
        again = approve(to_provider(victim), "ada")
        assert victim.get(again).status_code == 303
        assert victim.get(again).status_code == 403, "a second time"
        assert victim.get("/login/oidc/callback?code=x&state=unknown").status_code == 403
        assert attacker.get(stolen).status_code == 403, "the attempt is used up"


def test_a_refusal_of_the_provider_is_shown_without_its_text_as_code(site):
    with Browser(base_url=site.url, timeout=120) as browser:
        state = parse_qs(urlsplit(to_provider(browser).headers["location"]).query)["state"][0]
        page = browser.get("/login/oidc/callback", params={"error": "<script>x</script>", "state": state})
        assert page.status_code == 403
        assert "&lt;script&gt;" in page.text


def test_a_login_leads_to_this_site_only(site):
    with Browser(base_url=site.url, timeout=120) as browser:
        back = browser.get(approve(to_provider(browser, "//evil.example"), "ada"))
        assert back.headers["location"] == "/"


def test_a_provider_that_is_away_is_an_error_on_the_page(database, tmp_path):
    oidc = {"issuer": f"http://127.0.0.1:{free_port()}", "client_id": "forewatch", "groups": GROUPS}
    serve = {"url": "https://watch.example", "oidc": oidc}
    with served(database, tmp_path, serve) as site, Browser(base_url=site.url, timeout=120) as browser:
        page = browser.get("/login/oidc")
        assert (page.status_code, "does not answer" in page.text) == (502, True)


# ----------------------------------------------------------------------- tokens that must be refused


@pytest.fixture(scope="module")
def signer() -> Iterator[SigningProvider]:
    with SigningProvider() as running:
        yield running


def finish(signer: SigningProvider, **changes):
    """Log in at ``signer`` with changed claims; return the rights."""
    config = OpenIdConfig(issuer=signer.url, client_id="forewatch", groups=GROUPS)
    provider = OpenIdProvider(config)
    address, kept = provider.begin("http://localhost/cb")
    query = parse_qs(urlsplit(address).query)
    digest = hashlib.sha256(kept["verifier"].encode()).digest()
    assert query["code_challenge"] == [base64.urlsafe_b64encode(digest).decode().rstrip("=")]
    signer.claims = {
        "iss": signer.url,
        "aud": "forewatch",
        "sub": "ada",
        "iat": int(time.time()),
        "exp": int(time.time()) + 300,
        "nonce": kept["nonce"],
        "groups": ["sre"],
    } | changes
    signer.claims = {name: value for name, value in signer.claims.items() if value is not None}
    return provider.finish("code", kept["verifier"], kept["nonce"], "http://localhost/cb")


def test_a_good_token_is_taken(signer):
    assert finish(signer).scope is Scope.ADMIN
    assert signer.last_form["code_verifier"]


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "another-client"},
        {"aud": ["forewatch", "another-client"]},
        {"azp": "another-client"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"iat": int(time.time()) + 3600},
        {"nonce": "of another login"},
        {"nonce": None},
        {"sub": None},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_token_of_another_login_client_or_time_is_refused(signer, changes):
    with pytest.raises(LoginRefused):
        finish(signer, **changes)


@pytest.mark.parametrize("forgery", ["none", "other_key", "hmac", "garbage"])
def test_a_forged_signature_is_refused(signer, forgery):
    signer.forgery = forgery
    try:
        with pytest.raises(LoginRefused, match="not valid"):
            finish(signer)
    finally:
        signer.forgery = ""


def test_new_keys_of_the_provider_are_fetched(signer):
    config = OpenIdConfig(issuer=signer.url, client_id="forewatch", groups=GROUPS)
    assert OpenIdProvider(config)
    assert finish(signer).name == "ada"
    signer.new_key()
    assert finish(signer).name == "ada"


def test_a_provider_with_another_name_is_refused(signer):
    provider = OpenIdProvider(OpenIdConfig(issuer=signer.url + "/", client_id="forewatch", groups=GROUPS))
    with pytest.raises(LoginRefused, match="calls itself"):
        provider.begin("http://localhost/cb")


def test_of_several_groups_the_highest_scope_counts_with_its_streams_only():
    groups = {"all": {"scope": "viewer"}, "plant": {"scope": "operator", "streams": ["plant"]}}
    config = OpenIdConfig(issuer="https://x", client_id="f", groups=groups)
    rights = rights_of(config, {"sub": "ada", "groups": ["all", "plant"]})
    assert (rights.scope, list(rights.streams)) == (Scope.OPERATOR, ["plant"])
    with pytest.raises(LoginRefused):
        rights_of(config, {"sub": "ada"})


def test_no_secret_is_logged(site, provider):
    with structlog.testing.capture_logs() as logs, Browser(base_url=site.url, timeout=120) as browser:
        address = approve(to_provider(browser), "ada")
        browser.get(address)
        code = parse_qs(urlsplit(address).query)["code"][0]
        session = browser.cookies["forewatch_session"]
    assert code not in str(logs)
    assert session not in str(logs)
