"""Client of the REST API of ``forewatch serve``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import httpx

from pipeline.core.errors import ForewatchError

if TYPE_CHECKING:
    import pyarrow as pa

Time = datetime | str
Item = dict[str, Any]

#: Longest wait for the server before a request is repeated.
MAX_WAIT_SECONDS = 60.0


class ApiError(ForewatchError):
    """Error of the server; ``detail`` says what to do."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        """Take the parts of a problem document (RFC 9457)."""
        super().__init__(f"{title} ({status}): {detail}")
        self.status = status
        self.title = title
        self.detail = detail


class Client:
    """Client of the REST API, as a context manager.

        with Client("https://forewatch.example.com", key=os.environ["FOREWATCH_KEY"]) as client:
            for one in client.anomalies(stream="plant", severity="major"):
                print(one["start"], one["text"])

    A request that the server refuses because there are too many, or because its database does not answer, is
    repeated; a change carries an idempotency key, so that a repeat changes nothing twice. Objects are the
    JSON objects of the API.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:9465",
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        """Open a client.

        Args:
            url: Address of the server, without ``/api/v1``.
            key: API key; None for a server of this machine without keys.
            timeout: Seconds for one request.
            retries: Number of repeats of a request.
        """
        headers = {"x-forewatch-csrf": "python"} if key is None else {"authorization": f"Bearer {key}"}
        self._retries = retries
        self._http = httpx.Client(base_url=f"{url.rstrip('/')}/api/v1", headers=headers, timeout=timeout)

    def __enter__(self) -> Client:
        """Return the client."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(self, method: str, path: str, **given: Any) -> Any:
        """Send a request to any operation, and return its JSON, or else bytes.

        Args:
            method: Method of HTTP.
            path: Path below ``/api/v1``, such as ``/streams``.
            given: Arguments of httpx, such as ``params`` and ``json``.

        Raises:
            ApiError: The server answers with an error.
            ForewatchError: The server does not answer.
        """
        response = self._send(method, path, **given)
        if response.status_code >= 400:
            raise _error(response)
        if response.content and "json" in response.headers.get("content-type", ""):
            return response.json()
        return response.content

    def pages(self, path: str, **query: Any) -> Iterator[Item]:
        """Return all items of a list, page by page; ``limit`` is the size of a page.

        Args:
            path: Path of the list, such as ``/jobs``.
            query: Query; None values are left out.

        Raises:
            ApiError: The server answers with an error.
        """
        parameters = {name: _text(value) for name, value in query.items() if value is not None}
        while True:
            page = self.request("GET", path, params=parameters)
            yield from page["items"]
            if page.get("next_cursor") is None:
                return
            parameters["cursor"] = page["next_cursor"]

    def session(self) -> Item:
        """Return the name, scope and streams of the key."""
        found: Item = self.request("GET", "/session")
        return found

    def streams(self) -> list[Item]:
        """Return the streams of the config that the key sees."""
        return list(self.pages("/streams"))

    def anomalies(
        self,
        stream: str | None = None,
        series: str | None = None,
        severity: Literal["info", "warning", "major", "critical"] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[Item]:
        """Return anomalies that overlap a time range, the newest first.

        Args:
            stream: Only this stream.
            series: Name of the series; ``*`` is any text.
            severity: The lowest one.
            since: Earliest time.
            until: Latest time, exclusive.
            labels: Labels of the series, all of which it has.
        """
        query = {"stream": stream, "series": series, "severity": severity, "from": since, "to": until}
        wanted = [f"{name}={value}" for name, value in (labels or {}).items()]
        return self.pages("/anomalies", **query, label=wanted or None)

    def anomaly(self, anomaly_id: str) -> Item:
        """Return one anomaly with its label."""
        found: Item = self.request("GET", f"/anomalies/{anomaly_id}")
        return found

    def label(
        self,
        anomaly_id: str,
        label: Literal["true", "false", "maintenance"],
        comment: str = "",
        if_match: str | None = None,
    ) -> Item:
        """Label an anomaly, and return it.

        Args:
            anomaly_id: Id of the anomaly.
            label: Judgement.
            comment: Reason.
            if_match: ``ETag`` of the anomaly as it was read; ApiError 412 if it has changed since.
        """
        headers = {} if if_match is None else {"if-match": if_match}
        body = {"label": label, "comment": comment}
        found: Item = self.request("PUT", f"/anomalies/{anomaly_id}/label", json=body, headers=headers)
        return found

    def labels(self, stream: str | None = None) -> Iterator[Item]:
        """Return the labels that people gave anomalies, the newest first."""
        return self.pages("/labels", stream=stream)

    def check_config(self, text: str) -> Item:
        """Check a config, and return its problems and warnings.

        Args:
            text: The YAML.
        """
        headers = {"content-type": "application/yaml"}
        found: Item = self.request("POST", "/config/check", content=text.encode(), headers=headers)
        return found

    def alerts(self, stream: str | None = None, state: str | None = None) -> Iterator[Item]:
        """Return alerts, by default those not closed, the newest first."""
        return self.pages("/alerts", stream=stream, state=state)

    def acknowledge(self, alert_id: str) -> Item:
        """Acknowledge an open alert."""
        found: Item = self.request("POST", f"/alerts/{alert_id}/acknowledge", json={})
        return found

    def silence(
        self, ends: Time, stream: str | None = None, match: Mapping[str, str] | None = None, comment: str = ""
    ) -> Item:
        """Silence matching alerts from now on.

        Args:
            ends: End of the silence.
            stream: Only this stream.
            match: Label or property → pattern; none matches every alert.
            comment: Reason.
        """
        body = {"ends": _text(ends), "stream": stream, "match": dict(match or {}), "comment": comment}
        found: Item = self.request("POST", "/silences", json=body)
        return found

    def end_silence(self, silence_id: str) -> None:
        """End a silence now."""
        self.request("DELETE", f"/silences/{silence_id}")

    def points(
        self,
        stream: str,
        series: str,
        since: Time | None = None,
        until: Time | None = None,
        width: int = 1000,
    ) -> pa.Table:
        """Return recorded points with verdicts, reduced to the pixels of a plot.

        Args:
            stream: The stream.
            series: Name of the series.
            since: Earliest time; the default is a day before ``until``.
            until: Latest time, exclusive; the default is now.
            width: Number of pixels.
        """
        import pyarrow as pa

        query = {
            "stream": stream,
            "series": series,
            "from": since,
            "to": until,
            "width": width,
            "format": "arrow",
        }
        parameters = {name: _text(value) for name, value in query.items() if value is not None}
        return pa.ipc.open_stream(self.request("GET", "/points", params=parameters)).read_all()

    def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        headers = dict(given.pop("headers", {}))
        if method == "POST":
            headers.setdefault("idempotency-key", str(uuid.uuid4()))
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = self._http.request(method, path, headers=headers, **given)
            except httpx.TransportError as error:
                if last:
                    raise ForewatchError(f"{self._http.base_url.host} does not answer: {error}") from error
                time.sleep(min(MAX_WAIT_SECONDS, 0.5 * 2**attempt))
                continue
            wait = _wait_seconds(response, attempt)
            if wait is None or last:
                return response
            time.sleep(wait)
        raise AssertionError("unreachable")


def _wait_seconds(response: httpx.Response, attempt: int) -> float | None:
    """Return the time until a repeat of the request makes sense; None: it does not."""
    unfinished = response.status_code == 409 and "retry-after" in response.headers
    if response.status_code not in (429, 503) and not unfinished:
        return None
    text = response.headers.get("retry-after", "")
    return min(MAX_WAIT_SECONDS, float(text) if text.isdecimal() else 0.5 * 2**attempt)


def _error(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
        return ApiError(response.status_code, str(problem["title"]), str(problem["detail"]))
    except (ValueError, KeyError, TypeError):
        return ApiError(response.status_code, response.reason_phrase, response.text[:500])


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
