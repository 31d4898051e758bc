"""A model hub on this machine, as far as uploads need one: repositories, what is committed to them, and failures on demand."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

CANARY = "hf_" + "Canary" * 5 + "2"
OWNER = "someone"
"""Whose token every token is."""


@dataclass
class FakeHub:
    """What was asked of it. `failures`: statuses that the next commits answer with. `open`: commits wait until it is set."""

    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)
    attempts: int = 0
    failures: list[int] = field(default_factory=list)
    creation_status: int = 200
    open: threading.Event = field(default_factory=threading.Event)
    tokens: set[str] = field(default_factory=set)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def places(self) -> list[list[str]]:
        """The files of each commit."""
        return [sorted(files) for _, _, files in self.commits]

    def content(self) -> dict[str, bytes]:
        """What the repository holds after all commits."""
        return {name: data for _, _, files in self.commits for name, data in files.items()}


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub that listens until the end of the block."""
    hub = FakeHub()
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


@contextmanager
def reachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub, huggingface_hub pointed at it with a token, and no pauses between attempts."""
    import huggingface_hub
    from huggingface_hub import constants

    with serving() as found:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        monkeypatch.setenv("HF_TOKEN", CANARY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("tunewright.engine.hub.WAITS_S", (0.0, 0.0))
        huggingface_hub.close_session()
        yield found
        huggingface_hub.close_session()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Silent."""

        def do_HEAD(self) -> None:
            self._answer(404, {})

        def do_GET(self) -> None:
            self._answer(404, {"error": "not found"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.tokens.add(self.headers.get("Authorization", ""))
            if self.path == "/api/repos/create":
                self._create(json.loads(body))
            elif self.path == "/api/validate-yaml":
                self._answer(200, {"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                self._answer(200, {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]})
            elif "/commit/" in self.path:
                self._commit(body)
            else:
                self._answer(404, {"error": self.path})

        def _create(self, asked: dict[str, Any]) -> None:
            if hub.creation_status != 200:
                self._answer(hub.creation_status, {"error": "no"})
                return
            name = f"{asked.get('organization') or OWNER}/{asked['name']}"
            hub.repositories.setdefault(name, asked)
            self._answer(200, {"url": f"{hub.endpoint}/{name}", "name": name, "id": name})

        def _commit(self, body: bytes) -> None:
            hub.open.wait(20)
            hub.attempts += 1
            if hub.failures:
                self._answer(hub.failures.pop(0), {"error": "busy"})
                return
            lines = [json.loads(line) for line in body.splitlines()]
            message = next(line["value"]["summary"] for line in lines if line["key"] == "header")
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"}
            name = "/".join(self.path.split("/")[3:5])
            hub.commits.append((name, message, files))
            oid = f"{len(hub.commits):040x}"
            self._answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.endpoint}/{name}/commit/{oid}", "hookOutput": ""})

        def _answer(self, code: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler
