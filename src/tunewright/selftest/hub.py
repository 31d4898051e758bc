"""A model hub on this machine, as far as uploads need one: repositories, what is committed to them, and failures on demand."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

OWNER: Final = "someone"
"""Whose token every token is."""


@dataclass
class Hub:
    """What was asked of it. `failures`: statuses that the next commits answer with. `open`: commits wait until it is set. `bodies`: all
    that was sent, `tokens`: the words by which senders proved who they are."""

    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)
    attempts: int = 0
    failures: list[int] = field(default_factory=list)
    creation_status: int = 200
    open: threading.Event = field(default_factory=threading.Event)
    tokens: set[str] = field(default_factory=set)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def places(self) -> list[list[str]]:
        """The files of each commit."""
        return [sorted(files) for _, _, files in self.commits]

    def files(self) -> list[bytes]:
        """The content of every file of every commit."""
        return [data for _, _, files in self.commits for data in files.values()]

    def content(self) -> dict[str, bytes]:
        """What the repository holds after all commits."""
        return {name: data for _, _, files in self.commits for name, data in files.items()}


@contextmanager
def listening() -> Iterator[Hub]:
    """A hub that listens until the end of the block."""
    hub = Hub()
    hub.open.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.open.set()
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            """There is nothing to fetch."""
            _answer(self, 404, {"error": "not found"})

        do_HEAD = do_GET

        def do_POST(self) -> None:
            """Take what is made, announced or committed."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.bodies.append(body)
            hub.tokens.add(self.headers.get("Authorization", ""))
            if self.path == "/api/repos/create":
                self._create(json.loads(body))
            elif self.path == "/api/validate-yaml":
                _answer(self, 200, {"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                _answer(self, 200, {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]})
            elif "/commit/" in self.path:
                self._commit(body)
            else:
                _answer(self, 404, {"error": self.path})

        def _create(self, asked: dict[str, Any]) -> None:
            if hub.creation_status != 200:
                _answer(self, hub.creation_status, {"error": "no"})
                return
            name = f"{asked.get('organization') or OWNER}/{asked['name']}"
            hub.repositories.setdefault(name, asked)
            _answer(self, 200, {"url": f"{hub.endpoint}/{name}", "name": name, "id": name})

        def _commit(self, body: bytes) -> None:
            hub.open.wait(20)
            hub.attempts += 1
            if hub.failures:
                _answer(self, hub.failures.pop(0), {"error": "busy"})
                return
            lines = [json.loads(line) for line in body.splitlines()]
            message = next(line["value"]["summary"] for line in lines if line["key"] == "header")
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"}
            name = "/".join(self.path.split("/")[3:5])
            hub.commits.append((name, message, files))
            oid = f"{len(hub.commits):040x}"
            _answer(self, 200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.endpoint}/{name}/commit/{oid}", "hookOutput": ""})

    return Handler


def _answer(asked: BaseHTTPRequestHandler, code: int, content: dict[str, Any]) -> None:
    data = json.dumps(content).encode()
    asked.send_response(code)
    asked.send_header("Content-Type", "application/json")
    asked.send_header("Content-Length", str(len(data)))
    asked.end_headers()
    if asked.command != "HEAD":
        asked.wfile.write(data)
