"""A schema registry over HTTP: the calls of Confluent's that readers make, with its answers."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Registry:
    """Schemas by id, and by subject and version."""

    def __init__(self, password: str | None = None) -> None:
        self.by_id: dict[int, dict[str, Any]] = {}
        self.subjects: dict[tuple[str, int], dict[str, Any]] = {}
        self.calls: list[str] = []
        self.password = password
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.calls.append(self.path)
                code, body = registry.answer(self.path, self.headers.get("Authorization"))
                content = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def put(self, number: int, schema: str, kind: str = "AVRO", **more: Any) -> None:
        self.by_id[number] = {"schema": schema} | ({} if kind == "AVRO" else {"schemaType": kind}) | more

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, Any]]:
        if self.password is not None:
            expected = "Basic " + base64.b64encode(f"reader:{self.password}".encode()).decode()
            if authorization != expected:
                return 401, {"error_code": 401, "message": "Unauthorized"}
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        found = None
        if parts[:2] == ["schemas", "ids"]:
            found = self.by_id.get(int(parts[2]))
        elif parts[0] == "subjects":
            found = self.subjects.get((parts[1], int(parts[3])))
        return (200, found) if found is not None else (404, {"error_code": 40403, "message": "not found"})


@contextmanager
def schema_registry(password: str | None = None) -> Iterator[Registry]:
    registry = Registry(password)
    thread = threading.Thread(target=registry.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.server.shutdown()
        registry.server.server_close()
        thread.join(5)
