"""Rewards from a service over HTTP, asked as LLaMA-Factory's PPO asks one: POST {"model": "model", "messages": [text, ...]}, answered by
{"scores": [number, ...]}. The only module that speaks HTTP; standard library only.

No proxy is used and no redirection followed: the texts go to the address that was given, or nowhere.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from tunewright.errors import InputError, LostRankError, require
from tunewright.rl.rewards import checked

if TYPE_CHECKING:
    from tunewright.rl.rewards import Answers

TIMEOUT_S: Final = 120.0
ATTEMPTS: Final = 5
PAUSE_S: Final = 1.0
"""Before the second attempt; twice as long before each further one."""
MOST_BYTES: Final = 16_000_000
_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)
"""Status codes that another attempt may mend."""


class _Passing(Exception):
    """A failure that another attempt may mend."""


class Reply(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class RewardService:
    """A service that scores texts: prompt and answer of each as one. `timeout_s` is for one attempt from its beginning to its end."""

    address: str
    timeout_s: float = TIMEOUT_S
    attempts: int = ATTEMPTS
    pause_s: float = PAUSE_S
    most_bytes: int = MOST_BYTES
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def at(cls, address: str, **settings: Any) -> RewardService:
        """The service at `address`. Raises `InputError` unless that is http:// or https://, with a host, without a password, and without
        characters that a request cannot hold."""
        mend = "give it as http://host:port/path"
        try:
            parts = urlsplit(address)
            _ = parts.port, (parts.hostname or "").encode("idna")
        except ValueError as error:
            raise InputError(f"reward_model: {address!r} is no address: {error}", mend=mend) from error
        require(parts.scheme in ("http", "https") and bool(parts.hostname), f"reward_model: {address!r} is not an http or https address",
                mend=mend)
        require(parts.username is None and parts.password is None, "reward_model: the address holds a name or a password, which would end "
                "up in logs and checkpoints", mend="let the service be reached without")
        path = parts.path + parts.query
        require(path.isascii() and path.isprintable() and " " not in path, f"reward_model: the path of {address!r} has characters that an "
                "address cannot hold", mend="write them as %20 and the like")
        return replace(cls(address), **settings)

    @property
    def name(self) -> str:
        """Its address."""
        return self.address

    def __call__(self, answers: Answers) -> list[float]:
        """The rewards. Raises LostRankError if the service cannot be reached or fails in all attempts, InputError for a reply that is none,
        NumericError for a reward that is not finite."""
        if not len(answers):
            return []
        texts = answers.wholes or [prompt + answer for prompt, answer in zip(answers.prompts, answers.completions, strict=True)]
        return checked(self._scores(texts), len(texts), f"reward service {self.address}")

    def _scores(self, texts: Sequence[str]) -> list[object]:
        body = json.dumps({"model": "model", "messages": list(texts)}).encode()
        for attempt in range(1, self.attempts + 1):
            try:
                return self._read(self._post(body))
            except (_Passing, OSError, http.client.HTTPException) as error:
                said = " ".join(str(error).split())[:200] or type(error).__name__
                if attempt == self.attempts:
                    raise LostRankError(f"reward service {self.address}: {said}, in {attempt} attempts",
                                        mend="start it, and run the same command again to go on") from error
                self.sleep(self.pause_s * 2 ** (attempt - 1))
        raise ValueError("attempts must be at least 1")

    def _read(self, reply: Reply) -> list[object]:
        """The scores of a reply, not yet looked at one by one."""
        where = f"reward service {self.address}"
        if reply.status in _PASSING:
            raise _Passing(f"HTTP status {reply.status}")
        require(reply.status == 200, f"{where}: HTTP status {reply.status}: {_excerpt(reply.body)}",
                mend="give the address that the scores are posted to")
        try:
            found = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: the reply is not JSON: {_excerpt(reply.body)}", mend="it must be {\"scores\": [...]}") from error
        scores = found.get("scores") if isinstance(found, dict) else None
        if not isinstance(scores, list):
            raise InputError(f"{where}: the reply has no list of scores: {_excerpt(reply.body)}", mend="it must be {\"scores\": [...]}")
        # JSON has no other numbers; a text that float() would read, true and false are none.
        return [one if isinstance(one, int | float) and not isinstance(one, bool) else repr(one) for one in scores]

    def _post(self, body: bytes) -> Reply:
        """One attempt."""
        parts = urlsplit(self.address)
        deadline = time.monotonic() + self.timeout_s
        connection = _connection(parts, self.timeout_s)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("POST", path, body, _HEADERS)
            connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
            with _cut_off(connection.sock, deadline):
                response = connection.getresponse()
            return Reply(response.status, self._body(response, connection, deadline))
        finally:
            connection.close()

    def _body(self, response: http.client.HTTPResponse, connection: http.client.HTTPConnection, deadline: float) -> bytes:
        """The whole body, however slowly it comes, within the deadline and the size."""
        found = bytearray()
        while part := response.read1(65536):
            found += part
            require(len(found) <= self.most_bytes, f"reward service {self.address}: the reply has more than {self.most_bytes:,} bytes",
                    mend="it must hold the scores alone")
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no whole reply within {self.timeout_s:g} s")
            if connection.sock is not None:
                connection.sock.settimeout(left)
        announced = response.getheader("Content-Length", "")
        if announced.isdigit() and len(found) < int(announced):
            raise _Passing(f"the reply ended after {len(found)} of {announced} bytes")
        return bytes(found)


@contextmanager
def _cut_off(connected: socket.socket, deadline: float) -> Iterator[None]:
    """Nothing more comes from the socket after the deadline: its own timeout begins anew with each byte of a header. Raises TimeoutError
    when it has passed."""
    def cut() -> None:
        with suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_RDWR)  # below TLS, which another thread reads from

    watch = threading.Timer(max(deadline - time.monotonic(), 0.0), cut)
    watch.daemon = True
    watch.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if time.monotonic() >= deadline:
            raise TimeoutError("timed out") from error
        raise
    finally:
        watch.cancel()
    if time.monotonic() >= deadline:
        raise TimeoutError("timed out")


def _connection(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout_s)


def _excerpt(body: bytes) -> str:
    return " ".join(body[:200].decode("utf-8", "replace").split()) or "nothing"
