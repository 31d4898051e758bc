"""Rewards over HTTP against a real server on this machine: LLaMA-Factory's request and reply, and everything that a server may do wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tunewright.config.alignment import AlignmentConfig
from tunewright.errors import InputError, LostRankError, NumericError
from tunewright.rl.reward_service import RewardService
from tunewright.rl.rewards import Answers, open_scorers

THREE = Answers([[1], [2], [3]], [[4], [5], [6]], ("one ", "two ", "drei "), ("a", "bc", "äö€"))


@dataclass
class Server:
    """A server that answers by `act`; `seen`: path, headers and body of each request."""

    act: Callable[[BaseHTTPRequestHandler, int], None]
    seen: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/score?x=1"


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def scores(*values: object, status: int = 200) -> Callable[[BaseHTTPRequestHandler, int], None]:
    return lambda handler, _: reply(handler, status, json.dumps({"scores": list(values)}).encode())


@pytest.fixture
def served() -> Iterator[Server]:
    server = Server(scores(0.5, -1.25, 3))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.seen.append((self.path, dict(self.headers), json.loads(body)))
            server.act(self, len(server.seen))

        def log_message(self, *_: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.port = http.server_address[1]
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    http.shutdown()
    http.server_close()


def quick(server: Server, **settings: Any) -> RewardService:
    return RewardService.at(server.address, **{"timeout_s": 5.0, "attempts": 3, "pause_s": 0.0, **settings})


def test_the_request_is_llama_factorys(served: Server) -> None:
    """`{"model": "model", "messages": [...]}` to the whole address, scores in the order of the texts; prompt and answer are one text."""
    (scorer,) = open_scorers(AlignmentConfig(reward_model=served.address, reward_model_type="api"), None, 0, 8)
    assert scorer(THREE) == [0.5, -1.25, 3.0]
    ((path, headers, body),) = served.seen
    assert (path, headers["Content-Type"]) == ("/v1/score?x=1", "application/json")
    assert body == {"model": "model", "messages": ["one a", "two bc", "drei äö€"]}
    assert scorer.name == served.address
    assert quick(served)(Answers([], [], (), ())) == [] and len(served.seen) == 1


def test_what_passes_is_tried_again_with_longer_pauses(served: Server) -> None:
    """500, then a closed connection, then an answer."""
    def act(handler: BaseHTTPRequestHandler, attempt: int) -> None:
        if attempt == 1:
            reply(handler, 500, b"busy")
        elif attempt == 2:
            handler.connection.close()
        else:
            scores(1, 2, 3)(handler, attempt)

    pauses: list[float] = []
    served.act = act
    assert quick(served, pause_s=0.5, sleep=pauses.append)(THREE) == [1.0, 2.0, 3.0]
    assert pauses == [0.5, 1.0]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_service_that_stays_down_ends_the_run_as_a_lost_network(served: Server, status: int) -> None:
    served.act = scores(1, 2, 3, status=status)
    with pytest.raises(LostRankError, match=rf"^reward service http://.*: HTTP status {status}, in 3 attempts; start it"):
        quick(served)(THREE)
    assert len(served.seen) == 3 and LostRankError.exit_code == 6


def test_a_server_that_is_not_there(served: Server) -> None:
    with pytest.raises(LostRankError, match="Connection refused, in 2 attempts"):
        RewardService.at("http://127.0.0.1:9/", attempts=2, pause_s=0.0)(THREE)


def test_a_server_that_says_nothing(served: Server) -> None:
    """It is not waited for longer than asked: three attempts of 0.2 seconds."""
    served.act = lambda handler, _: time.sleep(2)
    began = time.monotonic()
    with pytest.raises(LostRankError, match="timed out, in 3 attempts"):
        quick(served, timeout_s=0.2)(THREE)
    assert time.monotonic() - began < 1.9


def test_a_server_that_drips(served: Server) -> None:
    """Each byte comes in time, the whole does not."""
    def act(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(30):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    served.act = act
    with pytest.raises(LostRankError, match=r"no whole reply within 0\.3 s|timed out"):
        quick(served, timeout_s=0.3, attempts=1)(THREE)


def test_a_server_that_drips_its_headers(served: Server) -> None:
    """The same before the body: each byte in time, for five seconds."""
    def act(handler: BaseHTTPRequestHandler, _: int) -> None:
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Patience: ")
            for _ in range(100):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)

    served.act = act
    began = time.monotonic()
    with pytest.raises(LostRankError, match="timed out, in 1 attempts"):
        quick(served, timeout_s=0.3, attempts=1)(THREE)
    assert time.monotonic() - began < 3


def test_a_body_without_end_is_not_read_to_it(served: Server) -> None:
    def act(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            try:
                handler.wfile.write(b" " * 65536)
            except OSError:
                return

    served.act = act
    with pytest.raises(InputError, match="more than 1,000,000 bytes"):
        quick(served, most_bytes=1_000_000)(THREE)
    assert len(served.seen) == 1


def test_a_body_that_ends_too_early_is_asked_for_again(served: Server) -> None:
    cut = b'{"scores": [1, 2, 3]'
    served.act = lambda handler, attempt: reply(handler, 200, cut, 4000) if attempt == 1 else scores(1, 2, 3)(handler, 2)
    assert quick(served)(THREE) == [1.0, 2.0, 3.0]


WRONG = {
    "too few": (b'{"scores": [1, 2]}', InputError, "gave 2 rewards for 3 answers"),
    "too many": (b'{"scores": [1, 2, 3, 4]}', InputError, "more rewards than the 3 answers"),
    "not a number": (b'{"scores": [1, NaN, 3]}', NumericError, "the reward of answer 2 of 3 is nan"),
    "infinite": (b'{"scores": [1, 2, -Infinity]}', NumericError, "the reward of answer 3 of 3 is -inf"),
    "beyond a float": (b'{"scores": [1, 2, 1e999]}', NumericError, "the reward of answer 3 of 3 is inf"),
    "an integer beyond a float": (b'{"scores": [1, 2, -1' + b"0" * 400 + b"]}", NumericError, "the reward of answer 3 of 3 is -inf"),
    "null": (b'{"scores": [null, 2, 3]}', InputError, "answer 1 of 3 is 'None', not a number"),
    "text": (b'{"scores": [1, "2", 3]}', InputError, "not a number"),
    "true": (b'{"scores": [1, true, 3]}', InputError, "not a number"),
    "lists": (b'{"scores": [[1], [2], [3]]}', InputError, "not a number"),
    "no list": (b'{"scores": 1}', InputError, r'no list of scores: \{"scores": 1\}; it must be \{"scores": \[...\]\}'),
    "other key": (b'{"rewards": [1, 2, 3]}', InputError, "no list of scores"),
    "bare list": (b"[1, 2, 3]", InputError, "no list of scores"),
    "a page": (b"<html>hello</html>", InputError, "the reply is not JSON: <html>hello</html>"),
    "empty": (b"", InputError, "the reply is not JSON: nothing"),
    "not text": (b"\xff\xfe\x00", InputError, "the reply is not JSON"),
    "deep": (b"[" * 100_000, InputError, "the reply is not JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_reply_ends_the_run_at_once(served: Server, case: str) -> None:
    """In one line that names the service; asking again would not help."""
    body, kind, words = WRONG[case]
    served.act = lambda handler, _: reply(handler, 200, body)
    with pytest.raises(kind, match=words) as refused:
        quick(served)(THREE)
    assert served.address in str(refused.value) and "\n" not in str(refused.value) and len(served.seen) == 1


@pytest.mark.parametrize(("status", "headers"), [(404, {}), (401, {}), (422, {}), (302, {"Location": "http://127.0.0.1:9/"}), (204, {})])
def test_other_status_codes_are_told_with_what_came(served: Server, status: int, headers: dict[str, str]) -> None:
    """A redirection is not followed."""
    def act(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": "0" if status == 204 else "7"}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if status != 204:
            handler.wfile.write(b"no such")

    served.act = act
    with pytest.raises(InputError, match=f"HTTP status {status}: {'nothing' if status == 204 else 'no such'}"):
        quick(served)(THREE)
    assert len(served.seen) == 1


@pytest.mark.parametrize(("address", "words"), [
    ("ftp://host/x", "not an http or https address"), ("file:///etc/passwd", "not an http or https address"), ("saves/rm", "not an"),
    ("http://", "not an http or https address"), ("http://host:port/", "is no address"),
    ("https://me:secret@host/", "a name or a password"), ("https://me:secret@host/a b", "a name or a password"),
    ("http://a..b/", "is no address"),
    ("http://host/two words", "has characters"), ("http://host/b\u00e4r", "has characters"), ("http://host/?q=\u00e4", "has characters"),
])
def test_only_web_addresses_without_passwords(address: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        RewardService.at(address)
    assert "secret" not in str(refused.value)
