"""Commands of tunewright in forked children of one process, which has imported once what they need and notes what they do.

What is noted are audit events of Python (PEP 578): sockets, names looked up, and files opened. The program is this module itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

NETWORK_EVENTS: Final = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo",
                         "socket.bind", "socket.sendto", "urllib.Request", "http.client.connect")
OPENED: Final = "open "
HEAVY: Final = ("torch", "transformers", "peft", "accelerate")
"""What nearly every command imports that opens a model: once, before the first child."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended; `events`: what it did, one line each, a line once. `cpu_s`: what it took, without what was imported before."""

    code: int
    out: str
    err: str
    events: tuple[str, ...]
    cpu_s: float = 0.0

    @property
    def network(self) -> tuple[str, ...]:
        """Sockets that reach beyond this machine's files, and names that were looked up."""
        return tuple(one for one in self.events if not one.startswith(OPENED))

    @property
    def opened(self) -> tuple[str, ...]:
        """Paths that were opened."""
        return tuple(one.removeprefix(OPENED) for one in self.events if one.startswith(OPENED))

    def last_line(self) -> str:
        """What the command said last, for an outcome."""
        return ([line for line in (*self.out.splitlines(), *self.err.splitlines()) if line.strip()] or ["nothing"])[-1][:300]


class Commands:
    """A process that runs commands in children of its own. `imports`: how it ended while it imported what `like` needs."""

    def __init__(self, like: Sequence[str], folder: Path, environment: Mapping[str, str], prefix: Sequence[str] = (),
                 packages: Sequence[str] = HEAVY) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", __name__, *packages], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)
        self.imports = self._ask(list(like), folder, {}, "", keeps=True)

    def run(self, words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, said: str = "") -> Ended:
        """`tunewright` with these words, in `folder`, with more environment; `said`: its standard input."""
        return self._ask(list(words), folder, environment or {}, said, keeps=False)

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _ask(self, words: list[str], folder: Path, environment: Mapping[str, str], said: str, *, keeps: bool) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"words": words, "folder": str(folder), "environment": dict(environment), "said": said, "keeps": keeps}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Ended(told["code"], told["out"], told["err"], tuple(told["events"]), told["cpu_s"])


@contextlib.contextmanager
def commands(like: Sequence[str], folder: Path, environment: Mapping[str, str], prefix: Sequence[str] = (),
             packages: Sequence[str] = HEAVY) -> Iterator[Commands]:
    """A process for commands, ended with the block. First it imports `packages`, and what the command `like` does, run once in `folder`.

    `prefix`: words before the interpreter, which start it in another way.
    """
    process = Commands(like, folder, environment, prefix, packages)
    try:
        yield process
    finally:
        process.close()


class Noted:
    """The audit hook: what happened since it was last emptied."""

    def __init__(self) -> None:
        self.events: dict[str, None] = {}

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note an event of a kind that matters here."""
        if event == "open" and isinstance(arguments[0], str | bytes):
            self.events[OPENED + os.fsdecode(arguments[0])] = None
        elif event == "socket.__new__" and int(arguments[1]) in (2, 10):  # AF_INET, AF_INET6
            self.events[f"socket of family {int(arguments[1])}"] = None
        elif event in NETWORK_EVENTS and not _is_local(event, arguments):
            self.events[f"{event} {[str(one)[:100] for one in arguments]}"] = None


def _is_local(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an address is a path on this machine."""
    return event in ("socket.connect", "socket.bind", "socket.sendto") and isinstance(arguments[1], str | bytes)


def main() -> None:
    """Serve commands until standard input ends."""
    noted = Noted()
    sys.addaudithook(noted)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in sys.argv[1:]:
        import_module(name)
    for line in sys.stdin:
        answers.write(json.dumps(_serve(json.loads(line), noted)) + "\n")
        answers.flush()


def _serve(asked: Mapping[str, Any], noted: Noted) -> dict[str, Any]:
    """Run one command in a child; where it `keeps` what was learned, import here what the child imported."""
    with (tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err,
          tempfile.TemporaryFile() as learned):
        given.write(asked["said"])
        given.flush()
        given.seek(0)
        child = os.fork()
        if child == 0:
            if not asked["keeps"]:
                noted.events.clear()
            for number, file in enumerate((given, out, err)):
                os.dup2(file.fileno(), number)
            code = 1
            try:
                code = _command(asked)
            finally:
                os.write(learned.fileno(), json.dumps({"events": list(noted.events), "modules": list(sys.modules)}).encode())
                os._exit(code)
        _, status, used = os.wait4(child, 0)
        told = json.loads(_text(learned) or '{"events": [], "modules": []}')
        if asked["keeps"]:
            for name in told["modules"]:
                if name not in sys.modules and not name.startswith("__"):
                    with contextlib.suppress(ImportError):
                        import_module(name)
        return {"code": os.waitstatus_to_exitcode(status), "out": _text(out), "err": _text(err), "events": told["events"],
                "cpu_s": used.ru_utime + used.ru_stime}


def _command(asked: Mapping[str, Any]) -> int:
    """In the child: the command itself."""
    os.chdir(asked["folder"])
    os.environ.update(asked["environment"])
    # Descriptor 0 is another file now; what this object had read ahead of the old one is not meant for the child.
    sys.stdin = os.fdopen(0)
    if not asked["words"]:
        return 0
    from tunewright.cli import main as command_line

    code = command_line(asked["words"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


if __name__ == "__main__":
    main()
