"""Login, rights and logout by a person in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import anomaly
from tests.support.api_servers import Site, served
from tests.support.browsers import open_page


@pytest.fixture
def guarded(tmp_path: Path, sqlite_template: Path) -> Iterator[Site]:
    """A server with an anomaly, which asks for a login."""
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")
    with database.begin() as connection:
        anomalies.upsert(connection, [anomaly()])
    with served(database, tmp_path) as running:
        yield running
    database.close()


def test_a_person_logs_in_sees_what_the_rights_allow_and_logs_out(guarded, browser):
    key = guarded.key("viewer", name="night shift")
    page, _ = open_page(browser, f"{guarded.url}/anomalies/{anomaly().id}")
    page.get_by_label("API key").fill("a wrong key")
    page.keyboard.press("Enter")
    page.get_by_text("This key is unknown, revoked or expired.").wait_for()
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    page.locator(".sentence").wait_for()
    assert page.url.endswith(str(anomaly().id))
    page.get_by_text("Your login has the scope viewer. Changes need operator.").wait_for()
    for name in ("True anomaly", "False alarm", "Maintenance", "Silence this series"):
        assert page.get_by_role("button", name=name).is_disabled(), name
    assert page.get_by_role("button", name="Check again").is_enabled()
    page.get_by_role("button", name="Log out night shift").click()
    page.get_by_label("API key").wait_for()


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"origin": "null", "sec-fetch-site": "same-origin"}, "The form is too old"),  # its token is missing
        ({"origin": "null", "sec-fetch-site": "cross-site"}, "another site"),
        ({"origin": "null"}, "another site"),
        ({"origin": "http://evil.example", "sec-fetch-site": "same-origin"}, "another site"),
    ],
)
def test_a_form_of_another_site_is_refused(guarded, headers, refused):
    guarded.key()
    url = f"{guarded.url}/login"
    answer = httpx.post(url, data={"key": "x"}, headers=headers, trust_env=False, timeout=120)
    assert (answer.status_code, refused in answer.text) == (403, True)
