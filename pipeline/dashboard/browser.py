"""Opening of a page in the browser of the person at this machine."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser


def has_display() -> bool:
    """Return True if a person can see a window of this process."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_page(url: str) -> None:
    """Open ``url`` in a browser where there is a display; never wait for it."""
    if has_display():
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
