"""Built files of the dashboard, and the headers of every page.

``make dashboard`` builds them from ``pipeline/dashboard/web`` into ``pipeline/dashboard/static``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.core.errors import ConfigError

STATIC = Path(__file__).parent / "static"

#: Nothing is loaded from outside, and no script or style stands in a page.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # With no-referrer a browser sends the forms of our own pages with the origin "null".
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
}
_NOT_BUILT = (
    "The pages of the dashboard are not built: run `make dashboard` (or `sh tools/dev.sh dashboard`) in the "
    "checkout, then load this page again."
)
#: Paths that the page itself resolves.
PAGE_PATHS = ("/", "/fleet", "/series", "/alerting", "/models", "/try", "/system", "/audit")


def is_built(static: Path = STATIC) -> bool:
    """Return True if the pages of the dashboard were built."""
    return (static / "index.html").is_file()


def require_built(static: Path = STATIC) -> None:
    """Raise ConfigError if the pages were not built."""
    if not is_built(static):
        raise ConfigError(f"serve: {_NOT_BUILT}")


def page_routes(static: Path = STATIC, *, preload: bool = True) -> list[BaseRoute]:
    """Return the routes of all pages and of the files that they load.

    Args:
        static: folder of the built files.
        preload: browsers ask for the lanes before the script runs.
    """

    def shown(request: Request) -> Response:
        return page(static, _preload(request) if preload else None)

    def icon(request: Request) -> Response:
        return FileResponse(static / "favicon.svg", headers=HEADERS)

    paths = [*PAGE_PATHS, "/alerts/{alert:uuid}", "/anomalies/{anomaly}"]
    return [
        *(Route(path, shown) for path in paths),
        Route("/favicon.svg", icon),
        Mount("/assets", _Assets(directory=static / "assets", check_dir=False)),
    ]


def page(static: Path = STATIC, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    """Return the page, whose script shows what belongs to the path.

    Args:
        static: folder of the built files.
        headers: further headers.
        status: 404 for a path that no page has.
    """
    if not is_built(static):
        text = f"<!doctype html><title>forewatch</title><p>{_NOT_BUILT}</p>"
        return HTMLResponse(text, status_code=503, headers=HEADERS)
    with_policy = HEADERS | {"cache-control": "no-cache"} | (headers or {})
    return FileResponse(static / "index.html", status_code=status, headers=with_policy)


def _preload(request: Request) -> dict[str, str]:
    """Return the header by which a browser asks for the lanes before the script runs."""
    if request.url.path not in ("/", "/fleet"):
        return {}
    span = request.query_params.get("range", "24h")
    if not span.isalnum() or not span.isascii():
        return {}
    return {"link": f"</api/v1/fleet?range={span}>; rel=preload; as=fetch; crossorigin"}


class _Assets(StaticFiles):
    """Files whose names contain a hash of their content."""

    def __init__(self, **given: Any) -> None:
        """Take a folder that may be missing: its files are 404."""
        super().__init__(**given)
        self.config_checked = True

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """Add the headers of every page, and let browsers keep the file."""
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(HEADERS | {"cache-control": "public, max-age=31536000, immutable"})
        return response
