"""The Chromium of this machine, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

#: Longest wait for a state of a page; machines of tests are loaded.
TIMEOUT_MS = 90_000
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str:
    """Return the path of Chromium; skip the test, with a reason, where there is none."""
    for name in (os.environ.get("CHROMIUM"), *_NAMES):
        if name and (path := shutil.which(name)):
            return path
    pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium; or set CHROMIUM)")


@contextmanager
def open_browser() -> Iterator:
    """Yield a browser without a window."""
    path = chromium_path()
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser, url: str, **context) -> tuple:
    """Return a page and the list of its errors: of scripts, of the console, and refused by the policy."""
    opened = browser.new_context(**context)
    opened.set_default_timeout(TIMEOUT_MS)
    page = opened.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.goto(url)
    return page, errors


def wait_for_count(locator: Any, count: int) -> None:
    """Wait until a locator finds so many elements.

    ``wait_for_function`` cannot be used: its second look is an ``eval``, which the pages forbid.
    """
    from playwright.sync_api import expect

    expect(locator).to_have_count(count, timeout=TIMEOUT_MS)
