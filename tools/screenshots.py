"""Pictures of the pages of the dashboard, taken while the demonstration runs.

python -m tools.screenshots FOLDER             every page, dark and light, 1440 and 390 pixels wide, as PNG
python -m tools.screenshots --readme           the pictures of README.md, docs/images/*.webp

The demonstration runs without Kafka. The script waits until a fault was injected and detected.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.support.browsers import open_browser

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = {"wide": (1440, 900), "phone": (390, 844)}
#: Name of the picture → page, width, colours.
README = {
    "fleet": ("fleet", "wide", "dark"),
    "incident": ("incident", "wide", "light"),
    "series": ("series", "wide", "dark"),
}
WEBP_QUALITY = 70
#: Anomalies of simulated streams that the pictures wait for; those of README.md show some more.
ANOMALIES, ANOMALIES_OF_README = 3, 8


@contextmanager
def demonstration() -> Iterator[str]:
    """Yield the address of the dashboard of a running demonstration."""
    run = "import sys; from pipeline.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "demo", "--no-kafka", "--seconds", "600"]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"dashboard is at (http://\S+)", line):
                break
        else:
            sys.exit("the demonstration did not start")
        yield found[1]
    finally:
        process.terminate()
        process.wait(60)


def wait_for_anomaly(url: str, seconds: float, count: int) -> dict[str, Any]:
    """Return the longest of the most severe anomalies, once there are ``count``."""
    levels = ["info", "warning", "major", "critical"]
    deadline = time.monotonic() + seconds
    while True:
        answer = httpx.get(f"{url}/api/v1/anomalies", params={"limit": 200}, trust_env=False)
        items = answer.json()["items"] if answer.is_success else []  # the database may be busy
        found = [one for one in items if one["stream"] != "host"]
        if len(found) >= count or (found and time.monotonic() > deadline):
            return max(found, key=lambda one: (levels.index(one["severity"]), one["points"]))
        time.sleep(2)


def addresses(anomaly: dict[str, Any]) -> dict[str, str]:
    """Return page → path."""
    start, end = (datetime.fromisoformat(anomaly[name]) for name in ("start", "end"))
    span = {"from": (start - timedelta(hours=6)).isoformat(), "to": (end + timedelta(hours=6)).isoformat()}
    series = httpx.QueryParams(stream=anomaly["stream"], series=anomaly["series"], **span)
    return {
        "fleet": "/?range=24h",
        "series": f"/series?{series}",
        "incident": f"/anomalies/{anomaly['id']}",
        "alerting": "/alerting",
        "models": f"/models?{httpx.QueryParams(stream=anomaly['stream'])}",
        "try": "/try",
        "system": "/system",
    }


def picture(browser: Any, address: str, size: tuple[int, int], colours: str, *, whole: bool) -> bytes:
    """Return a page as PNG.

    Args:
        browser: The browser.
        address: Address of the page.
        size: Width and height in pixels.
        colours: dark or light.
        whole: The whole page, not only what the window shows.
    """
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=colours)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("main h1", state="attached")
    page.wait_for_selector(".skeleton", state="detached")
    page.wait_for_timeout(1200)
    taken: bytes = page.screenshot(full_page=whole)
    context.close()
    return taken


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--wait", type=float, default=240, help="seconds to wait for anomalies")
    parser.add_argument("--url", help="address of a dashboard that runs already")
    asked = parser.parse_args()
    if asked.url:
        take(asked, asked.url)
    else:
        with demonstration() as url:
            take(asked, url)


def take(asked: argparse.Namespace, url: str) -> None:
    """Take the pictures of one dashboard."""
    count = ANOMALIES_OF_README if asked.readme else ANOMALIES
    pages = addresses(wait_for_anomaly(url, asked.wait, count))
    with open_browser() as browser:
        if asked.readme:
            folder = ROOT / "docs" / "images"
            folder.mkdir(exist_ok=True)
            for name, (page, width, colours) in README.items():
                taken = picture(browser, url + pages[page], WIDTHS[width], colours, whole=False)
                image = Image.open(io.BytesIO(taken)).convert("RGB")
                image.save(folder / f"{name}.webp", quality=WEBP_QUALITY, method=6)
            return
        asked.folder.mkdir(parents=True, exist_ok=True)
        for page, path in pages.items():
            for width, size in WIDTHS.items():
                for colours in ("dark", "light"):
                    taken = picture(browser, url + path, size, colours, whole=True)
                    (asked.folder / f"{page}-{width}-{colours}.png").write_bytes(taken)


if __name__ == "__main__":
    main()
