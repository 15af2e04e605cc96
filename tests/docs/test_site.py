"""The built site: no broken link, and nothing that a browser would load from another host."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")

_LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Loads(HTMLParser):
    """Addresses that a page makes a browser load; links that a reader may click do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        value = dict(attrs).get(_LOADING.get(tag, ""))
        if value is not None:
            self.found.append(value)


def test_pages_load_nothing_from_other_hosts(site):
    foreign = {}
    for page in site.rglob("*.html"):
        parser = Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        foreign[page.name] = [one for one in parser.found if re.match(r"(https?:)?//", one)]
    assert {name: found for name, found in foreign.items() if found} == {}


def test_style_sheets_load_nothing_from_other_hosts(site):
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text), sheet.name


def test_search_works_without_a_server(site):
    assert (site / "search" / "search_index.json").is_file()


def test_the_public_python_api_is_on_the_site(site):
    page = (site / "reference" / "python-api" / "index.html").read_text(encoding="utf-8")
    assert 'id="forewatch.detect"' in page
    assert 'id="forewatch.load_config"' in page
